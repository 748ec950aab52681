//! COPY TO: the files are whole, or what was there before is there still.

use std::collections::BTreeMap;
use std::path::Path;

use super::place::{ask, number, session};

/// The 150,000th row divides by zero: most batches have been written by then.
const FAILS: &str = "SELECT 100 / (value - 150000) AS a, value % 3 AS p \
                     FROM generate_series(1, 200000)";

fn files(below: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(below).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.display().to_string(), std::fs::read(&path).unwrap());
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_fails_leaves_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let ctx = session(2);
    for format in ["CSV", "JSON", "PARQUET"] {
        let at = dir.path().join(format);
        let to = |name: &str| at.join(name).display().to_string();
        for name in ["one.x", "many/"] {
            let good = format!("COPY (SELECT 7 AS a) TO '{}' STORED AS {format}", to(name));
            ask(&ctx, &good).await.unwrap();
        }
        let before = files(&at);
        assert_eq!(before.len(), 2, "{format}");
        for (name, by) in [
            ("one.x", ""),
            ("new.x", ""),
            ("many/", ""),
            ("more/", ""),
            ("folders/", "PARTITIONED BY (p)"),
        ] {
            let copy = format!("COPY ({FAILS}) TO '{}' STORED AS {format} {by}", to(name));
            let error = ask(&ctx, &copy).await.unwrap_err();
            assert!(error.to_lowercase().contains("divide by zero"), "{error}");
            assert_eq!(files(&at), before, "{format} {name}");
        }
        let copy = format!(
            "COPY (SELECT 8 AS a) TO '{}' STORED AS {format}",
            to("one.x")
        );
        ask(&ctx, &copy).await.unwrap();
        assert_ne!(files(&at), before, "{format}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nulls_have_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let ctx = session(2);
    for format in ["CSV", "JSON", "PARQUET"] {
        for (i, kind) in ["INT", "BIGINT", "DOUBLE", "BOOLEAN", "DATE", "VARCHAR"]
            .iter()
            .enumerate()
        {
            let value = ["7", "7", "0.5", "true", "'2024-02-03'", "'x y'"][i];
            let to = dir.path().join(format!("{format}-{kind}/"));
            let rows = format!(
                "SELECT arrow_cast(column1, 'Int32') AS id, CAST(column2 AS {kind}) AS p \
                 FROM (VALUES (1, NULL), (2, {value}))"
            );
            let copy = format!(
                "COPY ({rows}) TO '{}/' STORED AS {format} PARTITIONED BY (p)",
                to.display()
            );
            ask(&ctx, &copy).await.unwrap();
            ask(&ctx, "DROP TABLE IF EXISTS t").await.unwrap();
            let create = format!(
                "CREATE EXTERNAL TABLE t (id INT, p {kind}) STORED AS {format} PARTITIONED BY (p) \
                 LOCATION '{}/'",
                to.display()
            );
            ask(&ctx, &create).await.unwrap();
            let same = format!(
                "SELECT count(*) FROM t JOIN ({rows}) r ON t.id = r.id AND \
                                t.p IS NOT DISTINCT FROM r.p"
            );
            assert_eq!(number(&ctx, &same).await, 2, "{format} {kind}");
        }
        let to = dir.path().join(format!("{format}-text/"));
        let copy = format!(
            "COPY (SELECT 1 AS id, '__HIVE_DEFAULT_PARTITION__' AS p) TO '{}/' STORED AS {format} \
             PARTITIONED BY (p)",
            to.display()
        );
        let error = ask(&ctx, &copy).await.unwrap_err();
        assert!(error.contains("stands for null"), "{error}");
        assert!(files(&to).is_empty());
    }
}

const CHILD: &str = "CASEBOOK_FEW_FILES_CHILD";

/// Not a test of its own: the process that may open few files.
#[tokio::test(flavor = "multi_thread")]
async fn child_with_few_files() {
    let Ok(dir) = std::env::var(CHILD) else {
        return;
    };
    let ctx = session(2);
    let rows = "SELECT value, value % 600 AS p FROM generate_series(1, 1200)";
    let copy = format!("COPY ({rows}) TO '{dir}/copied/' STORED AS CSV PARTITIONED BY (p)");
    ask(&ctx, &copy).await.unwrap();
    for (name, rows_there) in [("copied", 1200), ("inserted", 0)] {
        let create = format!(
            "CREATE EXTERNAL TABLE {name} (value BIGINT, p BIGINT) STORED AS CSV PARTITIONED BY (p) \
             LOCATION '{dir}/{name}/'"
        );
        ask(&ctx, &create).await.unwrap();
        let count = format!("SELECT count(*) FROM {name}");
        assert_eq!(number(&ctx, &count).await, rows_there);
        assert_eq!(
            number(&ctx, &format!("INSERT INTO {name} {rows}")).await,
            1200
        );
        assert_eq!(number(&ctx, &count).await, rows_there + 1200);
    }
}

/// What is written into more folders than a program may open files, on this machine.
#[cfg(unix)]
#[test]
fn small_files_are_not_kept_open() {
    let dir = tempfile::tempdir().unwrap();
    let run = "ulimit -n 200 && exec \"$0\" --exact files::copy::child_with_few_files --nocapture";
    let output = std::process::Command::new("sh")
        .args(["-c", run])
        .arg(std::env::current_exe().unwrap())
        .env(CHILD, dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(files(dir.path()).len(), 1800);
}
