-- Inserting examples trains a LoRA adapter; the directory then loads in PEFT and vLLM as it is.
CREATE EXTERNAL TABLE tuned STORED AS LORA LOCATION 'out/sql/adapter'
OPTIONS ('lora.rank' '8', 'lora.epochs' '4');

INSERT INTO tuned (doc_id, question, answer, document)
SELECT doc_id, question, answer, document FROM qa WHERE status = 'ok';

SELECT step, round(loss, 3) AS loss FROM train_log('tuned') ORDER BY step LIMIT 5;
