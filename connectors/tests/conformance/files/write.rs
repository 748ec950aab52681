//! What is written: whole files, once, whatever happens to the writer.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::place::{Place, ask, create, number, session};

const CONTRACT: &str = "'table.create' 'qa_pairs', ";

#[tokio::test(flavor = "multi_thread")]
async fn the_same_write_again_changes_nothing() {
    for place in Place::all() {
        for format in ["CSV", "PARQUET", "JSON"] {
            let ctx = session(2);
            let at = format!("{}once-{format}", place.base);
            let options = |version: u32| {
                format!(
                    "{}{CONTRACT} 'write.app_id' 'job \"1\"/é', 'write.version' '{version}'",
                    place.options
                )
            };
            create(&ctx, "v1", format, &at, &options(1)).await.unwrap();
            create(&ctx, "v2", format, &at, &options(2)).await.unwrap();
            let insert = "VALUES ('a', 1, 'x'), ('b', 2, NULL)";
            assert_eq!(number(&ctx, &format!("INSERT INTO v1 {insert}")).await, 2);
            assert_eq!(number(&ctx, &format!("INSERT INTO v1 {insert}")).await, 0);
            assert_eq!(number(&ctx, &format!("INSERT INTO v2 {insert}")).await, 2);
            assert_eq!(number(&ctx, &format!("INSERT INTO v2 {insert}")).await, 0);
            assert_eq!(
                number(&ctx, "SELECT count(*) FROM v1").await,
                4,
                "{format} {at}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_added_once() {
    for place in Place::all() {
        for format in ["CSV", "PARQUET", "JSON"] {
            let ctx = session(2);
            let at = format!("{}key-{format}/", place.base);
            let options = format!("{}{CONTRACT} 'write.key' 'qa_id'", place.options);
            create(&ctx, "t", format, &at, &options).await.unwrap();
            let first = "INSERT INTO t VALUES ('a', 1, 'x'), ('b', 2, 'y'), ('a', 3, 'z')";
            assert_eq!(number(&ctx, first).await, 2);
            assert_eq!(number(&ctx, first).await, 0);
            let more = "INSERT INTO t VALUES ('b', 2, 'y'), ('c', 4, 'z')";
            assert_eq!(number(&ctx, more).await, 1);
            let shown = ask(&ctx, "SELECT qa_id, question_no FROM t ORDER BY qa_id")
                .await
                .unwrap();
            let keys: Vec<&str> = shown.lines().skip(3).collect();
            assert_eq!(keys.len(), 4, "{shown}");
            let error = ask(&ctx, "INSERT INTO t VALUES (NULL, 1, 'x')")
                .await
                .unwrap_err();
            assert!(error.contains("a row has no qa_id"), "{error}");
            assert_eq!(
                number(&ctx, "SELECT count(*) FROM t").await,
                3,
                "{format} {at}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_writers_with_keys_one_runs_again() {
    for place in Place::all() {
        let ctx = session(2);
        let at = format!("{}race/", place.base);
        let options = format!("{}{CONTRACT} 'write.key' 'qa_id'", place.options);
        create(&ctx, "t", "PARQUET", &at, &options).await.unwrap();
        let insert = |from: u32| {
            format!(
                "INSERT INTO t SELECT CAST(value AS VARCHAR), value, 'x' \
                 FROM generate_series({from}, {})",
                from + 2000
            )
        };
        let (one, other) = (insert(1), insert(1000));
        let (a, b) = tokio::join!(ask(&ctx, &one), ask(&ctx, &other));
        for (result, sql) in [(a, &one), (b, &other)] {
            if let Err(error) = result {
                assert!(error.contains("run the INSERT again"), "{error}");
                ask(&ctx, sql).await.unwrap();
            }
        }
        let counts = "SELECT count(*) - count(DISTINCT qa_id) FROM t";
        assert_eq!(number(&ctx, counts).await, 0, "{at}");
        assert_eq!(number(&ctx, "SELECT count(*) FROM t").await, 3000, "{at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_errors() {
    let place = Place::local();
    let ctx = session(1);
    create(&ctx, "t", "PARQUET", &format!("{}t", place.base), CONTRACT)
        .await
        .unwrap();
    let swapped = "INSERT INTO t SELECT answer, question_no, qa_id FROM t";
    let error = ask(&ctx, swapped).await.unwrap_err();
    assert!(error.contains("answer would go into qa_id"), "{error}");
    let error = ask(&ctx, "INSERT OVERWRITE t VALUES ('a', 1, 'x')")
        .await
        .unwrap_err();
    assert!(error.contains("cannot be replaced"), "{error}");
    ask(&ctx, "INSERT INTO t VALUES ('a', 1, 'x')")
        .await
        .unwrap();
    let file = std::fs::read_dir(format!("{}t", place.base)).unwrap();
    let file = file
        .map(|e| e.unwrap().path())
        .find(|p| p.extension().is_some())
        .unwrap();
    create(&ctx, "one", "PARQUET", &file.display().to_string(), "")
        .await
        .unwrap();
    let error = ask(&ctx, "INSERT INTO one VALUES ('a', 1, 'x')")
        .await
        .unwrap_err();
    assert!(error.contains("end the location with /"), "{error}");
    let both = "'write.app_id' 'x'";
    let error = create(&ctx, "x", "JSON", &format!("{}x", place.base), both)
        .await
        .unwrap_err();
    assert!(error.contains("write.version"), "{error}");
    std::fs::create_dir(format!("{}other", place.base)).unwrap();
    std::fs::write(format!("{}other/a.csv", place.base), "qa_id,answer\n1,2\n").unwrap();
    let error = create(&ctx, "y", "CSV", &format!("{}other", place.base), CONTRACT).await;
    let error = error.unwrap_err();
    assert!(error.contains("question_no is missing"), "{error}");
}

/// The rows that the killed writers write: slow enough to be killed in the middle.
const SLOW: &str = "INSERT INTO t SELECT CAST(value AS VARCHAR), value, repeat(md5(CAST(value AS \
                    VARCHAR)), 60) FROM generate_series(1, 60000)";

async fn write_slowly(at: &str, format: &str, how: &str) -> Result<String, String> {
    let ctx = session(2);
    create(&ctx, "t", format, at, &format!("{CONTRACT} {how}")).await?;
    ask(&ctx, SLOW).await
}

/// Not a test of its own: what [`killed_writers_leave_nothing_behind`] starts and kills.
#[tokio::test(flavor = "multi_thread")]
async fn child_writes() {
    if let Ok(job) = std::env::var("CASEBOOK_TEST_CHILD") {
        let parts: Vec<&str> = job.split('|').collect();
        write_slowly(parts[0], parts[1], parts[2]).await.unwrap();
    }
}

fn start_child(at: &str, format: &str, how: &str) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "files::write::child_writes"])
        .env("CASEBOOK_TEST_CHILD", format!("{at}|{format}|{how}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_writers_leave_nothing_behind() {
    const KEY: &str = "'write.key' 'qa_id'";
    const VERSION: &str = "'write.app_id' 'a', 'write.version' '7'";
    for (format, how) in [("PARQUET", VERSION), ("CSV", KEY), ("JSON", KEY)] {
        let (whole, killed) = (Place::local(), Place::local());
        let began = Instant::now();
        assert!(
            start_child(&whole.base, format, how)
                .wait()
                .unwrap()
                .success()
        );
        let took = began.elapsed();
        for round in 0..3u32 {
            let mut child = start_child(&killed.base, format, how);
            // A moment that is another one in each run of the test.
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            let random = since.subsec_nanos();
            let share = f64::from(round * 3 + random % 3 + 1) / 10.0;
            std::thread::sleep(Duration::from_secs_f64(took.as_secs_f64() * share));
            child.kill().unwrap();
            child.wait().unwrap();
            let ctx = session(1);
            create(&ctx, "t", format, &killed.base, CONTRACT)
                .await
                .unwrap();
            let seen = number(&ctx, "SELECT count(*) FROM t").await;
            assert!(
                seen == 0 || seen == 60_000,
                "{seen} rows of a killed {format} writer"
            );
        }
        write_slowly(&killed.base, format, how).await.unwrap();
        let sums = "SELECT count(*), count(DISTINCT qa_id), sum(question_no), \
                    sum(octet_length(answer)) FROM t";
        let mut sides = vec![];
        for place in [&whole, &killed] {
            let ctx = session(2);
            create(&ctx, "t", format, &place.base, "").await.unwrap();
            sides.push(
                ask(
                    &ctx,
                    &sums.replace("question_no", "CAST(question_no AS BIGINT)"),
                )
                .await
                .unwrap(),
            );
        }
        assert_eq!(sides[0], sides[1], "{format}");
        assert!(sides[0].contains("60000"), "{}", sides[0]);
        assert!(Path::new(&killed.base).join("_casebook").is_dir());
    }
}
