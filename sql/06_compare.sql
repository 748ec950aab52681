-- The same questions to the base model and to the tuned one, without the documents.
CREATE TABLE answers AS
SELECT question, answer AS expected, ask('default', question) AS base, ask('tuned', question) AS tuned
FROM (SELECT question, answer FROM qa WHERE status = 'ok' ORDER BY qa_id LIMIT 3);

SELECT * FROM answers;

SELECT count(*) AS questions,
       round(avg(token_f1(base, expected)), 2) AS base_f1,
       round(avg(token_f1(tuned, expected)), 2) AS tuned_f1,
       sum(CASE WHEN is_refusal(base) THEN 1 ELSE 0 END) AS base_refused
FROM answers;
