"""Files to Arrow: Casebook beside Polars, DuckDB and the Python deltalake package.

    python benches/files.py --reader target/release/examples/read [--before OLDER_READER]

Needs `pip install polars duckdb deltalake pyarrow`. Makes the data under out/bench from
examples/cases.csv: 500 MB of opinions with quoted line breaks, one file each of CSV, JSON (a record
per line) and Parquet, and one Delta table of eight files. Each reader runs in a process of its own,
in turns; the tables have the medians. `--before` adds the same example built from an older commit.
"""

import argparse
import csv
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[1]
DATA = ROOT / "out/bench"
BYTES = 500_000_000
FILES = 8


def opinions():
    csv.field_size_limit(1 << 30)
    with open(ROOT / "examples/cases.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    written = number = 0
    while written < BYTES:
        row = dict(rows[number % len(rows)])
        # Each text another one: no dictionary makes the work small.
        row["id"] = f"{row['id']}-{number}"
        row["text"] = f"{number} {row['text']}"
        written += sum(len(value.encode()) for value in row.values())
        number += 1
        yield row


def prepare():
    DATA.mkdir(parents=True, exist_ok=True)
    if not (DATA / "cases.csv").exists():
        rows = opinions()
        first = next(rows)
        with open(DATA / "part.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, first.keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerow(first)
            writer.writerows(rows)
        (DATA / "part.csv").rename(DATA / "cases.csv")
    if not (DATA / "cases_delta").exists():
        import deltalake
        import pyarrow

        rows = list(opinions())
        size = -(-len(rows) // FILES)
        for at in range(0, len(rows), size):
            deltalake.write_deltalake(
                DATA / "delta.part", pyarrow.Table.from_pylist(rows[at : at + size]), mode="append"
            )
        (DATA / "delta.part").rename(DATA / "cases_delta")


def copies():
    """The opinions as one Parquet and one JSON file each."""
    import duckdb

    for name in ("parquet", "json"):
        path = DATA / f"cases.{name}"
        if not path.exists():
            source = f"read_csv('{DATA / 'cases.csv'}', all_varchar=true, parallel=false)"
            part = DATA / f"part.{name}"
            duckdb.sql(f"COPY (FROM {source}) TO '{part}' (FORMAT {name})")
            part.rename(path)


def polars_csv(path):
    import polars

    return polars.read_csv(path, infer_schema=False).to_arrow().num_rows


def duckdb_csv(path):
    import duckdb

    # In parallel DuckDB 2.0.1 takes a line within quotes for a record of this file, and fails.
    source = f"read_csv('{path}', all_varchar=true, parallel=false, max_line_size=10000000)"
    reader = duckdb.sql(f"SELECT * FROM {source}").arrow(1024)
    return sum(batch.num_rows for batch in reader)


def polars_json(path):
    import polars

    return polars.read_ndjson(path).to_arrow().num_rows


def duckdb_json(path):
    import duckdb

    source = f"read_json('{path}', format='newline_delimited', maximum_object_size=100000000)"
    return sum(batch.num_rows for batch in duckdb.sql(f"FROM {source}").arrow(1024))


def polars_parquet(path):
    import polars

    return polars.read_parquet(path).to_arrow().num_rows


def duckdb_parquet(path):
    import duckdb

    return sum(batch.num_rows for batch in duckdb.sql(f"FROM read_parquet('{path}')").arrow(1024))


def polars_delta(path):
    import polars

    return polars.read_delta(path).to_arrow().num_rows


def deltalake_delta(path):
    import deltalake

    batches = deltalake.DeltaTable(path).to_pyarrow_dataset().to_batches(batch_size=1024)
    return sum(batch.num_rows for batch in batches)


PEERS = {
    function.__name__: function
    for function in (
        polars_csv, duckdb_csv, polars_json, duckdb_json, polars_parquet, duckdb_parquet,
        polars_delta, deltalake_delta,
    )
}


def peer(name, path):
    """Rows, seconds without the imports, and peak memory in kB, as the Rust example prints them."""
    read = PEERS[name]
    for module in ("polars", "duckdb", "deltalake", "pyarrow.dataset"):
        if module.split(".")[0] in name or module == "pyarrow.dataset":
            __import__(module)
    began = time.time()
    rows = read(path)
    seconds = time.time() - began
    with open("/proc/self/status", encoding="utf-8") as status:
        peak = next(line.split()[1] for line in status if line.startswith("VmHWM"))
    print(rows, seconds, peak)


def compare(title, readers, turns):
    runs = {name: [] for name in readers}
    for _ in range(turns):
        for name, command in readers.items():
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                sys.exit(f"{name}: {done.stderr}")
            runs[name].append([float(part) for part in done.stdout.split()])
    counted = {run[0] for result in runs.values() for run in result}
    if len(counted) != 1:
        sys.exit(f"the readers do not agree: {counted}")
    median = {n: [statistics.median(column) for column in zip(*r)] for n, r in runs.items()}
    ours = ("Casebook", "Casebook, before")
    best = min(seconds for name, (_, seconds, _) in median.items() if name not in ours)
    print(f"\n| {title} | seconds | rows per second | of the best peer | peak memory |")
    print("|---|---|---|---|---|")
    for name, (rows, seconds, peak) in median.items():
        print(
            f"| {name} | {seconds:.2f} | {rows / seconds:,.0f} | {best / seconds:.2f} | "
            f"{peak / 1024:,.0f} MB |"
        )


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--reader", help="the example `read` of the connectors crate, built")
    arguments.add_argument("--before", help="the same, of an older commit")
    arguments.add_argument("--turns", type=int, default=5)
    arguments.add_argument("--peer", nargs=2, metavar=("NAME", "PATH"), help="run one reader here")
    given = arguments.parse_args()
    if given.peer:
        return peer(*given.peer)
    prepare()
    copies()

    def readers(kind, path, **peers):
        programs = {"Casebook": given.reader, "Casebook, before": given.before}
        ours = {name: [program, kind, path] for name, program in programs.items() if program}
        peers = {
            title: [sys.executable, __file__, "--peer", function, path]
            for function, title in peers.items()
        }
        return ours | peers

    for title, kind, name, peers in (
        ("CSV, 500 MB, one file", "CSV", "cases.csv",
         {"polars_csv": "Polars", "duckdb_csv": "DuckDB"}),
        ("JSON, 500 MB, one file", "JSON", "cases.json",
         {"polars_json": "Polars", "duckdb_json": "DuckDB"}),
        ("Parquet, one file of DuckDB's", "PARQUET", "cases.parquet",
         {"polars_parquet": "Polars", "duckdb_parquet": "DuckDB"}),
        ("Delta, 500 MB, 8 files", "DELTA", "cases_delta",
         {"deltalake_delta": "deltalake (Python)", "polars_delta": "Polars"}),
    ):
        compare(title, readers(kind, str(DATA / name), **peers), given.turns)


if __name__ == "__main__":
    main()
