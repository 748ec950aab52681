-- Two personas read each chunk: one asks, one answers. A LIMIT stops generation.
SELECT question, answer FROM docs_to_qa('cases', profile => 'legal') WHERE status = 'ok' LIMIT 5;

-- The whole table, or any part of it, written as a Delta table. Rejected rows stay, with a reason.
CREATE EXTERNAL TABLE qa STORED AS DELTA LOCATION 'out/sql/qa'
OPTIONS ('table.create' 'qa_pairs_with_document', 'write.key' 'qa_id');

INSERT INTO qa
SELECT * FROM docs_to_qa(
    (SELECT id, name, court, decision_date, citation, text FROM cases ORDER BY id LIMIT 6),
    profile => 'legal',
    max_pairs_per_document => 4,
    keep_document => true  -- each pair with the passage it is about, for training
);
