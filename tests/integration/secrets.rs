//! Secrets: in no output of any command, whatever is wrong with the file or the server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};

/// Inline, from the environment, from a file.
const SECRETS: [&str; 3] = ["S3cr3tInline99", "S3cr3tFromEnv77", "S3cr3tFromFile55"];

fn casebook(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_casebook"))
        .args(args)
        .env("MYSEC", SECRETS[1])
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .current_dir(folder)
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&text).into_owned()
}

/// Runs every command that reads the configuration `toml`; everything they said.
fn said(toml: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    std::fs::write(folder.join("c.toml"), toml).unwrap();
    std::fs::write(folder.join("secret.txt"), SECRETS[2]).unwrap();
    std::fs::write(
        folder.join("cases.csv"),
        "id,text,name\nd1,It was held.,A v. B\n",
    )
    .unwrap();
    let mut out = String::new();
    for args in [
        &["check"][..],
        &["sql", "SELECT id FROM cases; SELECT qa_id FROM qa"],
        &["run", "j", "--dry-run"],
        &["profiles"],
        &["ask", "Who?"],
    ] {
        let args = [&["--config", "c.toml", "-v"][..], args].concat();
        let found = text(&casebook(folder, &args));
        assert!(!found.contains("panicked"), "{args:?}: {found}");
        for secret in SECRETS {
            assert!(
                !found.contains(secret),
                "{args:?} shows it: {found}\n{toml}"
            );
        }
        out.push_str(&found);
    }
    out
}

const BASE: &str = r#"[models.default]
source = "builtin:tiny"

[connections.wh]
type = "snowflake"
account = "xy12345"
user = "CASEBOOK"
password = "S3cr3tInline99"
host = "http://127.0.0.1:9"

[connections.lake]
type = "delta"
"aws.secret_access_key" = "${file:secret.txt}"
"aws.access_key_id" = "S3cr3tInline99"

[tables.cases]
format = "csv"
location = "cases.csv"
id = "id"
title = ["name"]

[tables.qa]
format = "csv"
location = "qa/"
options = { "table.create" = "qa_pairs", "write.key" = "qa_id" }

[jobs.j]
source = "cases"
target = "qa"
arguments = { max_pairs_per_document = 4 }
"#;

