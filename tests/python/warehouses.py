"""Each examples/warehouses/*.sql twice: the second run changes nothing.

    python tests/python/warehouses.py --program target/debug/casebook

Takes the services that run (CASEBOOK_TEST_*; see tests/services) and says which examples it left
out; CASEBOOK_REQUIRE_SERVICES=1 makes a missing one an error. Needs nothing beyond Python and, for
PostgreSQL, psql.
"""

import argparse
import csv
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request

COLUMNS = ["id", "name", "court", "decision_date", "citation", "text"]
ROOT = pathlib.Path(__file__).parents[2]


def cases():
    csv.field_size_limit(1 << 30)
    with open(ROOT / "examples/cases.csv", newline="", encoding="utf-8") as file:
        return [[row[c] for c in COLUMNS] for row in csv.DictReader(file)]


def quoted(text):
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def seed_csv():
    shutil.rmtree(ROOT / "out/warehouses", ignore_errors=True)
    return {}


def seed_postgres():
    connection = os.environ["CASEBOOK_TEST_ODBC_POSTGRES"]
    parts = dict(p.split("=", 1) for p in connection.rstrip(";").split(";"))
    url = f"postgresql://{parts['Uid']}@{parts['Server']}:{parts['Port']}/{parts['Database']}"
    create = ", ".join(f"{c} text" for c in COLUMNS)
    rows = (ROOT / "examples/cases.csv").read_text(encoding="utf-8")
    subprocess.run(
        [
            "psql", url, "-qv", "ON_ERROR_STOP=1",
            "-c", "DROP TABLE IF EXISTS public.cases, public.qa",
            "-c", f"CREATE TABLE public.cases ({create})",
            "-c", f"COPY public.cases ({', '.join(COLUMNS)}) FROM STDIN WITH (FORMAT csv, HEADER)",
        ],
        env={**os.environ, "PGPASSWORD": parts["Pwd"]},
        input=rows, text=True, check=True,
    )
    return {"CASES_ODBC": connection}


def seed_snowflake():
    url = os.environ["CASEBOOK_TEST_SNOWFLAKE"]

    def post(path, body, token=None):
        headers = {"authorization": f'Snowflake Token="{token}"'} if token else {}
        request = urllib.request.Request(url + path, json.dumps(body).encode(), headers)
        reply = json.load(urllib.request.urlopen(request, timeout=60))
        if not reply["success"]:
            sys.exit(f"fakesnow: {reply['message']}")
        return reply

    login = {"data": {"SESSION_PARAMETERS": {}}}
    place = "/session/v1/login-request?databaseName=LEGAL&schemaName=PUBLIC"
    token = post(place, login)["data"]["token"]
    create = ", ".join(f"{c} VARCHAR" for c in COLUMNS)
    for statement in [
        "DROP TABLE IF EXISTS LEGAL.PUBLIC.QA",
        f"CREATE OR REPLACE TABLE LEGAL.PUBLIC.CASES ({create})",
        *(
            f"INSERT INTO LEGAL.PUBLIC.CASES VALUES ({', '.join(map(quoted, row))})"
            for row in cases()[:6]
        ),
    ]:
        post("/queries/v1/query-request", {"sqlText": statement}, token)
    return {
        "SNOWFLAKE_ACCOUNT": "xy12345",
        "SNOWFLAKE_HOST": url,
        "SNOWFLAKE_ALLOW_HTTP": "true",
        "SNOWFLAKE_USER": "casebook",
        "SNOWFLAKE_PASSWORD": "anything",
    }


def seed_databricks():
    """A workspace of the conformance tests, on the S3 server; it ends with this program."""
    endpoint = os.environ["CASEBOOK_TEST_S3"]
    bucket = urllib.request.Request(f"{endpoint}/casebook-test", method="PUT")
    try:
        urllib.request.urlopen(bucket, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code != 409:  # It is there.
            raise
    address = ROOT / "out/warehouses/databricks-address"
    address.parent.mkdir(parents=True, exist_ok=True)
    address.unlink(missing_ok=True)
    server = subprocess.Popen(
        [
            "cargo", "test", "--quiet", "--workspace", "--features", "odbc", "--locked",
            "--test", "conformance", "databricks::serve::serve", "--", "--exact",
        ],
        cwd=ROOT, env={**os.environ, "CASEBOOK_TEST_SERVE_DATABRICKS": str(address)},
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
    )
    while not address.exists():
        if server.poll() is not None:
            sys.exit("databricks: the fake workspace did not start")
        time.sleep(0.2)
    SERVERS.append(server)
    return {
        "DATABRICKS_HOST": address.read_text(encoding="utf-8"),
        "DATABRICKS_TOKEN": "dapi-hidden",
        "DATABRICKS_WAREHOUSE_ID": "wh1",
        "STORAGE": endpoint,
    }


SERVERS = []
EXAMPLES = {
    "csv": (None, seed_csv),
    "databricks": ("CASEBOOK_TEST_S3", seed_databricks),
    "postgres": ("CASEBOOK_TEST_ODBC_POSTGRES", seed_postgres),
    "snowflake": ("CASEBOOK_TEST_SNOWFLAKE", seed_snowflake),
}


def run(program, name, environment):
    """The counts that the INSERT and the last SELECT of an example print."""
    sql = (ROOT / f"examples/warehouses/{name}.sql").read_text(encoding="utf-8")
    if name == "databricks":
        # What the bucket of a real workspace does not need: it is where AWS says it is.
        storage = f"'aws.endpoint' '{environment['STORAGE']}', 'aws.allow_http' 'true',"
        sql = sql.replace("OPTIONS (", f"OPTIONS ({storage}")
    done = subprocess.run(
        [program, "sql", "-q", "--format", "jsonl"],
        cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, input=sql,
    )
    if done.returncode != 0:
        sys.exit(f"{name}: {done.stdout}{done.stderr}")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return rows[0]["count"], rows[1:]


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--program", required=True)
    program = arguments.parse_args().program
    failed = False
    for name, (service, seed) in EXAMPLES.items():
        if service and service not in os.environ:
            print(f"skipped {name}: {service} is not set")
            failed |= os.environ.get("CASEBOOK_REQUIRE_SERVICES") == "1"
            continue
        environment = seed()
        first, rows = run(program, name, environment)
        second, again = run(program, name, environment)
        holds = first > 0 and second == 0 and rows == again
        failed |= not holds
        print("ok    " if holds else "FAILED", f"{name}: {first} new rows, then {second}; {again}")
    for server in SERVERS:
        server.stdin.close()
        if server.wait() != 0:
            print("FAILED the fake workspace: the opinions were not read as files")
            failed = True
    sys.exit(failed)


main()
