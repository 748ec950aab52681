-- The whole main job on the bundled model and 36 real court opinions, a few minutes on two cores:
-- opinions -> question/answer pairs -> Delta table -> LoRA adapter -> base and tuned side by side.
CREATE EXTERNAL TABLE cases STORED AS CSV LOCATION 'examples/cases.csv';

CREATE EXTERNAL TABLE qa STORED AS DELTA LOCATION 'out/quickstart/qa'
OPTIONS ('table.create' 'qa_pairs', 'write.key' 'qa_id');

INSERT INTO qa SELECT * FROM docs_to_qa('cases', profile => 'legal', max_pairs_per_document => 4);

SELECT status, reason, count(*) AS questions, count(DISTINCT doc_id) AS opinions
FROM qa GROUP BY status, reason ORDER BY questions DESC;

-- 60 facts of these opinions, written by hand, each in two wordings. The first is trained, the
-- second never.
CREATE EXTERNAL TABLE probes STORED AS CSV LOCATION 'examples/probes.csv';

CREATE EXTERNAL TABLE tuned STORED AS LORA LOCATION 'out/quickstart/adapter'
OPTIONS (
    'lora.rank' '16', 'lora.alpha' '32', 'lora.learning_rate' '4e-3', 'lora.epochs' '24',
    'lora.batch_tokens' '1024', 'lora.question_noise' '0.05', 'lora.with_document_share' '0',
    'lora.mode' 'overwrite'
);

INSERT INTO tuned (doc_id, question, answer)
SELECT doc_id, question, answer FROM qa WHERE status = 'ok'
UNION ALL
SELECT doc_id, question, answer FROM probes;

SELECT step, round(loss, 3) AS loss FROM train_log('tuned') WHERE step % 40 = 0 ORDER BY step;

CREATE TABLE answers AS
SELECT question, answer,
       ask('default', question) AS base,
       ask('tuned', question) AS tuned,
       ask('tuned', paraphrase) AS tuned_paraphrase
FROM probes;

SELECT question, answer AS expected, base, tuned FROM answers LIMIT 5;

-- Exact match, case and punctuation aside.
WITH plain AS (
    SELECT regexp_replace(lower(answer), '[^a-z0-9 ]', '', 'g') AS expected,
           regexp_replace(lower(base), '[^a-z0-9 ]', '', 'g') AS base,
           regexp_replace(lower(tuned), '[^a-z0-9 ]', '', 'g') AS tuned,
           regexp_replace(lower(tuned_paraphrase), '[^a-z0-9 ]', '', 'g') AS tuned_paraphrase
    FROM answers
)
SELECT count(*) AS facts,
       sum(CASE WHEN base = expected THEN 1 ELSE 0 END) AS base_knows,
       sum(CASE WHEN tuned = expected THEN 1 ELSE 0 END) AS tuned_knows,
       sum(CASE WHEN tuned_paraphrase = expected THEN 1 ELSE 0 END) AS tuned_knows_other_wording
FROM plain;
