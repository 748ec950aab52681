-- Opinions in Snowflake, question/answer pairs in a table beside them.
-- Run it as often as you like: pairs that are there already are left as they are.
-- SNOWFLAKE_HOST is ACCOUNT.snowflakecomputing.com or a PrivateLink name; SNOWFLAKE_PASSWORD may be
-- a programmatic access token.
CREATE EXTERNAL TABLE cases STORED AS SNOWFLAKE LOCATION 'LEGAL.PUBLIC.CASES'
OPTIONS (
    'snowflake.account' '${env:SNOWFLAKE_ACCOUNT}',
    'snowflake.host' '${env:SNOWFLAKE_HOST}',
    'snowflake.allow_http' '${env:SNOWFLAKE_ALLOW_HTTP:-false}', -- for servers of tests only
    'snowflake.user' '${env:SNOWFLAKE_USER}',
    'snowflake.password' '${env:SNOWFLAKE_PASSWORD}',
    'snowflake.warehouse' '${env:SNOWFLAKE_WAREHOUSE:-COMPUTE_WH}'
);

CREATE EXTERNAL TABLE qa STORED AS SNOWFLAKE LOCATION 'LEGAL.PUBLIC.QA'
OPTIONS (
    'snowflake.account' '${env:SNOWFLAKE_ACCOUNT}',
    'snowflake.host' '${env:SNOWFLAKE_HOST}',
    'snowflake.allow_http' '${env:SNOWFLAKE_ALLOW_HTTP:-false}', -- for servers of tests only
    'snowflake.user' '${env:SNOWFLAKE_USER}',
    'snowflake.password' '${env:SNOWFLAKE_PASSWORD}',
    'snowflake.warehouse' '${env:SNOWFLAKE_WAREHOUSE:-COMPUTE_WH}',
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
