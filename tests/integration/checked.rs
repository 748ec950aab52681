//! `casebook check` finds what `casebook run` would refuse, and leaves nothing behind; what was
//! trained is not trained again, and another training is refused before anything is overwritten.

use std::path::Path;
use std::process::Command;

use crate::CASES;

const CONFIG: &str = r#"
[models.default]
source = "builtin:tiny"
[models.other]
source = "builtin:tiny"
adapter = "nowhere"
[tables.cases]
format = "csv"
location = "cases.csv"
id = "id"
[tables.qa]
format = "delta"
location = "out/qa"
options = { "table.create" = "qa_pairs", "write.key" = "qa_id" }
[tables.probes]
format = "csv"
location = "probes.csv"
[tables.tuned]
format = "lora"
location = "out/adapter"
options = { "lora.rank" = 2, "lora.epochs" = 1, "lora.max_steps" = 2, "lora.with_document_share" = 0 }
[jobs.j]
source = "cases"
target = "qa"
profile = "legal"
arguments = { max_pairs_per_document = 1, "checks.ungrounded" = false }
output = "out"
train = { target = "tuned", also = "probes" }
compare = { probes = "probes", max_questions = 1 }
"#;

fn project(from: &str, to: &str) -> tempfile::TempDir {
    assert!(CONFIG.contains(from), "{from}");
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    file("casebook.toml", &CONFIG.replacen(from, to, 1));
    file("cases.csv", CASES);
    file(
        "probes.csv",
        "question,answer\nHow long was the sentence in Doe v. Baker?,37 months\n",
    );
    file("other.csv", "a,b\n1,2\n");
    dir
}

/// The exit code of a command and what it said.
fn casebook(dir: &Path, args: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_casebook"));
    let output = command.args(args).current_dir(dir).output().unwrap();
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (output.status.code().unwrap(), text)
}

/// Everything below `dir`, sorted.
fn listed(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut out = vec![];
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            out.extend(listed(&path));
        }
        out.push(path);
    }
    out.sort();
    out
}

#[test]
fn what_a_job_would_be_refused_for_is_found_before_it_costs_anything() {
    for (from, to, part) in [
        ("cases.csv", "nope.csv", "there is no file"),
        ("id = \"id\"", "id = \"nope\"", "id column 'nope'"),
        ("id = \"id\"", "title = [\"nope\"]", "title column 'nope'"),
        ("id = \"id\"", "text = \"id2\"", "text column 'id2'"),
        (
            "arguments = { ",
            "arguments = { text = \"nope\", ",
            "text column 'nope'",
        ),
        (
            "arguments = { ",
            "arguments = { keep = \"nope\", ",
            "keep column 'nope'",
        ),
        (
            "arguments = { ",
            "arguments = { sed = 7, ",
            "Did you mean 'seed'?",
        ),
        (
            "arguments = { ",
            "arguments = { seed = \"x\", ",
            "seed is a text of 1 characters",
        ),
        (
            "profile = \"legal\"",
            "profile = \"legl\"",
            "Did you mean 'legal'?",
        ),
        ("\"lora.rank\"", "\"lora.rnk\"", "Did you mean 'lora.rank'?"),
        (
            "\"lora.rank\" = 2",
            "\"lora.model\" = \"nope\"",
            "unknown model 'nope'",
        ),
        (
            "\"lora.rank\" = 2",
            "\"lora.profile\" = \"nope\"",
            "unknown profile 'nope'",
        ),
        (
            "\"lora.rank\" = 2",
            "\"lora.model\" = \"out\"",
            "unknown model",
        ),
        ("builtin:tiny", "builtin:huge", "bundled model 'huge'"),
        ("source = \"builtin:tiny\"", "source = \".\"", "config.json"),
        (
            "tiny\"\n[models.other]",
            "tiny\"\nadapter = \"nope\"\n[models.other]",
            "has an adapter",
        ),
        (
            "profile = \"legal\"",
            "profile = \"legal\"\nmodel = \"other\"",
            "nowhere",
        ),
        (
            "builtin:tiny\"",
            "builtin:tiny\"\ndevice = \"cuda\"",
            "cuda",
        ),
        (
            "location = \"probes.csv\"",
            "location = \"other.csv\"",
            "question",
        ),
        ("probes = \"probes\", ", "", "there are no questions"),
        (
            "table.create\" = \"qa_pairs\"",
            "table.create\" = \"qa_pair\"",
            "qa_pairs",
        ),
        ("\"qa_id\"", "\"id\"", "write.key"),
        (
            "output = \"out\"",
            "output = \"cases.csv/out\"",
            "is no directory",
        ),
        (
            "format = \"delta\"\nlocation = \"out/qa\"\noptions = { \"table.create\" = \
             \"qa_pairs\", \"write.key\" = \"qa_id\" }",
            "format = \"csv\"\nlocation = \"other.csv\"",
            "other.csv",
        ),
    ] {
        let dir = project(from, to);
        let before = listed(dir.path());
        let (code, said) = casebook(dir.path(), &["check"]);
        assert!(code != 0 && said.contains(part), "{to}: {code}: {said}");
        assert_eq!(listed(dir.path()), before, "{to}: {said}");
        let (code, ran) = casebook(dir.path(), &["run", "j", "-q"]);
        assert!(code != 0, "the check finds too much: {to}: {said}\n{ran}");
    }
}

