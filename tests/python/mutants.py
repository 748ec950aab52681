"""Runs a seeded sample of mutants of the pure parts against the unit tests alone.

    python3 tests/python/mutants.py [--sample 150] [--seed 10] [--list]

cargo-mutants lists the mutants. All of the sample are built into one test binary per crate, each behind
a switch that the environment sets, so that 150 mutants cost two builds and not 150. A mutant that
shares its function with another function's, or stands in a `const fn`, waits for a build of its own.
Prints a table of caught and missed mutants per file and the names of the missed ones; ends with 1 if
fewer than 90 % of the viable ones are caught. What was found so far lies in out/mutants.json, from
which a run that was stopped goes on while the code is the same.
"""

import argparse
import collections
import hashlib
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys

CRATES = {"casebook-connectors": "connectors", "casebook": "."}
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
# Seconds for the unit tests of one crate, which take a few; a mutant may loop for ever.
LIMIT = 300
TREE = pathlib.Path("out/mutants")
FOUND = pathlib.Path("out/mutants.json")
SWITCH = """
/// The mutant that this run tries.
#[doc(hidden)]
pub fn mutant() -> u32 {
    static MUTANT: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    *MUTANT.get_or_init(|| std::env::var("MUTANT").ok().and_then(|v| v.parse().ok()).unwrap_or(0))
}
"""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sample", type=int, default=150)
    parser.add_argument("--seed", type=int, default=10)
    parser.add_argument("--list", action="store_true", help="print the sample and end")
    options = parser.parse_args()

    packages = [word for name in CRATES for word in ("--package", name)]
    listed = subprocess.run(
        ["cargo", "mutants", "--list", "--json", *packages], check=True, stdout=subprocess.PIPE
    )
    pure = {m["name"]: m for m in json.loads(listed.stdout) if PURE.fullmatch(m["file"])}
    sample = random.Random(options.seed).sample(sorted(pure), min(options.sample, len(pure)))
    print(f"{len(sample)} of {len(pure)} mutants", flush=True)
    if options.list:
        print("\n".join(sample))
        return 0

    tree, found = digest(), {}
    if FOUND.exists() and (before := json.loads(FOUND.read_text()))["tree"] == tree:
        found = before["found"]
    while len(found) < len(sample):
        pending = {k: pure[n] for k, n in enumerate(sample, 1) if n not in found}
        switched = write_tree(pending)
        binaries, broken = build(switched)
        for k in broken:
            found[pending[k]["name"]] = "does not compile"
        if not broken:
            for k in sorted(switched):
                name, package = pending[k]["name"], pending[k]["package"]
                found[name] = attempt(binaries[package], package, k)
                print(f"{found[name]}: {name}", flush=True)
                FOUND.write_text(json.dumps({"tree": tree, "found": found}))
        FOUND.write_text(json.dumps({"tree": tree, "found": found}))
    return report(found)


def tracked():
    listed = subprocess.run(["git", "ls-files"], check=True, stdout=subprocess.PIPE, text=True)
    return [name for name in listed.stdout.split("\n") if os.path.isfile(name)]


def digest():
    """Of all Rust files: what was found holds for these only."""
    whole = hashlib.sha256()
    for name in tracked():
        if name.endswith(".rs"):
            whole.update(name.encode() + pathlib.Path(name).read_bytes())
    return whole.hexdigest()


