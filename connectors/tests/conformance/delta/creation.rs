//! `table.create` and `table.evolve`: only an INSERT makes or changes a table, and it does so
//! before its first row.

use std::fs;

use super::{create, error, insert, rows, run, session};

const PAIRS: &str = "'table.create' 'pairs'";

#[tokio::test]
async fn a_table_that_is_not_there_reads_as_empty_and_is_made_by_an_insert() {
    let scratch = tempfile::tempdir().unwrap();
    let location = scratch.path().join("deep/down/t");
    let ctx = session();
    run(&ctx, &create("t", &location, PAIRS)).await;
    let none: [&str; 0] = [];
    for sql in [
        "SELECT * FROM t",
        "SELECT status, qa_id FROM t WHERE answer LIKE 'a%' ORDER BY 1 LIMIT 3",
        "EXPLAIN SELECT 1 WHERE FALSE",
    ] {
        run(&ctx, sql).await;
    }
    assert_eq!(rows(&ctx, "SELECT qa_id FROM t").await, none);
    assert_eq!(rows(&ctx, "SELECT count(*) FROM t").await, ["0"]);
    run(&ctx, "EXPLAIN INSERT INTO t VALUES ('1', 'a', 'ok')").await;
    assert!(
        !scratch.path().join("deep").exists(),
        "reading made a table"
    );
    // An INSERT whose rows fail has made the table by then.
    let failing = "INSERT INTO t SELECT CAST(1 / (value - 1) AS VARCHAR), 'a', 'ok' \
                   FROM generate_series(1, 3)";
    error(&ctx, failing).await;
    assert!(location.join("_delta_log").exists());
    assert_eq!(rows(&ctx, "SELECT count(*) FROM t").await, ["0"]);
    assert_eq!(
        insert(&ctx, "INSERT INTO t VALUES ('1', 'a', 'ok')").await,
        1
    );
    assert_eq!(rows(&ctx, "SELECT * FROM t").await, ["1 | a | ok"]);
    // It is the same table to a session that does not ask for one.
    let other = session();
    run(&other, &create("t", &location, "")).await;
    assert_eq!(rows(&other, "SELECT * FROM t").await, ["1 | a | ok"]);
    assert_eq!(
        rows(&ctx, "DESCRIBE t").await,
        rows(&other, "DESCRIBE t").await
    );
}

#[tokio::test]
async fn an_insert_without_rows_makes_the_table_too() {
    let scratch = tempfile::tempdir().unwrap();
    let location = scratch.path().join("t");
    let ctx = session();
    run(&ctx, &create("t", &location, PAIRS)).await;
    let sql = "INSERT INTO t SELECT 'a', 'b', 'c' WHERE FALSE";
    assert_eq!(insert(&ctx, sql).await, 0);
    assert!(location.join("_delta_log").exists());
}

#[tokio::test]
async fn a_table_that_is_not_asked_for_is_an_error() {
    let scratch = tempfile::tempdir().unwrap();
    let location = scratch.path().join("t");
    for (options, part) in [
        ("", "table.create"),
        ("'delta.version' '3'", "no Delta table"),
        (
            "'table.create' 'pairs', 'delta.version' '3'",
            "no Delta table",
        ),
        ("'table.evolve' 'add_columns'", "needs table.create"),
        (
            "'table.create' 'pairs', 'table.evolve' 'yes'",
            "Valid: add_columns",
        ),
    ] {
        let refused = error(&session(), &create("t", &location, options)).await;
        assert!(refused.contains(part), "{options}: {refused}");
        assert!(!location.exists(), "{options}");
    }
}

