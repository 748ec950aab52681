-- The same questions to the base model and to the tuned one, without the documents.
SELECT q.question, q.answer AS expected,
       ask('default', q.question) AS base,
       ask('tuned', q.question) AS tuned
FROM qa q WHERE q.status = 'ok' ORDER BY q.qa_id LIMIT 3;
