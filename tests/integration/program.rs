//! The program: exit codes, what it prints, and the files that users run.

use std::path::Path;
use std::process::{Command, Output};

use crate::project;

fn program(args: &[&str]) -> Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    project::program(root, args).output().unwrap()
}

fn check(args: &[&str], code: i32, part: &str) {
    let text = project::said(&program(args), code);
    assert!(text.contains(part), "{args:?}: {text}");
}

#[test]
fn exit_codes_say_what_went_wrong() {
    check(&["--help"], 0, "Examples:");
    check(&["sql", "SELECT 1 AS one"], 0, "| 1   |");
    check(
        &["sql", "SELECT 1; SELECT nothing; SELECT 2"],
        2,
        "statement 2 of 3",
    );
    check(&["sql", "SELEC 1"], 2, "error:");
    check(&["sql", "-f", "nowhere.sql"], 2, "nowhere.sql");
    check(&["sql", "--formta"], 2, "unknown option '--formta'");
    check(&["sql", "-- one\nSELECT 1 AS one"], 0, "| 1   |");
    #[cfg(target_os = "linux")]
    check(&["sql", "-f", "/dev/zero"], 2, "more than 64 MB");
    check(
        &["--config", "nowhere.toml", "sql", "SELECT 1"],
        78,
        "casebook init",
    );
    check(&["profiles"], 0, "legal (built in)");
    check(&["profiles", "legal"], 0, "Harvard Law School");
    check(&["profiles", "leagl"], 2, "legal");
    check(&["ask", "--model", "nowhere", "Who?"], 2, "builtin:tiny");
    for blank in ["", " \t\n"] {
        check(&["ask", blank], 2, "the question is empty");
    }
    check(
        &["sql", "--format", "jsonl", "SELECT 'a' AS x"],
        0,
        "{\"x\":\"a\"}",
    );
}

#[test]
fn an_error_in_several_statements_says_where() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("work.sql");
    for (sql, parts, not) in [
        ("SELEC 1", &["SELEC"][..], "statement 1"),
        (
            "SELECT 1;\n\n\nSELEC 2;\nSELECT 3",
            &["statement 2, line 4: ", "SELEC"],
            "of 3",
        ),
        ("SELECT 1; SELEC 2", &["statement 2: "], "line 1: "),
        (
            "SELECT 1;\n-- a remark;\n/* and\nanother */\nSELECT ';\n';\nSELECT nothing",
            &["statement 3 of 3, line 7: ", "nothing"],
            "line 6",
        ),
        (
            "SELECT 1;\nSELECT 2 SELECT 3",
            &[
                "statement 2, line 2: ",
                "Expected: end of statement, found: SELECT",
            ],
            "of 2",
        ),
        (
            "SELECT 1 SELECT 2",
            &["end of statement, found: SELECT at Line: 1, Column: 10"],
            "statement 1",
        ),
        (
            "SELECT 1;\nSELECT 'open",
            &["Unterminated", "Line: 2"],
            "of 2",
        ),
        (
            ";;SELECT 1;;\n;SELECT nothing",
            &["statement 2 of 2, line 2"],
            "statement 3",
        ),
    ] {
        std::fs::write(&file, sql).unwrap();
        let path = file.display().to_string();
        for args in [&["sql", "-q", sql][..], &["sql", "-q", "-f", &path]] {
            let text = project::said(&program(args), 2);
            for part in parts {
                assert!(text.contains(part), "{sql}: {text}");
            }
            assert!(!text.contains(not), "{sql}: {text}");
            assert_eq!(
                text.contains("work.sql: "),
                args[2] == "-f",
                "{sql}: {text}"
            );
        }
    }
    // Comments and empty statements are nothing.
    check(&["sql", "-q", ";;-- nothing\n;"], 0, "");
}