#[test]
fn the_usual_slips_show_their_place_and_no_secret() {
    let inline = r#"password = "S3cr3tInline99""#;
    let format = "format = \"csv\"\nlocation = \"cases.csv\"";
    for (from, to, part) in [
        (inline, r#"password = "S3cr3tInline99"#, "line 8"),
        (inline, "password = S3cr3tInline99", "line 8"),
        (inline, "password = 'S3cr3tInline99\"", "line 8"),
        (inline, r#"password = "S3cr3tInline99\q""#, "line 8"),
        (
            inline,
            "password = \"S3cr3tInline99\"\npassword = \"S3cr3tInline99\"",
            "line 9",
        ),
        (inline, r#"password = ["S3cr3tInline99"]"#, "is a list"),
        (inline, r#"password = { a = "S3cr3tInline99" "#, "line 9"),
        (inline, r#"passwort = "S3cr3tInline99""#, "'passwort'"),
        (inline, r#"password = "${S3cr3tInline99}""#, "neither"),
        (inline, r#"password = "${env:MYSEC""#, "not closed"),
        (
            inline,
            r#"password = "${env:S3cr3tInline99:x}""#,
            "letters, digits",
        ),
        (
            "[tables.cases]",
            "[tables.cases]\npassword = \"S3cr3tInline99\"",
            "'password'",
        ),
        (
            r#"type = "snowflake""#,
            r#"type = "S3cr3tInline99""#,
            "unknown type",
        ),
        (
            r#"source = "builtin:tiny""#,
            r#"source = "${env:MYSEC}""#,
            "${env:MYSEC}",
        ),
        (
            format,
            "format = \"${env:MYSEC}\"\nlocation = \"cases.csv\"",
            "unknown format",
        ),
        (
            format,
            "format = \"S3cr3tInline99\"\nlocation = \"cases.csv\"",
            "unknown format",
        ),
        (r#"title = ["name"]"#, r#"title = "${env:MYSEC}""#, "a list"),
        (
            r#"id = "id""#,
            r#"options = { "csv.batch_bytes" = "${env:MYSEC}" }"#,
            "csv.batch_bytes",
        ),
        (
            r#"id = "id""#,
            r#"options = { "csv.batch_bytes" = "S3cr3tInline99" }"#,
            "csv.batch_bytes",
        ),
        (
            r#"id = "id""#,
            r#"options = { "csv.batch" = "S3cr3tInline99" }"#,
            "csv.batch_bytes",
        ),
        (
            r#"id = "id""#,
            r#"options = { "csv.invalid_utf8" = "S3cr3tInline99" }"#,
            "replace",
        ),
        (
            r#""table.create" = "qa_pairs""#,
            r#""table.create" = "S3cr3tInline99""#,
            "qa_pairs",
        ),
        (
            r#"target = "qa""#,
            r#"target = "S3cr3tInline99""#,
            "unknown table",
        ),
        (
            "max_pairs_per_document = 4",
            "profile = \"${file:secret.txt}\"",
            "",
        ),
    ] {
        assert!(BASE.contains(from), "{from}");
        let found = said(&BASE.replacen(from, to, 1));
        assert!(found.contains(part), "{to}: {part}: {found}");
    }
}

/// Serves `body` to any request until the test ends.
fn serve(body: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            std::thread::spawn(move || answer(stream, body).ok());
        }
    });
    port
}

fn answer(stream: TcpStream, body: &str) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    loop {
        let (mut first, mut range, mut line) = (String::new(), None, String::new());
        if reader.by_ref().read_line(&mut first)? == 0 {
            return Ok(());
        }
        loop {
            line.clear();
            if reader.by_ref().read_line(&mut line)? <= 2 {
                break;
            }
            let lower = line.to_lowercase();
            if let Some(value) = lower.strip_prefix("range: bytes=") {
                range = Some(value.trim().to_owned());
            }
        }
        let (status, from, to) = match range {
            Some(range) => {
                let (from, to) = range.split_once('-').unwrap();
                let from: usize = from.parse().unwrap_or(0);
                let to = to
                    .parse()
                    .map_or(body.len(), |to: usize| body.len().min(to + 1));
                ("206 Partial Content", from, to)
            }
            None => ("200 OK", 0, body.len()),
        };
        let part = &body[from.min(to)..to];
        write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nContent-Range: bytes {from}-{}/{}\r\n\
             Last-Modified: Mon, 01 Jan 2024 00:00:00 GMT\r\nETag: \"x\"\r\n\r\n",
            part.len(),
            to.max(1) - 1,
            body.len()
        )?;
        if !first.starts_with("HEAD") {
            stream.write_all(part.as_bytes())?;
        }
    }
}

#[test]
fn locations_are_shown_without_credentials_everywhere() {
    let port = serve("id,text\n1,one\n2,two\n");
    let at = format!("127.0.0.1:{port}/x.csv");
    let dir = tempfile::tempdir().unwrap();
    for location in [
        format!("http://bob:S3cr3tInline99@{at}"),
        format!("http://bob:${{env:MYSEC}}@{at}"),
        format!("http://{at}?sig=S3cr3tInline99"),
    ] {
        let sql = format!(
            "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '{location}'; SELECT id FROM t;
             EXPLAIN VERBOSE SELECT * FROM t; EXPLAIN ANALYZE VERBOSE SELECT * FROM t;
             SHOW CREATE TABLE t; SELECT * FROM information_schema.tables;
             SELECT * FROM information_schema.views; SELECT nothing FROM t"
        );
        let found = text(&casebook(dir.path(), &["-v", "sql", "-q", &sql]));
        for secret in SECRETS {
            assert!(!found.contains(secret), "{location}: {found}");
        }
        assert!(found.contains("nothing"), "{location}: {found}");
    }
}

#[test]
fn errors_show_no_credentials_of_a_location() {
    let dir = tempfile::tempdir().unwrap();
    for (format, location) in [
        ("CSV", "http://bob:S3cr3tInline99@127.0.0.1:9/x.csv"),
        (
            "CSV",
            "http://bob:S3cr3t/Inline99S3cr3tInline99@127.0.0.1:9/x.csv",
        ),
        (
            "PARQUET",
            "https://127.0.0.1:9/x.parquet?sig=S3cr3tInline99&se=1",
        ),
        (
            "DELTA",
            "https://user:S3cr3tInline99@127.0.0.1:9/x?sig=S3cr3tInline99",
        ),
        ("DELTA", "az://c/x?sig=${env:MYSEC}"),
        ("CSV", "az://c/x.csv?sig=S3cr3tInline99"),
        ("JSON", "ftp://bob:S3cr3tInline99@h/x?y=S3cr3tInline99"),
        ("JSON", "://bob:S3cr3tInline99@h"),
        ("CSV", "s3://ID:S3cr3tInline99@bucket/x.csv"),
        ("CSV", "http://[S3cr3tInline99@/x#S3cr3tInline99"),
    ] {
        let options = match location.starts_with("s3") || location.starts_with("az") {
            true => {
                "OPTIONS ('aws.allow_http' 'S3cr3tInline99', 'azure.use_emulator' '${env:MYSEC}')"
            }
            false => "",
        };
        let sql = format!(
            "CREATE EXTERNAL TABLE t STORED AS {format} LOCATION '{location}' {options}; SELECT * \
             FROM t"
        );
        let limit = [
            "120",
            env!("CARGO_BIN_EXE_casebook"),
            "-v",
            "sql",
            "-q",
            &sql,
        ];
        let output = Command::new("timeout")
            .args(limit)
            .env("MYSEC", SECRETS[1])
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .current_dir(dir.path())
            .output()
            .unwrap();
        let found = text(&output);
        assert_ne!(output.status.code(), Some(0), "{location}: {found}");
        for secret in SECRETS {
            assert!(!found.contains(secret), "{location}: {found}");
        }
    }
}

#[cfg(unix)]
#[test]
fn a_configuration_that_was_only_found_must_be_the_users_own() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("casebook.toml");
    std::fs::write(&path, "").unwrap();
    let run = |args: &[&str]| {
        let output = casebook(dir.path(), args);
        (output.status.code(), text(&output))
    };
    let (code, found) = run(&["sql", "SELECT 1"]);
    assert_eq!(code, Some(0), "{found}");
    assert!(
        found.contains("configuration: ") && found.contains("casebook.toml"),
        "{found}"
    );
    let (_, found) = run(&["sql", "-q", "SELECT 1"]);
    assert!(!found.contains("casebook.toml"), "{found}");
    let (_, found) = run(&["--config", "casebook.toml", "sql", "SELECT 1"]);
    assert!(!found.contains("configuration: "), "{found}");
    let (_, found) = run(&["check"]);
    assert!(found.contains("nothing to reach"), "{found}");
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let (code, found) = run(&["sql", "-q", "SELECT 1"]);
    assert_eq!(code, Some(78), "{found}");
    assert!(
        found.contains("--config") && found.contains("everybody"),
        "{found}"
    );
    let (code, found) = run(&["--config", "casebook.toml", "sql", "SELECT 1"]);
    assert_eq!(code, Some(0), "{found}");
}
