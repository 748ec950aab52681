//! Each option changes what is read or written, or is refused by name.

use std::collections::BTreeSet;
use std::fmt::Display;

use datafusion::common::config::{ConfigField, CsvOptions, Visit};

use super::test_session::{batches, options, session, shown};
use crate::csv::OPTIONS;

/// How an option shows.
enum Shows {
    /// A file with these columns declared, what is read of it without the option and with it; an
    /// error by a part of its text.
    Reads(&'static [u8], &'static str, &'static str, &'static str),
    /// A query that is written, and what is true of the file with the option alone.
    Writes(&'static str, fn(&[u8]) -> bool),
    /// The number of batches that a file is read in, without and with.
    Batches(&'static [u8], usize, usize),
    /// A part of the error.
    Refused(&'static str),
}

use Shows::{Batches, Reads, Refused, Writes};

struct Case {
    key: &'static str,
    value: &'static str,
    /// What it needs.
    beside: &'static [(&'static str, &'static str)],
    shows: Shows,
}

const fn case(key: &'static str, value: &'static str, shows: Shows) -> Case {
    Case {
        key,
        value,
        beside: &[],
        shows,
    }
}

fn contains(bytes: &[u8], part: &str) -> bool {
    String::from_utf8_lossy(bytes).contains(part)
}

#[rustfmt::skip]
fn cases() -> Vec<Case> {
    vec![
        case("format.has_header", "false", Reads(b"a\n1\n", "", "1", "a/1")),
        case("format.delimiter", ";", Reads(b"a;b\n1;2\n", "", "1;2", "1|2")),
        case("format.quote", "'", Reads(b"a,b\n'x,y',2\n", "", "3 cells", "x,y|2")),
        case("format.escape", "\\", Reads(b"a\n\"x\\\"y\"\n", "", "format.escape", "x\"y")),
        case("format.double_quote", "false", Reads(b"a\n\"x\"\"y\"\n", "", "x\"y", "format.double_quote is false")),
        case("format.terminator", ";", Reads(b"a;1;2", "", "", "1/2")),
        case("format.comment", "#", Reads(b"#x\na\n#y\n1\n", "", "a/#y/1", "1")),
        case("format.newlines_in_values", "false", Reads(b"a\n\"x\ny\"\n", "", "x\ny", "format.newlines_in_values is false")),
        case("format.truncated_rows", "true", Reads(b"a,b\n1\n", "", "format.truncated_rows", "1|~")),
        case("format.null_value", "N/A", Reads(b"a,b\nN/A,\"N/A\"\n", "", "N/A|N/A", "~|N/A")),
        case("format.null_regex", "N/?A|-", Reads(b"a,b\nNA,\"N/A\"\n-,--\n", "", "NA|N/A/-|--", "~|~/~|--")),
        case("format.ignore_leading_whitespace", "true", Reads(b"a,b\n \"x, y\",  z\n", "", "format.ignore_leading_whitespace", "x, y|z")),
        case("format.ignore_leading_whitespace", "false", Reads(b"a\n \"x\"\n", "", "format.ignore_leading_whitespace", " \"x\"")),
        case("format.ignore_leading_whitespace", "true", Writes("SELECT ' x ' AS a", |b| b == b"a\nx \n")),
        case("format.ignore_leading_whitespace", "true", Writes("SELECT ' \t\u{a0}x' AS a", |b| b == "a\n\u{a0}x\n".as_bytes())),
        case("format.ignore_trailing_whitespace", "true", Writes("SELECT 'x\u{3000} \t' AS a", |b| b == "a\nx\u{3000}\n".as_bytes())),
        case("format.ignore_trailing_whitespace", "true", Reads(b"a,b\n\"x\" ,y \n", "", "follows instead", "x|y")),
        case("format.ignore_trailing_whitespace", "true", Writes("SELECT ' x ' AS a", |b| b == b"a\n x\n")),
        case("format.quote_style", "always", Writes("SELECT 'x' AS a, 1 AS b, NULL AS c", |b| b == b"\"a\",\"b\",\"c\"\n\"x\",\"1\",\n")),
        case("format.quote_style", "non_numeric", Writes("SELECT 'x' AS a, 1 AS b", |b| b == b"\"a\",\"b\"\n\"x\",1\n")),
        case("format.quote_style", "never", Writes("SELECT 'x,' AS a", |b| contains(b, "format.quote_style is never"))),
        case("format.compression", "gzip", Writes("SELECT 'x' AS a", |b| b.starts_with(b"\x1f\x8b"))),
        Case { beside: &[("format.compression", "gzip")], ..case("format.compression_level", "0", Writes("SELECT 'xxxxxxxxxxxxxxxx' AS a", |b| contains(b, "xxxxxxxxxxxxxxxx"))) },
        case("format.compression_level", "5", Refused("without a compression")),
        case("format.schema_infer_max_rec", "5", Refused("format.schema_infer_max_rec has no effect")),
        case("format.date_format", "%d.%m.%Y", Reads(b"a\n31.12.1607\n", "(a DATE)", "Cannot cast", "1607-12-31")),
        case("format.date_format", "%d.%m.%Y", Writes("SELECT DATE '2020-12-31' AS a", |b| b == b"a\n31.12.2020\n")),
        case("format.datetime_format", "%Y/%m/%d", Writes("SELECT arrow_cast(DATE '2020-12-31', 'Date64') AS a", |b| b == b"a\n2020/12/31\n")),
        case("format.timestamp_format", "%Y/%m/%d %H.%M", Reads(b"a\n2020/12/31 10.30\n", "(a TIMESTAMP)", "ParseError|Parser error", "2020-12-31T10:30:00")),
        case("format.timestamp_format", "%Y", Writes("SELECT TIMESTAMP '2020-12-31T10:30:00' AS a", |b| contains(b, "cannot be read again"))),
        case("format.timestamp_tz_format", "%Y/%m/%d %H.%M %z", Reads(b"a\n2020/12/31 10.30 +0200\n", "(a TIMESTAMP WITH TIME ZONE)", "ParseError|Parser error", "2020-12-31T08:30:00Z")),
        case("format.time_format", "%H.%M", Reads(b"a\n10.30\n", "(a TIME)", "Cannot cast", "10:30:00")),
        case("csv.batch_bytes", "1", Batches(b"a\nx\ny\n", 1, 2)),
        case("csv.max_cell_bytes", "2", Reads(b"a\nxyz\n", "", "xyz", "csv.max_cell_bytes")),
        case("csv.encoding", "latin-1", Reads(b"a\ncaf\xe9\n", "", "csv.encoding", "caf\u{e9}")),
        case("csv.encoding", "utf-16", Reads(b"\xff\xfea\0\n\0x\0\n\0", "", "csv.encoding", "x")),
        case("csv.encoding", "utf-16", Writes("SELECT 'x' AS a", |b| contains(b, "UTF-8 alone"))),
        case("csv.invalid_utf8", "replace", Reads(b"a\ncaf\xe9\n", "", "csv.invalid_utf8", "caf\u{fffd}")),
        case("csv.allow_ragged", "true", Reads(b"a,b\n1\n1,2,3\n", "", "csv.allow_ragged", "1|~/1|2")),
        case("csv.escape_formulas", "true", Writes("SELECT '=1+1' AS a, '''=x' AS b, -5 AS c", |b| b == b"a,b,c\n'=1+1,''=x,-5\n")),
        case("csv.escape_formulas", "true", Reads(b"a,b\n'=1+1,'x\n", "", "'=1+1|'x", "=1+1|'x")),
    ]
}

#[derive(Default)]
struct Keys(BTreeSet<String>);

impl Visit for Keys {
    fn some<V: Display>(&mut self, key: &str, _: V, _: &'static str) {
        self.0.insert(key.to_owned());
    }

    fn none(&mut self, key: &str, _: &'static str) {
        self.0.insert(key.to_owned());
    }
}

#[test]
fn every_option_of_the_library_and_of_ours_has_a_case() {
    let mut keys = Keys::default();
    CsvOptions::default().visit(&mut keys, "format", "");
    assert!(keys.0.len() >= 20, "{:?}", keys.0);
    keys.0.extend(OPTIONS.iter().map(|o| o.key.to_owned()));
    let cases: BTreeSet<String> = cases().iter().map(|c| c.key.to_owned()).collect();
    assert_eq!(keys.0, cases);
}

#[tokio::test]
async fn every_option_has_an_effect_or_is_refused() {
    for case in cases() {
        let with = [case.beside, &[(case.key, case.value)]].concat();
        match case.shows {
            Reads(file, columns, without, shown_with) => {
                for (options, expected) in [(case.beside, without), (&with[..], shown_with)] {
                    let read = read(file, columns, options).await.map(|b| shown(&b));
                    check(case.key, &read, expected);
                }
            }
            Batches(file, without, with_it) => {
                for (options, expected) in [(case.beside, without), (&with[..], with_it)] {
                    let read = read(file, "", options).await.unwrap();
                    assert_eq!(read.len(), expected, "{}", case.key);
                }
            }
            Writes(query, is_so) => {
                for (options, expected) in [(case.beside, false), (&with[..], true)] {
                    let written = write(query, options).await;
                    assert_eq!(
                        is_so(&written),
                        expected,
                        "{} {options:?}: {}",
                        case.key,
                        String::from_utf8_lossy(&written)
                    );
                }
            }
            Refused(part) => {
                let read = read(b"a\n1\n", "", &with).await.map(|b| shown(&b));
                check(case.key, &read, part);
            }
        }
    }
}

/// The rows, or a part of the error; `|` between two of which one is enough.
fn check(key: &str, read: &Result<String, String>, expected: &str) {
    match read {
        Ok(rows) => assert_eq!(rows, expected, "{key}"),
        Err(error) => assert!(
            !expected.is_empty() && expected.split('|').any(|part| error.contains(part)),
            "{key}: {error}, not {expected}"
        ),
    }
}

async fn read(
    file: &[u8],
    columns: &str,
    given: &[(&str, &str)],
) -> Result<Vec<datafusion::arrow::array::RecordBatch>, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.csv");
    std::fs::write(&path, file).unwrap();
    let ctx = session();
    let create = format!(
        "CREATE EXTERNAL TABLE t {columns} STORED AS CSV LOCATION '{}' {}",
        path.display(),
        options(given)
    );
    batches(&ctx, &create).await?;
    batches(&ctx, "SELECT * FROM t").await
}

/// The bytes of the file, or the error.
async fn write(query: &str, given: &[(&str, &str)]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.csv");
    let copy = format!(
        "COPY ({query}) TO '{}' STORED AS CSV {}",
        path.display(),
        options(given)
    );
    match batches(&session(), &copy).await {
        Ok(_) => std::fs::read(&path).unwrap(),
        Err(error) => {
            assert!(!path.exists(), "a part of a file was left: {error}");
            error.into_bytes()
        }
    }
}