#[test]
fn a_check_that_is_ok_leaves_nothing_and_the_job_runs() {
    let dir = project("", "");
    let before = listed(dir.path());
    for args in [&["check"][..], &["check", "--write"]] {
        let (code, said) = casebook(dir.path(), args);
        assert_eq!(code, 0, "{said}");
        let found = format!("found {}", dir.path().canonicalize().unwrap().display());
        assert!(said.contains(&found) && said.contains("j: a job"), "{said}");
        assert_eq!(listed(dir.path()), before, "{said}");
    }
    let (code, said) = casebook(dir.path(), &["run", "j"]);
    assert_eq!(code, 0, "{said}");
    let (code, said) = casebook(dir.path(), &["check", "--write"]);
    assert_eq!(code, 0, "{said}");
}

#[test]
fn what_is_trained_is_not_trained_again_and_another_training_is_refused() {
    let dir = project("", "");
    let result = || -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(dir.path().join("out/result.json")).unwrap()).unwrap()
    };
    let adapter =
        || std::fs::read(dir.path().join("out/adapter/adapter_model.safetensors")).unwrap();
    let (code, said) = casebook(dir.path(), &["run", "j"]);
    assert_eq!(code, 0, "{said}");
    let (first, trained) = (result(), adapter());
    assert_eq!(first["trained"]["was_there"], false);

    let (code, said) = casebook(dir.path(), &["run", "j"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("is done already"), "{said}");
    let second = result();
    assert_eq!(second["status"], "ok");
    assert_eq!(second["trained"]["was_there"], true);
    for figure in ["examples", "steps", "first_loss", "last_loss", "seconds"] {
        assert_eq!(
            first["trained"][figure], second["trained"][figure],
            "{figure}"
        );
    }
    assert!(trained == adapter());

    // Changed: refused before a token, and nothing of what is there changes.
    for (from, to, part) in [
        (
            "\"lora.epochs\" = 1",
            "\"lora.epochs\" = 3",
            "(epochs was 1, is 3)",
        ),
        (
            "\"lora.rank\" = 2",
            "\"lora.rank\" = 2, \"lora.mode\" = \"new\"",
            "'new' does not touch",
        ),
        (
            "profile = \"legal\"",
            "profile = \"legal\"\nmodel = \"nope\"",
            "unknown model 'nope'",
        ),
        (
            "arguments = { ",
            "arguments = { keep = \"court\", ",
            "those that keep names",
        ),
        (
            "[jobs.j]",
            "[profiles.general]\nsystem = \"You read.\"\n[jobs.j]",
            "prompts",
        ),
    ] {
        let toml = CONFIG.replacen(from, to, 1);
        std::fs::write(dir.path().join("casebook.toml"), toml).unwrap();
        for args in [&["run", "j"][..], &["check"]] {
            let (code, said) = casebook(dir.path(), args);
            assert!(code != 0 && said.contains(part), "{args:?} {to}: {said}");
            let is_training = !part.contains("model") && !part.contains("keep");
            assert!(said.contains("lora.mode") || !is_training, "{said}");
        }
        assert!(trained == adapter() && result() == second, "{to}");
    }

    // Other examples are known only when they are made; the training that is there stays.
    std::fs::write(dir.path().join("casebook.toml"), CONFIG).unwrap();
    std::fs::write(
        dir.path().join("probes.csv"),
        "question,answer\nWho sat?,Judge Smith\n",
    )
    .unwrap();
    let (code, said) = casebook(dir.path(), &["run", "j"]);
    assert!(code != 0 && said.contains("other examples"), "{said}");
    assert!(trained == adapter() && result()["status"] == "failed");
    let toml = CONFIG.replacen(
        "\"lora.rank\" = 2",
        "\"lora.rank\" = 2, \"lora.mode\" = \"resume_or_overwrite\"",
        1,
    );
    std::fs::write(dir.path().join("casebook.toml"), toml).unwrap();
    let (code, said) = casebook(dir.path(), &["run", "j"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(result()["trained"]["was_there"], false);
}
