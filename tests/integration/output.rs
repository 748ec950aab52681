//! What becomes of the program when its output cannot be written: a reader that goes away, a full
//! device, a terminal that hangs up, a standard error that nobody hears.

use std::fs::OpenOptions;
use std::path::Path;
use std::process::{Output, Stdio};

use crate::project::{JOB, program, project, result, said};

/// A pipe that nobody reads.
fn unread() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// A device on which there is no room.
#[cfg(target_os = "linux")]
fn full() -> Stdio {
    let device = OpenOptions::new().write(true).open("/dev/full");
    device.unwrap().into()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Commands that print something and end well.
const COMMANDS: &[&[&str]] = &[
    &["--help"],
    &["--version"],
    &["help", "sql"],
    &["init", "new.toml"],
    &["profiles", "-q"],
    &["profiles", "legal", "-q"],
    &["check", "-q"],
    &["ask", "Who?", "-q"],
    &["ask", "Who?", "--base", "builtin:tiny", "-q"],
    &["run", "small", "--dry-run", "-q"],
    &["sql", "-q", "SELECT 1"],
    &["sql", "-q", "EXPLAIN SELECT 1"],
    &[
        "sql",
        "-q",
        "CREATE TABLE t AS SELECT 1 AS x; SELECT x FROM t",
    ],
    &["sql", "-q", "SELECT * FROM range(0, 100000)"],
    &["sql", "-q", "SELECT 1 AS x WHERE false", "--format", "csv"],
    &[
        "sql",
        "-q",
        "SELECT * FROM range(0, 100000)",
        "--format",
        "csv",
    ],
    &[
        "sql",
        "-q",
        "SELECT * FROM range(0, 100000)",
        "--format",
        "jsonl",
    ],
    &[
        "-q",
        "compare",
        "builtin:tiny",
        "--base",
        "builtin:tiny",
        "--probes",
        "probes",
    ],
];

#[test]
fn a_command_that_nobody_reads_ends_quietly() {
    let dir = project(JOB);
    for args in COMMANDS {
        let output = program(dir.path(), args).stdout(unread()).output().unwrap();
        assert_eq!(said(&output, 0), "", "{args:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_device_is_an_error_of_a_line() {
    let dir = project(JOB);
    for args in COMMANDS {
        let output = program(dir.path(), args).stdout(full()).output().unwrap();
        let text = said(&output, 1);
        assert!(
            text.starts_with("error: ") && text.contains("No space left"),
            "{args:?}: {text}"
        );
        assert_eq!(text.lines().count(), 1, "{args:?}: {text}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_standard_error_that_nobody_hears_disturbs_nothing() {
    let dir = project(JOB);
    let check = |args: &[&str], code: i32| {
        for stderr in [unread(), full()] {
            let output = program(dir.path(), args).stderr(stderr).output().unwrap();
            said(&output, code);
        }
    };
    // Which configuration was found, a progress line, an error with its causes, wrong arguments.
    check(&["sql", "SELECT 1"], 0);
    check(&["sql", "-v", "SELECT nothing"], 2);
    check(&["sql", "--nonsense"], 2);
    check(&["run", "small"], 0);
    assert_eq!(result(dir.path())["status"], "ok");
    // And neither of the two.
    let mut nothing = program(dir.path(), &["sql", "SELECT 1"]);
    let status = nothing.stdout(unread()).stderr(full()).status().unwrap();
    assert_eq!(status.code(), Some(0));
}

/// The job of a directory of its own, with its standard output at `stdout`.
fn job(stdout: Stdio, code: i32) -> String {
    let dir = project(&JOB.replace("\"lora.epochs\" = 3", "\"lora.epochs\" = 1"));
    let mut run = program(dir.path(), &["run", "small"]);
    let output = run.stdout(stdout).output().unwrap();
    let text = said(&output, code);
    let result = result(dir.path());
    assert_eq!(result["status"], "ok", "{text}");
    assert_eq!(result["compared"]["sets"][0]["kind"], "seen");
    text
}

#[test]
fn a_job_does_its_work_whether_or_not_its_lines_can_be_printed() {
    let text = job(unread(), 0);
    assert!(!text.contains("error"), "{text}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_job_whose_lines_do_not_fit_is_done_and_says_so() {
    let text = job(full(), 1);
    let error = text.lines().last().unwrap();
    for part in [
        "error: the job is done, see",
        "result.json",
        "No space left",
    ] {
        assert!(error.contains(part), "{text}");
    }
}

#[test]
fn statements_that_write_are_not_left_out_without_a_word() {
    let dir = project(JOB);
    let sql = |text: &str| {
        let mut sql = program(dir.path(), &["sql", "-q", text]);
        sql.stdout(unread()).output().unwrap()
    };
    let insert = "INSERT INTO qa (qa_id, doc_id, status, question, profile, model) VALUES \
                  ('a', 'd', 'ok', 'Who?', 'p', 'm')";
    // The last one is done before its count is printed.
    said(&sql(insert), 0);
    assert!(
        dir.path()
            .join("out/qa/_delta_log/00000000000000000001.json")
            .exists()
    );
    said(&sql("SELECT 1; SELECT 2; CREATE VIEW v AS SELECT 1"), 0);
    let output = sql(&format!("SELECT 1; SELECT 2; {insert}"));
    let text = said(&output, 1);
    assert!(
        text.contains("statement 1 of 3") && text.contains("were not run"),
        "{text}"
    );
    let copy = sql("SELECT 1; COPY (SELECT 1 AS x) TO 'x.csv'");
    assert!(errors(&copy).contains("were not run"));
    assert!(!dir.path().join("x.csv").exists());
}

#[cfg(unix)]
#[test]
fn a_closed_standard_output_is_an_error() {
    let dir = project(JOB);
    for args in COMMANDS {
        let mut shell = std::process::Command::new("sh");
        shell
            .args([
                "-c",
                "exec \"$0\" \"$@\" >&-",
                env!("CARGO_BIN_EXE_casebook"),
            ])
            .args(*args)
            .current_dir(dir.path());
        let text = said(&shell.output().unwrap(), 1);
        let expected = "writing to standard output: it is closed";
        assert!(
            text.starts_with("error: ") && text.trim().ends_with(expected),
            "{args:?}: {text}"
        );
        assert_eq!(text.lines().count(), 1, "{args:?}: {text}");
    }
    // What says nothing does not need it, and /dev/null is a place like any other.
    let quiet = "CREATE VIEW v AS SELECT 1";
    for (sql, output) in [
        (quiet, ">&-"),
        ("SELECT 1", ">/dev/null"),
        ("SELECT 1", "1<>/dev/null"),
    ] {
        let script = format!("exec \"$0\" sql -q \"$1\" {output}");
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &script, env!("CARGO_BIN_EXE_casebook"), sql]);
        assert_eq!(said(&shell.output().unwrap(), 0), "");
    }
}

/// The error says what stands and what was not done.
#[cfg(target_os = "linux")]
#[test]
fn rows_that_are_written_are_said_to_be() {
    let dir = project(JOB);
    let rows = |id: &str| {
        format!(
            "INSERT INTO qa (qa_id, doc_id, status, question, profile, model) VALUES              ('{id}', 'd', 'ok', 'Who?', 'p', 'm')"
        )
    };
    let (one, two) = (rows("a"), rows("b"));
    let both = format!("{one}; {two}");
    for (text, parts, files) in [
        (
            &*one,
            &["error: the rows are written", "No space left"][..],
            1,
        ),
        (
            &*both,
            &[
                "statement 1 of 2: the rows are written",
                "No space left",
                "were not run",
            ],
            1,
        ),
        (
            "COPY (SELECT 1 AS x) TO 'x.csv'",
            &["the rows are written"],
            1,
        ),
    ] {
        for format in ["table", "csv", "jsonl"] {
            let args = ["sql", "-q", "--format", format, text];
            let output = program(dir.path(), &args).stdout(full()).output().unwrap();
            let text = said(&output, 1);
            for part in parts {
                assert!(text.contains(part), "{format}: {text}");
            }
        }
        let log = std::fs::read_dir(dir.path().join("out/qa/_delta_log")).unwrap();
        assert_eq!(log.count(), 1 + files, "{text}");
    }
    assert!(dir.path().join("x.csv").exists());
    // A SELECT has written nothing.
    let select = program(dir.path(), &["sql", "-q", "SELECT 1"])
        .stdout(full())
        .output();
    assert!(!said(&select.unwrap(), 1).contains("written"));
}

/// Runs `small` on a terminal that is closed when `ready`; the exit code, none where there is no
/// `script` (of util-linux) to make a terminal.
#[cfg(target_os = "linux")]
fn hang_up(dir: &Path, ready: impl Fn() -> bool) -> Option<String> {
    use std::process::Command;
    use std::time::{Duration, Instant};
    // As a shell does: it passes the signal of a terminal that is gone on to what it started.
    let shell = format!(
        "trap 'kill -HUP $p' HUP; {} run small & p=$!; \
         while kill -0 $p; do wait $p; c=$?; done; echo $c >code",
        env!("CARGO_BIN_EXE_casebook")
    );
    let terminal = Command::new("script")
        .args(["-qec", &shell, "/dev/null"])
        .current_dir(dir)
        .env("SHELL", "/bin/sh")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn();
    let mut terminal = match terminal {
        Ok(terminal) => terminal,
        Err(e) => {
            println!("skipped: `script` cannot be started: {e}");
            return None;
        }
    };
    let begun = Instant::now();
    let code = || std::fs::read_to_string(dir.join("code")).unwrap_or_default();
    while !ready() {
        assert!(code().is_empty() && begun.elapsed() < Duration::from_secs(120));
        std::thread::sleep(Duration::from_millis(20));
    }
    terminal.kill().unwrap();
    terminal.wait().unwrap();
    while !code().ends_with('\n') {
        assert!(begun.elapsed() < Duration::from_secs(180), "never ended");
        std::thread::sleep(Duration::from_millis(20));
    }
    Some(code().trim().to_owned())
}

#[cfg(target_os = "linux")]
#[test]
fn a_job_whose_terminal_hangs_up_is_stopped_in_order() {
    use crate::project::steps;
    let dir = project(&JOB.replace("\"lora.epochs\" = 3", "\"lora.epochs\" = 4000"));
    let Some(code) = hang_up(dir.path(), || steps(dir.path()).len() > 2) else {
        return;
    };
    assert_eq!(code, "130");
    let result = result(dir.path());
    assert_eq!(result["status"], "interrupted", "{result}");
    assert!(!result["ended"].is_null());
    let checkpoints = dir.path().join("out/adapter/run/checkpoints");
    assert!(std::fs::read_dir(checkpoints).unwrap().count() > 0);
}
