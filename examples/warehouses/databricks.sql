-- Opinions in Unity Catalog, question/answer pairs in a table beside them.
-- Run it as often as you like: pairs that are there already are left as they are.
CREATE EXTERNAL TABLE cases STORED AS DATABRICKS LOCATION 'main.legal.cases'
OPTIONS (
    'databricks.host' '${env:DATABRICKS_HOST}',
    'databricks.token' '${env:DATABRICKS_TOKEN}',
    'databricks.warehouse_id' '${env:DATABRICKS_WAREHOUSE_ID}'
);

CREATE EXTERNAL TABLE qa STORED AS DATABRICKS LOCATION 'main.legal.qa'
OPTIONS (
    'databricks.host' '${env:DATABRICKS_HOST}',
    'databricks.token' '${env:DATABRICKS_TOKEN}',
    'databricks.warehouse_id' '${env:DATABRICKS_WAREHOUSE_ID}',
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
