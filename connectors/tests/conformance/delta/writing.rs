//! What INSERT adds, refuses, and leaves behind.

use super::{copied, create, error, insert, parquet_files, rows, run, session};

const PAIRS: &str = "'table.create' 'pairs'";

#[tokio::test]
async fn a_recorded_write_adds_nothing_and_runs_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let options =
        |version: i64| format!("{PAIRS}, 'write.app_id' 'job', 'write.version' '{version}'");
    let sql = "INSERT INTO t VALUES ('a', 'one', 'ok')";
    for (version, added) in [(1, 1), (1, 0), (2, 1), (2, 0)] {
        let ctx = session();
        run(&ctx, &create("t", scratch.path(), &options(version))).await;
        assert_eq!(insert(&ctx, sql).await, added, "version {version}");
    }
    // A backfill that comes after a later version is not taken for one that was written.
    let ctx = session();
    run(&ctx, &create("t", scratch.path(), &options(1))).await;
    let late = error(&ctx, sql).await;
    for part in [
        "write.version is 1",
        "recorded version 2",
        "'job'",
        "backfill",
    ] {
        assert!(late.contains(part), "{late}");
    }
    let ctx = session();
    run(&ctx, &create("t", scratch.path(), &options(2))).await;
    assert_eq!(rows(&ctx, "SELECT count(*) FROM t").await, ["2"]);
    // The query would fail if it ran.
    let never = "INSERT INTO t SELECT CAST(1 / (value - value) AS VARCHAR), 'x', 'ok' \
                 FROM generate_series(1, 3)";
    assert_eq!(insert(&ctx, never).await, 0);
}

#[tokio::test]
async fn a_write_of_no_rows_is_recorded_too() {
    let scratch = tempfile::tempdir().unwrap();
    let options = format!("{PAIRS}, 'write.app_id' 'job', 'write.version' '1'");
    let ctx = session();
    run(&ctx, &create("t", scratch.path(), &options)).await;
    let none = "INSERT INTO t SELECT 'a', 'b', 'ok' FROM generate_series(1, 0)";
    assert_eq!(insert(&ctx, none).await, 0);
    let some = "INSERT INTO t VALUES ('a', 'one', 'ok')";
    assert_eq!(insert(&ctx, some).await, 0);
}

#[tokio::test]
async fn rows_that_break_a_condition_are_refused_and_leave_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let table = copied("conditions", scratch.path());
    let ctx = session();
    run(&ctx, &create("t", &table, "")).await;
    let good = "(1, 50, timestamp '2024-02-29 12:00:00', date '2024-02-29')";
    for (bad, part) in [
        ("(NULL, 50, NULL, NULL)", "NOT NULL of column id"),
        (
            "(2, 100, NULL, NULL)",
            "CHECK constraint small (amount < 100",
        ),
        (
            "(2, 3, NULL, NULL)",
            "invariant amount > 3 of column amount",
        ),
        ("(2, NULL, NULL, NULL)", "amount"),
        (
            "(2, 50, timestamp '2024-02-29 12:00:00', date '2024-03-01')",
            "column day, which is generated as CAST(at AS DATE)",
        ),
    ] {
        let source = format!("CREATE OR REPLACE TABLE source AS VALUES {good}, {bad}");
        run(&ctx, &source).await;
        let refused = error(&ctx, "INSERT INTO t SELECT * FROM source").await;
        assert!(refused.contains(part), "{bad}: {refused}");
        assert!(refused.contains("row 2"), "{bad}: {refused}");
        assert_eq!(parquet_files(&table).len(), 0, "{bad}");
    }
    let also_good = "(7, 500, NULL, NULL)";
    let sql = format!("INSERT INTO t SELECT * FROM (VALUES {good}, {also_good})");
    assert_eq!(insert(&ctx, &sql).await, 2);
}

#[tokio::test]
async fn a_failed_query_leaves_no_files() {
    let scratch = tempfile::tempdir().unwrap();
    let ctx = session();
    run(&ctx, &create("t", scratch.path(), PAIRS)).await;
    // 300 MB, so that files are finished before it fails.
    let sql = "INSERT INTO t SELECT value::varchar, repeat(md5(value::varchar), 1000), \
               CASE WHEN value = 9999 THEN CAST(1 / (value - 9999) AS VARCHAR) ELSE 'ok' END \
               FROM generate_series(1, 10000)";
    error(&ctx, sql).await;
    assert_eq!(parquet_files(scratch.path()).len(), 0);
    assert_eq!(rows(&ctx, "SELECT count(*) FROM t").await, ["0"]);
}

