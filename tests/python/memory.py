"""Peak memory of the program on large inputs, against the bounds that the README gives.

    python tests/python/memory.py --program target/debug/casebook [--documents 150] [--csv FILE]

Needs nothing beyond Python. Without --csv the input is examples/cases.csv, repeated.
"""

import argparse
import csv
import os
import sys
import tempfile

SCAN_BYTES = 500 << 20
SCAN_LIMIT_MB = 600
GENERATE_LIMIT_MB = 1500  # beside the weights, which are 11.5 MB here


def records(path):
    csv.field_size_limit(1 << 30)
    with open(path, newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def repeat(source, target, done):
    """Copies the records of source, each time with other ids, until done(bytes, records)."""
    rows = list(records(source))
    with open(target, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        written = 0
        while True:
            for row in rows:
                if done(file.tell(), written):
                    return written
                copy = {**row, "id": f"{row['id']}-{written}"}
                writer.writerow(copy)
                written += 1


def peak_mb(program, statement):
    """Runs one statement; the peak resident memory of the program."""
    child = os.spawnv(os.P_NOWAIT, program, [program, "sql", "-q", statement])
    _, status, usage = os.wait4(child, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"failed: {statement}")
    return usage.ru_maxrss / 1024


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--program", required=True)
    arguments.add_argument("--documents", type=int, default=150)
    arguments.add_argument("--csv", default="examples/cases.csv")
    given = arguments.parse_args()
    failed = False

    def report(what, peak, limit):
        nonlocal failed
        failed |= peak >= limit
        print(f"{what}: {peak:.0f} MB at the peak, limit {limit} MB", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        table = os.path.join(folder, "cases.csv")
        create = f"CREATE EXTERNAL TABLE cases STORED AS CSV LOCATION '{table}'; "
        repeat(given.csv, table, lambda size, _: size >= SCAN_BYTES)
        scan = "SELECT count(*) AS records, sum(length(text)) AS characters FROM cases"
        report("scan of 500 MB", peak_mb(given.program, create + scan), SCAN_LIMIT_MB)

        count = repeat(given.csv, table, lambda _, n: n >= given.documents)
        generate = (
            "SELECT status, count(*) AS pairs, count(DISTINCT doc_id) AS documents FROM "
            "docs_to_qa('cases', profile => 'legal', max_pairs_per_document => 1) GROUP BY status"
        )
        peak = peak_mb(given.program, create + generate)
        report(f"docs_to_qa over {count} documents", peak, GENERATE_LIMIT_MB)
    sys.exit(failed)


main()