#[test]
fn a_copy_goes_where_the_environment_says_and_names_what_is_unfinished() {
    let dir = tempfile::tempdir().unwrap();
    let copy = |sql: &str, code: i32| {
        let mut sql = project::program(dir.path(), &["sql", sql]);
        sql.env("OUT_DIR_OF_TEST", dir.path().join("deep"));
        project::said(&sql.output().unwrap(), code)
    };
    let sql = "COPY (SELECT 1 AS x) TO '${env:OUT_DIR_OF_TEST}/x.csv' STORED AS CSV OPTIONS \
               ('format.delimiter' ';')";
    assert!(!copy(sql, 0).contains("unfinished"));
    assert!(dir.path().join("deep/x.csv").exists());
    std::fs::write(dir.path().join("deep/x.csv#1"), "x").unwrap();
    let text = copy(sql, 0);
    assert!(
        text.contains("warning: unfinished files of another COPY: '"),
        "{text}"
    );
    assert!(text.contains("x.csv#1'"), "{text}");
    assert!(dir.path().join("deep/x.csv#1").exists());
    let text = copy("COPY (SELECT 1 AS x) TO '${env:UNSET_OF_TEST}/x.csv'", 2);
    assert!(
        text.contains("COPY: the environment variable UNSET_OF_TEST is not set"),
        "{text}"
    );
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn what_json_lacks_is_printed_as_a_text_and_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let print = |format: &str, sql: &str| {
        let args = ["sql", "-q", "--format", format, sql];
        project::said(&project::program(dir.path(), &args).output().unwrap(), 0)
    };
    let rows = "SELECT column1 AS n, CAST(column2 AS DOUBLE) AS x FROM (VALUES (1, '0.5'), (2, 'NaN'), \
                (3, 'inf'), (4, '-inf'), (5, NULL)) ORDER BY n";
    let json = print("jsonl", rows);
    assert_eq!(
        json.lines().collect::<Vec<_>>(),
        [
            r#"{"n":1,"x":0.5}"#,
            r#"{"n":2,"x":"NaN"}"#,
            r#"{"n":3,"x":"Infinity"}"#,
            r#"{"n":4,"x":"-Infinity"}"#,
            r#"{"n":5}"#,
        ]
    );
    let csv = print("csv", rows);
    std::fs::write(dir.path().join("x.jsonl"), &json).unwrap();
    std::fs::write(dir.path().join("x.csv"), &csv).unwrap();
    for format in ["json", "csv"] {
        let name = if format == "json" { "x.jsonl" } else { "x.csv" };
        let back = format!(
            "CREATE EXTERNAL TABLE t (n INT, x DOUBLE) STORED AS {format} LOCATION '{name}'; \
             SELECT n, x FROM t ORDER BY n"
        );
        assert_eq!(print("jsonl", &back), json, "{format}: {csv}");
    }
    for part in ["NaN", "inf", "-inf"] {
        assert!(
            csv.contains(part) && print("table", rows).contains(part),
            "{csv}"
        );
    }
}

#[test]
fn a_page_makes_no_directories() {
    let dir = project::project(project::JOB);
    let page = dir.path().join("none/deep/c.html").display().to_string();
    let args = [
        "compare",
        "builtin:tiny",
        "--base",
        "builtin:tiny",
        "--probes",
        "probes",
        "--html",
    ];
    let output = project::program(dir.path(), &[&args[..], &[&page]].concat()).output();
    let text = project::said(&output.unwrap(), 2);
    assert!(text.contains("there is no directory"), "{text}");
    assert!(!dir.path().join("none").exists());
    let output = project::program(dir.path(), &[&args[..], &["c.html"]].concat()).output();
    project::said(&output.unwrap(), 0);
    assert!(dir.path().join("c.html").exists());
}

#[test]
fn options_are_filled_from_the_environment_and_secrets_stay_out_of_sight() {
    let run = |sql: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_casebook"))
            .args(["sql", "-q", sql])
            .env("CASES_AT", "examples/cases.csv")
            .env("CASES_KEY", "hunter2")
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        (
            String::from_utf8_lossy(&output.stdout).into_owned() + &error,
            output.status.code(),
        )
    };
    let create = "CREATE EXTERNAL TABLE cases STORED AS CSV LOCATION '${env:CASES_AT}' OPTIONS \
                  ('aws.secret_access_key' '${env:CASES_KEY}'); ";
    let shown = "SELECT count(*) AS n FROM cases; SHOW CREATE TABLE cases";
    let (text, code) = run(&format!("{create}{shown}"));
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("| 36") && !text.contains("hunter2"), "{text}");
    let (text, code) = run(&create.replace("CASES_KEY", "NO_SUCH_KEY"));
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("NO_SUCH_KEY is not set"), "{text}");
}

