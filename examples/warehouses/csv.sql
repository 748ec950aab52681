-- Opinions in a CSV file, question/answer pairs in CSV files in a directory.
-- Run it as often as you like: pairs that are there already are left as they are.
CREATE EXTERNAL TABLE cases STORED AS CSV LOCATION 'examples/cases.csv';

CREATE EXTERNAL TABLE qa STORED AS CSV LOCATION 'out/warehouses/csv/'
OPTIONS ('table.create' 'qa_pairs', 'write.key' 'qa_id');

INSERT INTO qa
SELECT * FROM docs_to_qa(
    (SELECT id, name, court, decision_date, citation, text FROM cases ORDER BY id LIMIT 3),
    profile => 'legal',
    max_pairs_per_document => 2
);

SELECT status, count(*) AS pairs FROM qa GROUP BY status ORDER BY status;