def write_tree(pending):
    """A copy of the tracked files with as many of `pending` behind switches as one build can hold."""
    shutil.rmtree(TREE, ignore_errors=True)
    for name in tracked():
        (TREE / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(name, TREE / name)
    files = collections.defaultdict(list)
    for k, mutant in pending.items():
        files[mutant["file"]].append((k, mutant))
    switched = set()
    for name, mutants in files.items():
        text, added = with_switches((TREE / name).read_text(), mutants)
        if added:
            (TREE / name).write_text(text)
        switched |= added
    if not switched:
        # Only those are left that no switch can hold: one of them, as it is.
        k, mutant = next(iter(pending.items()))
        path = TREE / mutant["file"]
        text = path.read_text()
        start, end = span(text, mutant["span"])
        path.write_text(f"{text[:start]}/*M {k}*/{mutant['replacement']}{text[end:]}")
        switched = {k}
    for crate in CRATES.values():
        with open(TREE / crate / "src/lib.rs", "a", encoding="utf-8") as lib:
            lib.write(SWITCH)
    return switched


def with_switches(text, mutants):
    functions = collections.defaultdict(list)
    for k, mutant in mutants:
        if mutant["function"]:
            functions[span(text, mutant["function"]["span"])].append((k, mutant))
    edits, added = [], set()
    for (start, end), within in sorted(functions.items(), key=lambda f: (f[0][0], -f[0][1])):
        opening = body(text, start)
        if edits and start < edits[-1][1] or re.search(r"\bconst\s+(unsafe\s+)?fn\b", text[start:opening]):
            continue
        arms = []
        for k, mutant in within:
            a, b = span(text, mutant["span"])
            changed = text[opening + 1 : a] + mutant["replacement"] + text[b : end - 1]
            arms.append(f"\n/*M {k}*/ {k} => {{{changed}}}")
            added.add(k)
        arms.append(f"\n/*M 0*/ _ => {{{text[opening + 1 : end - 1]}}}")
        edits.append((opening, end, "{ match crate::mutant() { " + "".join(arms) + " } }"))
    for start, end, new in reversed(edits):
        text = text[:start] + new + text[end:]
    return text, added


def span(text, where):
    lines = [0]
    for line in text.split("\n"):
        lines.append(lines[-1] + len(line) + 1)
    return tuple(lines[where[side]["line"] - 1] + where[side]["column"] - 1 for side in ("start", "end"))


def body(text, at):
    """Where the body of the function that begins at `at` opens."""
    depth = 0
    while depth or text[at] != "{":
        if text.startswith("//", at):
            at = text.index("\n", at)
        elif text[at] == '"':
            at += 1
            while text[at] != '"':
                at += 2 if text[at] == "\\" else 1
        else:
            depth += (text[at] in "([") - (text[at] in ")]")
        at += 1
    return at


def build(switched):
    """The test binaries by package, and the mutants of `switched` that do not compile."""
    run = subprocess.run(
        ["cargo", "test", "--workspace", "--features", "odbc", "--lib", "--no-run"]
        + ["--message-format=json"],
        cwd=TREE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False,
    )
    binaries, broken, unknown = {}, set(), []
    for line in run.stdout.split("\n"):
        message = json.loads(line) if line.startswith("{") else {}
        if message.get("executable"):
            binaries[message["target"]["name"]] = message["executable"]
        error = message.get("message") or {}
        if message.get("reason") == "compiler-message" and error.get("level") == "error":
            k = culprit(error)
            if k in switched:
                broken.add(k)
            elif error["spans"]:
                unknown.append(error["rendered"])
    if run.returncode and not broken:
        sys.exit("the tree does not build:\n" + "".join(unknown[:3]) + run.stderr[-2000:])
    return {name: binaries.get(name.replace("-", "_")) for name in CRATES}, broken


def culprit(error):
    """The mutant whose arm holds the primary span of a compiler's message."""
    for place in error["spans"]:
        path = TREE / place["file_name"]
        if not place["is_primary"] or not path.is_file():
            continue
        for line in reversed(path.read_text().split("\n")[: place["line_start"]]):
            if marks := re.findall(r"/\*M (\d+)\*/", line):
                return int(marks[-1])
    return 0


def attempt(binary, package, k):
    try:
        run = subprocess.run(
            [os.path.abspath(binary), "-q"], cwd=TREE / CRATES[package], timeout=LIMIT, check=False,
            env={**os.environ, "MUTANT": str(k)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return "timed out"
    return "caught" if run.returncode else "missed"


def report(found):
    table = collections.defaultdict(collections.Counter)
    for name, what in found.items():
        table[name.split(":")[0]][what] += 1
    total = sum(table.values(), collections.Counter())
    kinds = ["caught", "timed out", "missed", "does not compile"]
    print("| file | " + " | ".join(kinds) + " |\n|---|---|---|---|---|")
    for name, counts in [*sorted(table.items()), ("all", total)]:
        print(f"| {name} | " + " | ".join(str(counts[kind]) for kind in kinds) + " |")
    for name, what in found.items():
        if what == "missed":
            print("missed:", name)
    caught = total["caught"] + total["timed out"]
    viable = caught + total["missed"]
    print(f"caught {caught} of {viable} viable ones")
    return int(viable == 0 or caught < WANTED * viable)


if __name__ == "__main__":
    sys.exit(main())