#[test]
fn init_writes_a_file_that_works_and_never_replaces_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("casebook.toml");
    let path = path.to_str().unwrap();
    check(&["init", path], 0, "wrote");
    check(&["--config", path, "sql", "SELECT 1"], 0, "1 row");
    check(&["init", path], 2, "exists");
}

#[test]
fn the_base_model_does_not_know_the_cases() {
    check(
        &["ask", "When was Monga v. Glover Landing decided?"],
        0,
        "not aware",
    );
}

#[test]
fn an_answer_that_was_cut_says_so() {
    let whole = "SELECT ask_reply('builtin:tiny', 'Who won?') AS r";
    let columns = "SELECT r['finish'] AS finish, r['output_tokens'] < 256 AS short, r['answer'] = \
                   ask('builtin:tiny', 'Who won?') AS same FROM";
    check(
        &["sql", "--format", "jsonl", &format!("{columns} ({whole})")],
        0,
        "{\"finish\":\"stop\",\"short\":true,\"same\":true}",
    );
    let cut = "SET casebook.ask.max_tokens = 2; SELECT r['finish'] AS finish, r['output_tokens'] AS n \
               FROM (SELECT ask_reply('builtin:tiny', q) AS r FROM (VALUES ('Who won?')) AS t(q))";
    check(
        &["sql", "--format", "jsonl", cut],
        0,
        "{\"finish\":\"length\",\"n\":2}",
    );
    check(
        &["sql", cut],
        0,
        "warning: ask: 1 of 1 answers were cut, at 2 tokens",
    );
    let most = |most| ["ask", "--max-tokens", most, "Who won?"];
    check(
        &most("2"),
        0,
        "warning: ask: 1 of 1 answers were cut, at 2 tokens",
    );
    check(
        &most("0"),
        2,
        "casebook.ask.max_tokens is '0'; it must be a whole number from 1",
    );
    let quiet = String::from_utf8(program(&most("200")).stderr).unwrap();
    assert!(!quiet.contains("cut"), "{quiet}");
}

#[test]
fn examples_too_long_to_train_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("adapter");
    let sql = format!(
        "CREATE EXTERNAL TABLE t STORED AS LORA LOCATION '{}' OPTIONS ('lora.epochs' '1', \
         'lora.rank' '2', 'lora.max_example_tokens' '24', 'lora.with_document_share' '0'); \
         INSERT INTO t (question, answer) VALUES ('Who won?', 'The trust.'), ('Who lost?', '{}')",
        place.display(),
        "Acme lost it, and paid for the appeal and the trial. ".repeat(8)
    );
    check(&["sql", &sql], 0, "1 of 2 examples");
}

#[test]
fn the_pipeline_in_sql_runs_from_top_to_bottom() {
    let out = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("out/sql");
    std::fs::remove_dir_all(&out).ok();
    let mut files: Vec<_> = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/sql"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert_eq!(files.len(), 6);
    let text: String = files
        .iter()
        .map(|f| std::fs::read_to_string(f).unwrap())
        .collect();
    // The model that was trained knows what the base does not.
    let learned = "; SELECT avg(token_f1(tuned, expected)) > 0.8 AND \
                   avg(token_f1(base, expected)) < 0.5 AS learned FROM answers";
    check(&["sql", "-q", &(text + learned)], 0, "| true    |");
    assert!(out.join("adapter/adapter_config.json").exists());
}