#[tokio::test]
async fn row_groups_and_files_are_bounded() {
    let scratch = tempfile::tempdir().unwrap();
    let ctx = session();
    run(&ctx, &create("t", scratch.path(), PAIRS)).await;
    let sql = "INSERT INTO t SELECT value::varchar, repeat(md5(value::varchar), 1000), 'ok' \
               FROM generate_series(1, 10000)";
    assert_eq!(insert(&ctx, sql).await, 10_000);
    assert!(parquet_files(scratch.path()).len() > 1);
    let sql = "SELECT count(DISTINCT answer), sum(length(answer)) FROM t";
    assert_eq!(rows(&ctx, sql).await, ["10000 | 320000000"]);
}

const MIXED: &str = "INSERT INTO t VALUES ('a', 'one', 'ok'), ('b', NULL, 'rejected'), \
                     ('c', 'three', 'ok'), ('d', 'four', NULL)";

/// How a run that is repeated tells what is there.
const ONCE: [&str; 2] = [
    "'write.key' 'qa_id'",
    "'write.app_id' 'job', 'write.version' '5'",
];

#[tokio::test]
async fn rejected_rows_go_to_a_table_of_their_own_once() {
    for once in ONCE {
        let scratch = tempfile::tempdir().unwrap();
        let main = scratch.path().join("qa");
        let options = format!("{PAIRS}, {once}, 'write.rejects' 'separate'");
        for added in [4, 0] {
            let ctx = session();
            run(&ctx, &create("t", &main, &options)).await;
            assert_eq!(insert(&ctx, MIXED).await, added, "{once}");
            run(&ctx, &create("r", &scratch.path().join("qa_rejects"), "")).await;
            let sql = "SELECT qa_id, answer FROM t ORDER BY 1";
            assert_eq!(rows(&ctx, sql).await, ["a | one", "c | three"], "{once}");
            let sql = "SELECT qa_id, status FROM r ORDER BY 1";
            assert_eq!(
                rows(&ctx, sql).await,
                ["b | rejected", "d | null"],
                "{once}"
            );
        }
    }
}

#[tokio::test]
async fn a_run_that_ended_between_the_two_commits_is_completed() {
    for once in ONCE {
        let scratch = tempfile::tempdir().unwrap();
        let main = scratch.path().join("qa");
        let options = format!("{PAIRS}, {once}, 'write.rejects' 'separate'");
        let ctx = session();
        run(&ctx, &create("t", &main, &options)).await;
        insert(&ctx, MIXED).await;
        // The state after the first commit: the rejects are in, the main table's version is not.
        std::fs::remove_file(main.join("_delta_log/00000000000000000001.json")).unwrap();
        let ctx = session();
        run(&ctx, &create("t", &main, &options)).await;
        assert_eq!(rows(&ctx, "SELECT count(*) FROM t").await, ["0"], "{once}");
        assert_eq!(insert(&ctx, MIXED).await, 2, "{once}");
        run(&ctx, &create("r", &scratch.path().join("qa_rejects"), "")).await;
        let sql = "SELECT qa_id FROM t UNION ALL SELECT qa_id FROM r ORDER BY 1";
        assert_eq!(rows(&ctx, sql).await, ["a", "b", "c", "d"], "{once}");
    }
}

#[tokio::test]
async fn a_rejects_table_with_other_columns_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let ctx = session();
    let rejects = scratch.path().join("qa_rejects");
    run(&ctx, &create("r", &rejects, "'table.create' 'numbers'")).await;
    run(&ctx, "INSERT INTO r VALUES (1, 'one', 1)").await;
    let create = |table: &str, write: &str| create(table, &scratch.path().join("qa"), write);
    let write = format!("{PAIRS}, 'write.key' 'qa_id', 'write.rejects' 'separate'");
    let refused = error(&ctx, &create("t", &write)).await;
    assert!(
        refused.contains("qa_rejects") && refused.contains("qa_id is missing"),
        "{refused}"
    );
    for (write, expected) in [
        (
            format!("{PAIRS}, 'write.rejects' 'separate'"),
            "needs write.key",
        ),
        (
            format!("{PAIRS}, 'write.key' 'qa_id', 'write.rejects' 'apart'"),
            "Valid: separate",
        ),
    ] {
        let refused = error(&ctx, &create("u", &write)).await;
        assert!(refused.contains(expected), "{refused}");
    }
}

#[tokio::test]
async fn overwriting_replaces_the_rows() {
    let scratch = tempfile::tempdir().unwrap();
    let table = copied("deletion_vectors", scratch.path());
    let ctx = session();
    run(&ctx, &create("t", &table, "")).await;
    assert_eq!(insert(&ctx, "INSERT OVERWRITE t VALUES (1, 'x')").await, 1);
    assert_eq!(rows(&ctx, "SELECT * FROM t").await, ["1 | x"]);
}
