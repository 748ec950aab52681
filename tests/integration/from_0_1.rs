//! What version 0.1 wrote (tests/data/from_0_1) is read, written to and trained from as before.

use std::path::Path;
use std::process::Command;

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// A copy that may be changed.
fn project() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/from_0_1");
    copy(&data, dir.path());
    dir
}

/// What the program says, one line for each row.
fn casebook(dir: &Path, args: &[&str], code: i32) -> Vec<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_casebook"))
        .args(args)
        .current_dir(dir)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}{errors}");
    said.lines()
        .chain(errors.lines())
        .map(str::to_owned)
        .collect()
}

fn sql(dir: &Path, statement: &str) -> Vec<String> {
    casebook(dir, &["sql", "-q", "--format", "jsonl", statement], 0)
}

const TARGETS: [&str; 4] = ["qa", "qa_numbered", "qa_csv", "qa_parquet"];

#[test]
fn its_targets_are_read() {
    let dir = project();
    for target in TARGETS {
        let select =
            format!("SELECT doc_id, answer, grounding, reason FROM {target} ORDER BY doc_id");
        let rows = sql(dir.path(), &select);
        assert_eq!(rows.len(), 2, "{target}: {rows:?}");
        let first: serde_json::Value = serde_json::from_str(&rows[0]).unwrap();
        assert_eq!(first["doc_id"], "a", "{target}");
        assert_eq!(
            first["answer"],
            "Roe v. Acme was decided by the First Circuit."
        );
        assert_eq!(first["grounding"], 1.0, "{target}");
        assert!(first["reason"].is_null(), "{target}: {first}");
    }
}

#[test]
fn its_targets_know_what_they_hold_and_take_what_is_new() {
    let dir = project();
    let count = |rows: &[String]| {
        let row: serde_json::Value = serde_json::from_str(&rows[0]).unwrap();
        row["count"].as_u64().unwrap()
    };
    for target in ["qa", "qa_csv", "qa_parquet"] {
        let same = format!("INSERT INTO {target} SELECT * FROM qa_numbered");
        assert_eq!(count(&sql(dir.path(), &same)), 0, "{target}");
        let new = format!(
            "INSERT INTO {target} SELECT * REPLACE ('new ' || qa_id AS qa_id) FROM qa_numbered"
        );
        assert_eq!(count(&sql(dir.path(), &new)), 2, "{target}");
        let rows = sql(dir.path(), &format!("SELECT qa_id FROM {target}"));
        assert_eq!(rows.len(), 4, "{target}");
    }
    // The version that is recorded, and the one after it.
    let insert = "INSERT INTO qa_numbered SELECT * FROM qa_csv";
    assert_eq!(count(&sql(dir.path(), insert)), 0);
    let config = dir.path().join("casebook.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let next = text.replace(r#""write.version" = "3""#, r#""write.version" = "4""#);
    assert_ne!(text, next);
    std::fs::write(&config, next).unwrap();
    assert_eq!(count(&sql(dir.path(), insert)), 4);
}

#[test]
fn its_adapter_answers_and_its_job_can_be_planned() {
    let dir = project();
    let asked = "SELECT ask('tuned', 'In which court was Roe v. Acme decided?') AS answer";
    assert_eq!(sql(dir.path(), asked).len(), 1);
    let planned = casebook(dir.path(), &["run", "golden", "--dry-run"], 0);
    let planned = planned.join("\n");
    assert!(planned.contains("docs_to_qa"), "{planned}");
    casebook(dir.path(), &["check"], 0);
}
