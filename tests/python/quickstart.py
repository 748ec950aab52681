"""Did the README's first command do what the README says? Reads its result.json."""

import json
import sys

result = json.load(open(sys.argv[1], encoding="utf-8"))
generated = result["generated"]
sets = {entry["kind"]: entry for entry in result["compared"]["sets"]}
seen = sets["seen"]
exact = {model: seen[model]["exact_match"]["mean"] for model in ("base", "tuned")}
checks = {
    "status is ok": result["status"] == "ok",
    "3 accepted pairs per opinion": generated["pairs"] >= 3 * generated["documents"] > 0,
    "the base model knows at most 5 %": exact["base"] <= 0.05,
    "the tuned model knows at least 60 %": exact["tuned"] >= 0.60,
    "the other wordings are reported": sets["paraphrase"]["tuned"]["exact_match"]["n"] == 60,
}
for what, holds in checks.items():
    print("ok    " if holds else "FAILED", what)
sys.exit(not all(checks.values()))
