-- Opinions in PostgreSQL, question/answer pairs in a table beside them. Needs the feature odbc.
-- Run it as often as you like: pairs that are there already are left as they are.
-- CASES_ODBC='Driver={PostgreSQL Unicode};Server=localhost;Database=law;Uid=casebook;Pwd=...'
CREATE EXTERNAL TABLE cases STORED AS ODBC LOCATION 'public.cases'
OPTIONS (
    'odbc.connection_string' '${env:CASES_ODBC}'
);

CREATE EXTERNAL TABLE qa STORED AS ODBC LOCATION 'public.qa'
OPTIONS (
    'odbc.connection_string' '${env:CASES_ODBC}',
    'table.create' 'qa_pairs',
    'write.key' 'qa_id'
);

INSERT INTO qa
SELECT * FROM docs_to_qa(
    (SELECT id, name, court, decision_date, citation, text FROM cases ORDER BY id LIMIT 3),
    profile => 'legal',
    max_pairs_per_document => 2
);

SELECT status, count(*) AS pairs FROM qa GROUP BY status ORDER BY status;
