-- Where the documents are. One row per document; the text may be of any length.
CREATE EXTERNAL TABLE cases STORED AS CSV LOCATION 'examples/cases.csv';

SELECT count(*) AS documents, sum(octet_length(text)) AS bytes FROM cases;
SELECT id, name, court, decision_date FROM cases ORDER BY id LIMIT 5;
