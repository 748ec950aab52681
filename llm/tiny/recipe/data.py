"""Which opinions may the model learn from, and how do their texts look?

Writes train.json (cases_large.csv without cases.csv) and held.json (cases.csv, never trained on).

    python data.py FOLDER_WITH_THE_TWO_CSV_FILES
"""

import csv
import json
import random
import re
import sys


def clean(text):
    """The text as prompts show it; the program's `normalize` follows the same rule."""
    text = text.replace("&amp;", "&").replace("\f", "\n")
    text = re.sub(r"[ \t]+", " ", text)
    text = re.sub(r" ?\n ?", "\n", text)
    text = re.sub(r"\n{2,}", "\n\n", text)
    return re.sub(r"(?<=\S)\n(?=\S)", " ", text).strip()


def usable(row):
    """Whether the row has a real case name, enough text, a date and a citation."""
    named = re.search(r"\bv\.|\bIn re\b|\bIn the Matter\b", row["name"], re.I)
    return (
        named
        and "Unknown" not in row["name"]
        and len(row["text"]) >= 2500
        and row["decision_date"]
        and row["citation"]
    )


def case(row):
    """The fields the prompt's header needs."""
    return dict(
        id=row["id"],
        name=row["name"].replace("  ", " "),
        court=row["court"],
        date=row["decision_date"],
        cite=row["citation"],
        text=clean(row["text"]),
    )


def main(folder):
    csv.field_size_limit(10**9)
    with open(f"{folder}/cases.csv", newline="") as file:
        held = list(csv.DictReader(file))
    with open(f"{folder}/cases_large.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    held_ids = {row["id"] for row in held}
    train = [case(row) for row in rows if row["id"] not in held_ids and usable(row)]
    random.Random(7).shuffle(train)
    with open("train.json", "w") as file:
        json.dump(train, file)
    with open("held.json", "w") as file:
        json.dump([case(row) for row in held], file)
    print(len(train), "train", len(held), "held")


if __name__ == "__main__":
    main(sys.argv[1])