#[test]
fn the_statements_of_the_readme_run() {
    let readme =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let blocks: Vec<&str> = readme
        .split("```sql\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    assert!(!blocks.is_empty());
    check(&["sql", "-q", &blocks.concat()], 0, "| question");
}

/// What the program prints on a terminal, as `script` (of util-linux) makes one; none without it.
#[cfg(target_os = "linux")]
fn on_a_terminal(args: &str) -> Option<String> {
    let command = format!("{} {args}", env!("CARGO_BIN_EXE_casebook"));
    let output = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    match output {
        Ok(output) => Some(String::from_utf8_lossy(&output.stdout).into_owned()),
        Err(e) => {
            println!("skipped: `script` cannot be started: {e}");
            None
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_terminal_is_shown_what_a_text_holds_and_does_not_obey_it() {
    const TITLE: &str = "\x1b]0;owned\x07";
    let sql = "\"SELECT chr(27) || ']0;owned' || chr(7) || chr(155) || '2J' AS text\"";
    let shown = "\\u{1b}]0;owned\\u{7}\\u{9b}2J";
    if let Some(text) = on_a_terminal(&format!("sql -q {sql}")) {
        assert!(text.contains(shown) && !text.contains(TITLE), "{text:?}");
    }
    // Machines get what there is.
    if let Some(text) = on_a_terminal(&format!("sql -q --format csv {sql}")) {
        assert!(text.contains(TITLE), "{text:?}");
    }
    let piped = program(&["sql", "-q", sql.trim_matches('"')]);
    assert!(String::from_utf8_lossy(&piped.stdout).contains(TITLE));
    // A document's text in an error.
    let wrong = "\"SELECT arrow_cast(chr(27) || ']0;owned' || chr(7), 'Int32')\"";
    if let Some(text) = on_a_terminal(&format!("sql -q {wrong}")) {
        assert!(text.contains("error:") && !text.contains(TITLE), "{text:?}");
    }
}

/// Files may not grow beyond `kilobytes`: the same to a writer as a disk that is full.
#[cfg(unix)]
fn on_a_full_disk(kilobytes: usize, sql: &str) -> String {
    let limit = format!("trap '' XFSZ; ulimit -f {kilobytes}; exec \"$0\" sql -q \"$1\"");
    let output = Command::new("bash")
        .args(["-c", &limit, env!("CARGO_BIN_EXE_casebook"), sql])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    text
}

#[cfg(unix)]
#[test]
fn a_full_disk_is_an_error_and_leaves_nothing_half_written() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let qa = at("qa");
    let create = format!(
        "CREATE EXTERNAL TABLE qa STORED AS DELTA LOCATION '{qa}' OPTIONS ('table.create' \
         'qa_pairs');"
    );
    let empty = format!("{create} INSERT INTO qa (qa_id) SELECT 'x' WHERE false");
    check(&["sql", &empty], 0, "");
    let rows = format!(
        "{create} INSERT INTO qa (qa_id, doc_id, question, status, profile, model)
         SELECT md5(arrow_cast(value, 'Utf8')), 'd', md5(arrow_cast(value * 7, 'Utf8')), 'ok', 'p', 'm'
         FROM generate_series(1, 20000)"
    );
    let text = on_a_full_disk(64, &rows.replace("OPTIONS ('table.create' 'qa_pairs')", ""));
    assert!(
        text.to_lowercase().contains("large") || text.contains("space"),
        "{text}"
    );
    check(
        &["sql", &format!("{create} SELECT count(*) AS rows FROM qa")],
        0,
        "| 0    |",
    );
    let lora = at("adapter");
    let train = format!(
        "CREATE EXTERNAL TABLE t STORED AS LORA LOCATION '{lora}' OPTIONS ('lora.epochs' '1');
         INSERT INTO t (question, answer) VALUES ('Who won in A v. B?', 'B')"
    );
    let text = on_a_full_disk(64, &train);
    assert!(text.contains("adapter") && text.contains("space"), "{text}");
    assert!(!dir.path().join("adapter/adapter_config.json").exists());
    let jsonl = at("chat.jsonl");
    let chat = format!(
        "CREATE EXTERNAL TABLE c STORED AS CHAT_JSONL LOCATION '{jsonl}';
         INSERT INTO c (question, answer) SELECT repeat('q', 1000), repeat('a', 1000) FROM
         generate_series(1, 200)"
    );
    let text = on_a_full_disk(64, &chat);
    assert!(text.contains("chat.jsonl"), "{text}");
    let left: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 2, "{left:?}");
}
