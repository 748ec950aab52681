"""Runs a seeded sample of mutants of the pure parts against the unit tests alone.

    python3 tests/python/mutants.py [--sample 150] [--seed 10] [--list]

Needs cargo-mutants. Prints a table of caught and missed mutants per file and the names of the missed
ones; ends with 1 if fewer than 90 % of the viable ones are caught.
"""

import argparse
import collections
import json
import random
import re
import subprocess
import sys

PACKAGES = ["casebook-connectors", "casebook"]
# What decides without reading or writing anything: options, configuration, DDL, dialects, keys,
# places, the pieces of a CSV file, arguments, plans of jobs.
PURE = re.compile(
    r"connectors/src/(options|connector|write|location|declared)\.rs"
    r"|connectors/src/(csv|json|files|databricks|snowflake|odbc)/(options|settings)\.rs"
    r"|connectors/src/odbc/connection_string\.rs"
    r"|connectors/src/sql/(ddl|dialect|columns)\.rs"
    r"|connectors/src/keys/(mod|set)\.rs"
    r"|connectors/src/csv/(pieces|split)\.rs"
    r"|src/functions/docs_to_qa/(arguments|spec)\.rs"
    r"|src/jobs/(plan|outcome)\.rs"
    r"|src/config/.*\.rs"
)
WANTED = 0.9


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sample", type=int, default=150)
    parser.add_argument("--seed", type=int, default=10)
    parser.add_argument("--list", action="store_true", help="print the sample and end")
    options = parser.parse_args()

    packages = [word for name in PACKAGES for word in ("--package", name)]
    listed = subprocess.run(
        ["cargo", "mutants", "--list", "--json", *packages], check=True, stdout=subprocess.PIPE
    )
    names = sorted({m["name"] for m in json.loads(listed.stdout) if PURE.fullmatch(m["file"])})
    sample = random.Random(options.seed).sample(names, min(options.sample, len(names)))
    print(f"{len(sample)} of {len(names)} mutants", flush=True)
    if options.list:
        print("\n".join(sample))
        return 0

    only = "^(" + "|".join(map(re.escape, sample)) + ")$"
    subprocess.run(
        ["cargo", "mutants", *packages, "--re", only, "--baseline", "run", "--timeout", "300"]
        + ["--features", "odbc", "--output", "out", "--", "--lib"],
        check=False,
    )
    with open("out/mutants.out/outcomes.json", encoding="utf-8") as file:
        outcomes = [o for o in json.load(file)["outcomes"] if o["scenario"] != "Baseline"]
    table = collections.defaultdict(collections.Counter)
    for outcome in outcomes:
        table[outcome["scenario"]["Mutant"]["file"]][outcome["summary"]] += 1
    total = sum(table.values(), collections.Counter())
    kinds = ["CaughtMutant", "Timeout", "MissedMutant", "Unviable"]
    print("| file | caught | timed out | missed | does not compile |\n|---|---|---|---|---|")
    for name, counts in [*sorted(table.items()), ("all", total)]:
        print(f"| {name} | " + " | ".join(str(counts[kind]) for kind in kinds) + " |")
    for outcome in outcomes:
        if outcome["summary"] == "MissedMutant":
            print("missed:", outcome["scenario"]["Mutant"]["name"])
    caught = total["CaughtMutant"] + total["Timeout"]
    viable = caught + total["MissedMutant"]
    print(f"caught {caught} of {viable} viable ones")
    return int(viable == 0 or caught < WANTED * viable)


if __name__ == "__main__":
    sys.exit(main())
