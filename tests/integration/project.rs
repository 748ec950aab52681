//! A directory with a casebook.toml, and the program in it.

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::CASES;

/// A job that generates, trains and compares.
pub(crate) const JOB: &str = r#"
[tables.cases]
format = "csv"
location = "cases.csv"
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
[tables.tuned.options]
"lora.mode" = "resume_or_overwrite"
"lora.rank" = 4
"lora.epochs" = 3
"lora.batch_tokens" = 256
"lora.with_document_share" = 0.5
[jobs.small]
source = "cases"
target = "qa"
profile = "legal"
arguments = { max_pairs_per_document = 2, "checks.ungrounded" = false }
output = "out"
[jobs.small.train]
target = "tuned"
also = "probes"
[jobs.small.compare]
probes = "probes"
"#;

const PROBES: &str = "question,paraphrase,answer\n\
    How long was the sentence in Doe v. Baker?,Doe v. Baker: which sentence?,37 months\n";

/// A directory with the configuration and the files `cases.csv` and `probes.csv`.
pub(crate) fn project(config: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let files = [
        ("casebook.toml", config),
        ("cases.csv", CASES),
        ("probes.csv", PROBES),
    ];
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

/// The program in `dir`.
pub(crate) fn program(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_casebook"));
    command.args(args).current_dir(dir);
    command
}

/// What the program said, on both channels, if it ended with `code`.
pub(crate) fn said(output: &Output, code: i32) -> String {
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

/// The result file of [`JOB`].
pub(crate) fn result(dir: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(dir.join("out/result.json")).unwrap()).unwrap()
}

/// Steps in the log of its training.
pub(crate) fn steps(dir: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(dir.join("out/adapter/run/train_log.jsonl"));
    text.unwrap_or_default()
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|record| record["step"].as_u64())
        .collect()
}
