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

/// The job of today trains some pairs with their document, a column that version 0.1 did not have.
#[test]
fn its_targets_take_the_document_that_a_job_of_today_writes() {
    for target in ["qa", "qa_csv", "qa_parquet"] {
        let dir = project();
        let config = dir.path().join("casebook.toml");
        let text = std::fs::read_to_string(&config).unwrap();
        let job = text
            .replace("target = \"qa\"", &format!("target = \"{target}\""))
            .replace(
                "\"lora.with_document_share\" = 0.0",
                "\"lora.with_document_share\" = 0.5\n\"lora.mode\" = \"resume\"",
            )
            .replace("location = \"adapter\"", "location = \"adapter_of_today\"");
        let train = "[jobs.golden.train]\ntarget = \"tuned\"\n";
        std::fs::write(&config, format!("{job}\n{train}")).unwrap();
        let before = sql(dir.path(), &format!("SELECT qa_id FROM {target}"));
        assert_eq!(before.len(), 2, "{target}");
        let cases = dir.path().join("cases.csv");
        let new = "c,Poe v. Clark,First Circuit,1995-05-03,3 F.3d 9,\"On June 9, 1994, Poe filed a \
                   complaint against Clark for breach of contract. We affirm the judgment.\"\n";
        let both = std::fs::read_to_string(&cases).unwrap() + new;
        std::fs::write(&cases, both).unwrap();

        let said = casebook(dir.path(), &["run", "golden"], 0);
        let rows = sql(dir.path(), &format!("SELECT * FROM {target}"));
        assert!(rows.len() > 2, "{target}: {rows:?} {said:?}");
        let rows = rows
            .iter()
            .map(|row| serde_json::from_str::<serde_json::Value>(row).unwrap());
        let (mut old, mut with_text, mut ids) = (0, 0, std::collections::HashSet::new());
        for row in rows {
            assert!(
                ids.insert(row["qa_id"].to_string()),
                "{target}: twice: {row}"
            );
            match row["document"].as_str() {
                None => old += 1,
                Some(text) => with_text += usize::from(!text.is_empty()),
            }
            assert!(
                row["answer"].is_string() || row["reason"].is_string(),
                "{target}: {row}"
            );
        }
        assert!(with_text > 0, "{target}");
        assert!(old >= 2, "{target}: old rows have no document");

        // Once more: what is there is known, and nothing is added.
        casebook(dir.path(), &["run", "golden"], 0);
        let again = sql(dir.path(), &format!("SELECT qa_id FROM {target}"));
        assert_eq!(again.len(), ids.len(), "{target}");
    }
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
