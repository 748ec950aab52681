"""500 MB of text through each source: rows, seconds and the peak memory of the reading process.

    eval "$(tests/services/s3.sh start)"; eval "$(tests/services/postgres.sh start)"
    python benches/memory.py --reader target/release/examples/read

Needs what benches/files.py needs, whose data it reads, psql, and a reader built with the feature
odbc. Snowflake is measured by its own bench. The Databricks workspace is the one of the tests: its
tables are read as files and through the warehouse.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import time

import files

ROOT = pathlib.Path(__file__).parents[1]
LIMIT_MB = 700
POSTGRES_ROWS = 100_000  # of 5 KB


def postgres():
    connection = os.environ["CASEBOOK_TEST_ODBC_POSTGRES"]
    parts = dict(p.split("=", 1) for p in connection.rstrip(";").split(";"))
    subprocess.run(
        [
            "psql", "-q", "-h", parts["Server"], "-p", parts["Port"], "-U", parts["Uid"],
            parts["Database"], "-c", "CREATE SCHEMA IF NOT EXISTS bench",
            "-c", "CREATE TABLE IF NOT EXISTS bench.half AS SELECT g::bigint AS id, "
            f"repeat(md5(g::text), 160) AS body FROM generate_series(1, {POSTGRES_ROWS}) g",
        ],
        env={**os.environ, "PGPASSWORD": parts["Pwd"]}, check=True,
    )
    return connection


def databricks():
    """The workspace of the conformance tests, with 500 MB of opinions."""
    address = files.DATA / "databricks-address"
    address.unlink(missing_ok=True)
    server = subprocess.Popen(
        [
            "cargo", "test", "--quiet", "--workspace", "--features", "odbc", "--locked",
            "--test", "conformance", "databricks::serve::serve", "--", "--exact",
        ],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
        env={
            **os.environ,
            "CASEBOOK_TEST_SERVE_DATABRICKS": str(address),
            "CASEBOOK_TEST_SERVE_CASES": str(files.DATA / "cases.csv"),
        },
    )
    while not address.exists():
        if server.poll() is not None:
            sys.exit("databricks: the fake workspace did not start")
        time.sleep(0.5)
    options = [
        f"databricks.host={address.read_text(encoding='utf-8')}",
        "databricks.token=dapi-hidden",
        "databricks.warehouse_id=wh1",
        f"aws.endpoint={os.environ['CASEBOOK_TEST_S3']}",
        "aws.allow_http=true",
    ]
    return server, options


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--reader", required=True)
    reader = arguments.parse_args().reader
    files.prepare()
    files.copies()
    connection = postgres()
    server, workspace = databricks()
    unity = ["DATABRICKS", "main.legal.cases", *workspace]
    sources = {
        "CSV": ["CSV", files.DATA / "cases.csv"],
        "Parquet": ["PARQUET", files.DATA / "cases.parquet"],
        "JSON": ["JSON", files.DATA / "cases.json"],
        "Delta": ["DELTA", files.DATA / "cases_delta"],
        "Databricks, files": unity,
        "Databricks, warehouse": [*unity, "databricks.read=warehouse"],
        "ODBC, PostgreSQL": ["ODBC", "bench.half", f"odbc.connection_string={connection}"],
    }
    failed = False
    print("| source | rows | seconds | peak memory |")
    print("|---|---|---|---|")
    for name, command in sources.items():
        done = subprocess.run([reader, *map(str, command)], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{name}: {done.stderr}")
        rows, seconds, peak = (float(part) for part in done.stdout.split())
        failed |= peak / 1024 > LIMIT_MB
        print(f"| {name} | {rows:,.0f} | {seconds:.1f} | {peak / 1024:,.0f} MB |")
    server.stdin.close()
    server.wait()
    sys.exit(failed)


main()
