-- Inserting examples trains a LoRA adapter; the directory then loads in PEFT and vLLM as it is.
-- With these settings the bundled model learns the two dozen pairs by heart, in half a minute.
CREATE EXTERNAL TABLE tuned STORED AS LORA LOCATION 'out/sql/adapter'
OPTIONS (
    'lora.rank' '16',
    'lora.alpha' '32',
    'lora.learning_rate' '2e-3',
    'lora.epochs' '24',
    'lora.batch_tokens' '512'
);

INSERT INTO tuned (doc_id, question, answer, document)
SELECT doc_id, question, answer, document FROM qa WHERE status = 'ok';

SELECT step, round(loss, 3) AS loss FROM train_log('tuned') ORDER BY step LIMIT 5;
