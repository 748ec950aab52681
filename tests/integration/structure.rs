//! The rules of the tree itself: who may know whom, and how long a file may be.

use std::path::{Path, PathBuf};

/// Production lines of a file, its tests at the end not counted.
const WALL: usize = 500;

fn rust_files(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

fn sources(folder: &str) -> Vec<PathBuf> {
    let mut out = vec![];
    rust_files(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join(folder),
        &mut out,
    );
    out
}

#[test]
fn files_answer_one_question() {
    for folder in ["src", "connectors/src", "qa/src", "llm/src", "llm/tiny/src"] {
        for path in sources(folder) {
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(
                text.starts_with("//!"),
                "{} does not say what it is for",
                path.display()
            );
            let lines = text
                .split("#[cfg(test)]\nmod ")
                .next()
                .unwrap()
                .lines()
                .count();
            assert!(lines <= WALL, "{} has {lines} lines", path.display());
        }
    }
}

#[test]
fn crates_know_only_those_below_them() {
    for (folder, forbidden) in [
        ("qa/src", ["casebook_llm", "datafusion", "candle"]),
        ("llm/src", ["casebook_qa", "datafusion", "arrow::"]),
        ("connectors/src", ["casebook_llm", "casebook_qa", "candle"]),
    ] {
        for path in sources(folder) {
            let text = std::fs::read_to_string(&path).unwrap();
            for name in forbidden {
                assert!(
                    !text.contains(&format!("use {name}")),
                    "{}: {name}",
                    path.display()
                );
            }
        }
    }
}
