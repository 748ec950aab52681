-- Every question asked has a row: what was kept, and why the rest was not.
SELECT status, reason, count(*) AS pairs, round(avg(grounding), 2) AS grounding
FROM qa GROUP BY status, reason ORDER BY pairs DESC, status, reason;

SELECT doc_id, question, answer FROM qa WHERE status = 'ok' ORDER BY doc_id, chunk_no LIMIT 5;
