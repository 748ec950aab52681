-- 200,000 rows of 5 KB, and a table in which a few texts are long.
CREATE SCHEMA IF NOT EXISTS bench;
CREATE TABLE IF NOT EXISTS bench.docs AS
  SELECT g::bigint AS id, repeat(md5(g::text), 160) AS body FROM generate_series(1, 200000) g;
CREATE TABLE IF NOT EXISTS bench.long AS
  SELECT g::bigint AS id, repeat(md5(g::text), CASE WHEN g % 100 = 0 THEN 160000 ELSE 10 END) AS body
  FROM generate_series(1, 1000) g;
