-- Inserting examples trains a LoRA adapter; the directory then loads in PEFT and vLLM as it is.
CREATE EXTERNAL TABLE tuned STORED AS LORA LOCATION 'out/sql/adapter'
OPTIONS ('lora.rank' '8', 'lora.epochs' '4');

INSERT INTO tuned (doc_id, question, answer, document)
SELECT q.doc_id, q.question, q.answer, text_slice(c.text, q.chunk_start, q.chunk_end)
FROM qa q JOIN cases c ON c.id = q.doc_id
WHERE q.status = 'ok';

SELECT step, round(loss, 3) AS loss FROM train_log('tuned') ORDER BY step LIMIT 5;