#[tokio::test]
async fn listed_columns_make_a_table_or_are_compared_with_it() {
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path().join("t");
    let create = |columns: &str, more: &str| {
        format!(
            "CREATE EXTERNAL TABLE t {columns} STORED AS DELTA {more} LOCATION '{}'",
            at.display()
        )
    };
    let ctx = session();
    let columns = "(id BIGINT NOT NULL, name VARCHAR DEFAULT 'nobody', court VARCHAR)";
    let refused = error(&ctx, &create(columns, "PARTITIONED BY (court, year)")).await;
    assert!(refused.contains("year"), "{refused}");
    run(&ctx, &create(columns, "PARTITIONED BY (court)")).await;
    assert!(!at.exists(), "reading made a table");
    run(&ctx, "INSERT INTO t (court, id) VALUES ('ca1', 7)").await;
    assert_eq!(rows(&ctx, "SELECT * FROM t").await, ["7 | nobody | ca1"]);
    assert!(at.join("court=ca1").exists());
    for text in ["", "__HIVE_DEFAULT_PARTITION__"] {
        let sql = format!("INSERT INTO t (court, id) VALUES ('ca2', 8), ('{text}', 9)");
        let refused = error(&ctx, &sql).await;
        assert!(
            refused.contains("column court") && refused.contains("stands for null"),
            "{refused}"
        );
    }
    assert_eq!(rows(&ctx, "SELECT * FROM t").await, ["7 | nobody | ca1"]);
    let (log, version) = (at.join("_delta_log"), "00000000000000000000.json");
    let made = fs::read_to_string(log.join(version)).unwrap();
    assert!(made.contains(r#""partitionColumns":["court"]"#), "{made}");
    for (columns, more, parts) in [
        (
            "(id BIGINT, name VARCHAR)",
            "",
            ["court is not declared", "declare the columns"],
        ),
        (
            "(id DATE, name VARCHAR, court VARCHAR, year INT)",
            "",
            ["id has type Int64, not Date32", "year is missing"],
        ),
        (
            "(id BIGINT, name VARCHAR, court VARCHAR)",
            "PARTITIONED BY (name)",
            [
                "partitioned by (court), not by (name)",
                "PARTITIONED BY out",
            ],
        ),
    ] {
        let refused = error(&session(), &create(columns, more)).await;
        for part in parts {
            assert!(refused.contains(part), "{refused}");
        }
    }
    // The same columns, in types of the same kind.
    let other = session();
    run(&other, &create("(id INT, name TEXT, court VARCHAR)", "")).await;
    assert_eq!(rows(&other, "SELECT id FROM t").await, ["7"]);
}

#[tokio::test]
async fn a_place_that_cannot_be_written_to_is_told_before_a_row_is_asked_for() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("file");
    let ctx = session();
    run(&ctx, &create("t", &file.join("t"), PAIRS)).await;
    fs::write(&file, "x").unwrap();
    let refused = error(&ctx, &create("u", &file.join("t"), PAIRS)).await;
    assert!(refused.contains("is no directory"), "{refused}");
    // One that came into the way later.
    // The rows would fail, too, were they asked for.
    let sql = "INSERT INTO t SELECT CAST(1 / (value - 1) AS VARCHAR), 'a', 'ok' \
               FROM generate_series(1, 3)";
    let refused = error(&ctx, sql).await;
    assert!(!refused.to_lowercase().contains("zero"), "{refused}");
    assert!(refused.contains(&file.display().to_string()), "{refused}");
}

#[tokio::test]
async fn an_older_table_takes_new_columns_if_asked_to() {
    let scratch = tempfile::tempdir().unwrap();
    let ctx = session();
    run(
        &ctx,
        &create("old", scratch.path(), "'table.create' 'pairs'"),
    )
    .await;
    run(&ctx, "INSERT INTO old VALUES ('1', 'a', 'ok')").await;
    // The contract of later: a column between the others.
    let declared = |name: &str, options: &str| {
        format!(
            "CREATE EXTERNAL TABLE {name} (note VARCHAR, score DOUBLE) STORED AS DELTA \
             LOCATION '{}' OPTIONS ('table.create' 'pairs'{options})",
            scratch.path().display()
        )
    };
    let refused = error(&ctx, &declared("t", "")).await;
    for part in [
        "note is missing",
        "score is missing",
        "'table.evolve' 'add_columns'",
    ] {
        assert!(refused.contains(part), "{refused}");
    }
    let evolve = ", 'table.evolve' 'add_columns', 'write.key' 'qa_id'";
    run(&ctx, &declared("t", evolve)).await;
    let versions = || {
        fs::read_dir(scratch.path().join("_delta_log"))
            .unwrap()
            .count()
    };
    let before = versions();
    // Until the INSERT the columns are NULL, whatever is asked about them.
    assert_eq!(
        rows(&ctx, "SELECT * FROM t").await,
        ["1 | a | ok | null | null"]
    );
    assert_eq!(rows(&ctx, "SELECT score, qa_id FROM t").await, ["null | 1"]);
    assert_eq!(rows(&ctx, "SELECT note FROM t").await, ["null"]);
    assert_eq!(
        rows(
            &ctx,
            "SELECT qa_id FROM t WHERE note IS NULL AND answer = 'a'"
        )
        .await,
        ["1"]
    );
    assert_eq!(
        rows(&ctx, "SELECT count(*) FROM t WHERE score > 0").await,
        ["0"]
    );
    assert_eq!(
        rows(&ctx, "SELECT count(note), count(*) FROM t").await,
        ["0 | 1"]
    );
    assert_eq!(versions(), before, "reading changed the table");
    let added = insert(
        &ctx,
        "INSERT INTO t VALUES ('1', 'x', 'ok', 'n', 2), ('2', 'b', 'ok', 'n', 0.5)",
    );
    assert_eq!(added.await, 1);
    assert_eq!(
        rows(&ctx, "SELECT * FROM t ORDER BY qa_id").await,
        ["1 | a | ok | null | null", "2 | b | ok | n | 0.5"]
    );
    assert_eq!(
        rows(&ctx, "SELECT qa_id FROM t WHERE score > 0").await,
        ["2"]
    );
    // A second time there is nothing to add, and the table is as declared.
    run(&ctx, &declared("again", "")).await;
    let before = versions();
    insert(
        &ctx,
        "INSERT INTO again VALUES ('3', 'c', 'ok', NULL, NULL)",
    )
    .await;
    assert_eq!(versions(), before + 1);
    // One opened before sees other columns and says so.
    let refused = error(&ctx, "SELECT * FROM old").await;
    assert!(refused.contains("have changed"), "{refused}");
    let refused = error(&ctx, "INSERT INTO old VALUES ('4', 'd', 'ok')").await;
    assert!(refused.contains("have changed"), "{refused}");
}

#[tokio::test]
async fn a_url_may_be_percent_encoded() {
    let scratch = tempfile::tempdir().unwrap();
    let location = scratch.path().join("my table");
    let ctx = session();
    run(&ctx, &create("t", &location, PAIRS)).await;
    let sql = "INSERT INTO t VALUES ('1', 'a', 'ok')";
    assert_eq!(insert(&ctx, sql).await, 1);
    let below = scratch.path().display();
    for (name, url) in [
        ("encoded", format!("file://{below}/my%20table")),
        ("capitals", format!("FILE://{below}/my table")),
    ] {
        let sql = format!("CREATE EXTERNAL TABLE {name} STORED AS DELTA LOCATION '{url}'");
        run(&ctx, &sql).await;
        let found = rows(&ctx, &format!("SELECT * FROM {name}")).await;
        assert_eq!(found, ["1 | a | ok"], "{url}");
    }
}
