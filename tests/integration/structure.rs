//! The rules of the tree itself: who may know whom, how long a file may be, and that no files import
//! each other in a circle.

use std::path::{Path, PathBuf};

use crate::imports::Imports;

/// The root modules of the workspace.
const ROOTS: &[&str] = &[
    "src/lib.rs",
    "src/main.rs",
    "connectors/src/lib.rs",
    "qa/src/lib.rs",
    "llm/src/lib.rs",
    "llm/tiny/src/lib.rs",
];

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

/// A write that fails must not be a panic: `src/cli/output.rs` is the one place that writes to
/// standard output and standard error. (`print!` and its kin are refused by a lint.)
#[test]
fn one_file_writes_to_standard_output() {
    // What only asks whether they are a terminal, and the flush of clap's own help.
    const ASKING: &[&str] = &["is_terminal()", "use_stderr()", "printed = error.print()"];
    for folder in ["src", "connectors/src", "qa/src", "llm/src", "llm/tiny/src"] {
        for path in sources(folder) {
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.lines().filter(|l| !l.trim().starts_with("//"));
            let writes: Vec<&str> = code
                .filter(|l| l.contains("stdout()") || l.contains("stderr()"))
                .filter(|l| !ASKING.iter().any(|asking| l.contains(asking)))
                .collect();
            let may = path.ends_with("src/cli/output.rs");
            assert!(may || writes.is_empty(), "{}: {writes:?}", path.display());
        }
    }
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"));
    let short = |path: &Path| {
        let path = path.strip_prefix(workspace).unwrap_or(path);
        path.display().to_string()
    };
    let mut told = String::new();
    for root in ROOTS {
        let imports = Imports::of(&workspace.join(root));
        for ring in imports.rings() {
            told += "\n\n";
            for file in &ring {
                for (to, path) in imports.edges[file]
                    .iter()
                    .filter(|(to, _)| ring.contains(to))
                {
                    told += &format!("{} -> {} ({path})\n", short(file), short(to));
                }
            }
        }
    }
    assert!(told.is_empty(), "files import each other:{told}");
}

#[test]
fn every_file_is_part_of_a_crate() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"));
    let crates = ROOTS.iter().map(|root| Imports::of(&workspace.join(root)));
    let named: Vec<PathBuf> = crates.flat_map(|c| c.files).collect();
    for folder in ["src", "connectors/src", "qa/src", "llm/src", "llm/tiny/src"] {
        for path in sources(folder) {
            assert!(named.contains(&path), "no `mod` names {}", path.display());
        }
    }
}

/// The program shows what is said to this target and nothing else.
#[test]
fn notices_are_said_where_they_are_shown() {
    let mut said = 0;
    for path in ["src", "connectors/src"].into_iter().flat_map(sources) {
        let text = std::fs::read_to_string(&path).unwrap();
        for level in ["error", "warn", "info"] {
            for rest in text.split(&format!("log::{level}!(")).skip(1) {
                said += 1;
                assert!(
                    rest.trim_start().starts_with("target: \"casebook\","),
                    "{}: log::{level}! without its target",
                    path.display()
                );
            }
        }
    }
    assert!(said > 5, "{said}");
}
