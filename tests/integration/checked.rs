//! `casebook check` finds what `casebook run` would refuse, and leaves nothing behind; what was
//! trained is not trained again, and another training is refused before anything is overwritten.

use std::path::Path;

use crate::project::{program, project, said};

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

/// The project with one part of its configuration exchanged, and a file without questions.
fn changed(from: &str, to: &str) -> tempfile::TempDir {
    assert!(CONFIG.contains(from), "{from}");
    let dir = project(&CONFIG.replacen(from, to, 1));
    std::fs::write(dir.path().join("other.csv"), "a,b\n1,2\n").unwrap();
    dir
}

/// The exit code of a command and what it said.
fn casebook(dir: &Path, args: &[&str]) -> (i32, String) {
    let output = program(dir, args).output().unwrap();
    let code = output.status.code().unwrap();
    (code, said(&output, code))
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
        let dir = changed(from, to);
        let before = listed(dir.path());
        let (code, said) = casebook(dir.path(), &["check"]);
        assert!(code != 0 && said.contains(part), "{to}: {code}: {said}");
        assert_eq!(listed(dir.path()), before, "{to}: {said}");
        let (dry, dryly) = casebook(dir.path(), &["run", "j", "--dry-run", "-q"]);
        assert_eq!(listed(dir.path()), before, "{to}: {dryly}");
        let (code, ran) = casebook(dir.path(), &["run", "j", "-q"]);
        assert!(code != 0, "the check finds too much: {to}: {said}\n{ran}");
        assert_eq!(
            (dry, dryly),
            (code, ran),
            "{to}: a dry run finds something else"
        );
    }
}

#[test]
fn a_check_that_is_ok_leaves_nothing_and_the_job_runs() {
    let dir = changed("", "");
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

/// What `check --write` says is ok takes rows; what does not take any is told from it.
#[test]
fn a_table_that_takes_no_rows_is_not_ok_to_write_to() {
    let target = |format: &str, location: &str, more: &str| {
        format!("[tables.new]\nformat = \"{format}\"\nlocation = \"{location}\"\n{more}\n[jobs.j]")
    };
    let create = "options = { \"table.create\" = \"qa_pairs\" }";
    for (table, part) in [
        (target("csv", "other.csv", ""), "names the files of a table"),
        (target("csv", "oth*.csv", ""), "names the files of a table"),
        (target("csv", "other.csv/", create), "no directory"),
        (target("parquet", "other.csv/deep/", create), "no directory"),
        (target("csv", "other.csv", create), "no directory"),
        (target("delta", "other.csv", create), "no directory"),
        (target("delta", "other.csv/deep", create), "no directory"),
        (target("lora", "other.csv", ""), "a directory"),
        (target("chat_jsonl", "other.csv", ""), "exists"),
        (target("chat_jsonl", "out", ""), "out"),
    ] {
        let dir = changed("[jobs.j]", &table);
        if table.contains("\"out\"\n") {
            std::fs::create_dir(dir.path().join("out")).unwrap();
        }
        let before = listed(dir.path());
        let (code, said) = casebook(dir.path(), &["check", "new", "--write"]);
        assert!(code != 0 && said.contains(part), "{table}: {said}");
        assert!(said.contains("FAILED"), "{said}");
        assert_eq!(listed(dir.path()), before, "{said}");
        // And an INSERT is refused.
        let insert = match table.contains("qa_pairs") {
            true => {
                "INSERT INTO new (qa_id, doc_id, status, profile, model) VALUES ('a', 'd', 'ok', \
                 'p', 'm')"
            }
            false if table.contains("csv\"\nlocation = \"oth*") => {
                "INSERT INTO new SELECT * FROM new"
            }
            false if table.contains("format = \"csv") => "INSERT INTO new VALUES (1, 2)",
            false => "INSERT INTO new (question, answer) VALUES ('q', 'a')",
        };
        let (code, said) = casebook(dir.path(), &["sql", insert]);
        assert!(code != 0, "the check finds too much: {table}: {said}");
    }
    // Of tables that nobody named some are there to be read.
    let dir = changed("", "");
    let (code, said) = casebook(dir.path(), &["check", "--write"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("insert   only read: "), "{said}");
    assert!(
        said.contains("ok      insert   an INSERT is planned"),
        "{said}"
    );
    let (code, said) = casebook(dir.path(), &["check", "qa", "tuned", "--write"]);
    assert_eq!(code, 0, "{said}");
}

#[test]
fn what_is_trained_is_not_trained_again_and_another_training_is_refused() {
    let dir = changed("", "");
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
        "question,paraphrase,answer\nWho sat?,Whose court was it?,Judge Smith\n",
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
