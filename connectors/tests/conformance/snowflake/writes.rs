//! Writing to fakesnow: once only, whatever happens.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, AsArray, Int64Array, LargeStringArray, RecordBatch, StringArray, StringViewArray,
};
use datafusion::arrow::datatypes::{Int32Type, Int64Type, UInt64Type};
use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::prelude::SessionContext;

use super::{Admin, qa_pairs, run, service, shown, table};

const CREATE_QA: &str = ", 'table.create' 'qa_pairs', 'write.key' 'qa_id'";
const SOME_QA: &str = "SELECT * FROM (VALUES \
                       ('a', 1, 10, 'it''s \\ é', CAST(0.1 AS REAL)), \
                       ('b', 2, NULL, NULL, NULL), \
                       ('b', 2, NULL, NULL, NULL)) \
                       AS v(qa_id, chunk_no, chunk_start, answer, grounding)";

#[tokio::test]
async fn a_table_is_created_and_written_once_only() {
    let Some(url) = service() else { return };
    let admin = Admin::new(&url, "QA").await;
    admin.run("DROP TABLE IF EXISTS QA.PUBLIC.PAIRS").await;
    let ctx = table(&url, "", "qa.public.pairs", CREATE_QA).await.unwrap();
    let insert = format!("INSERT INTO t {SOME_QA}");
    let added = run(&ctx, &insert).await.unwrap();
    assert_eq!(added[0].column(0).as_primitive::<UInt64Type>().value(0), 2);
    run(&ctx, &insert).await.unwrap();
    assert_eq!(count(&ctx).await, 2);
    let two = "INSERT INTO t (qa_id, chunk_no) SELECT 'n', value FROM generate_series(1, 2)";
    let error = run(&ctx, two).await.unwrap_err().to_string();
    assert!(
        error.contains("have the same qa_id, 'n', and differ"),
        "{error}"
    );
    assert_eq!(count(&ctx).await, 2);
    let rows = run(&ctx, "SELECT * FROM t ORDER BY qa_id").await.unwrap();
    assert_eq!(rows[0].schema().fields(), qa_pairs().fields());
    let numbers = rows[0].column(1).as_primitive::<Int32Type>();
    assert_eq!(numbers.value(0), 1);
    assert!(
        shown(&rows).contains("| a     | 1        | 10          | it's \\ é"),
        "{}",
        shown(&rows)
    );
    // Opened again, and by a name in upper case.
    let again = table(&url, "", "QA.PUBLIC.PAIRS", CREATE_QA).await.unwrap();
    assert_eq!(count(&again).await, 2);
    run(&again, &format!("INSERT OVERWRITE t {SOME_QA} LIMIT 1"))
        .await
        .unwrap();
    assert_eq!(count(&again).await, 1);
}

#[tokio::test]
async fn without_a_key_insert_appends() {
    let Some(url) = service() else { return };
    let admin = Admin::new(&url, "APPEND").await;
    admin.run("CREATE OR REPLACE TABLE APPEND.PUBLIC.A (N NUMBER(9,0), D DATE, B BOOLEAN, TS TIMESTAMP_NTZ)").await;
    let ctx = table(&url, "", "APPEND.PUBLIC.A", "").await.unwrap();
    let insert =
        "INSERT INTO t VALUES (1, DATE '1969-07-20', true, TIMESTAMP '2024-02-29 01:02:03.456789')";
    run(&ctx, insert).await.unwrap();
    run(&ctx, insert).await.unwrap();
    let rows = run(&ctx, "SELECT * FROM t").await.unwrap();
    let text = shown(&rows);
    let row = "| 1 | 1969-07-20 | true | 2024-02-29T01:02:03.456789 |";
    assert_eq!(text.matches(row).count(), 2, "{text}");
    run(&ctx, "INSERT INTO t SELECT * FROM t WHERE n > 100")
        .await
        .unwrap();
    assert_eq!(count(&ctx).await, 2);
}

#[tokio::test]
async fn what_cannot_be_written_is_said() {
    let Some(url) = service() else { return };
    let admin = Admin::new(&url, "WRONG").await;
    admin
        .run("CREATE OR REPLACE TABLE WRONG.PUBLIC.W (QA_ID VARCHAR, CHUNK_NO VARCHAR)")
        .await;
    let check = async |more: &str, sql: Option<&str>, expected: &str| {
        let made = table(&url, "", "WRONG.PUBLIC.W", more).await;
        let error = match sql {
            None => made.err().unwrap(),
            Some(sql) => run(&made.unwrap(), sql).await.unwrap_err(),
        };
        assert!(error.to_string().contains(expected), "{error}");
    };
    check(CREATE_QA, None, "chunk_no has type Utf8View, not Int32").await;
    check(CREATE_QA, None, "chunk_start is missing").await;
    check(", 'table.create' 'nope'", None, "Valid: qa_pairs").await;
    check(", 'write.key' 'qa'", None, "Did you mean 'qa_id'?").await;
    let key = ", 'write.key' 'qa_id'";
    check(
        key,
        Some("INSERT INTO t VALUES (NULL, 'x')"),
        "a row has no qa_id",
    )
    .await;
    check(
        "",
        Some("INSERT INTO t SELECT chunk_no, qa_id FROM t"),
        "goes by position",
    )
    .await;
    // A failed write leaves nothing behind.
    let ctx = table(&url, "", "WRONG.PUBLIC.W", key).await.unwrap();
    assert_eq!(count(&ctx).await, 0);
}

/// Rows through a stage mean what bound values mean: nulls, quotes, numbers, long texts.
#[tokio::test]
async fn many_rows_go_through_a_stage() {
    let Some(url) = service() else { return };
    // A database that has no history yet.
    let base = format!("STAGED_{}", std::process::id());
    Admin::new(&url, &base).await;
    let insert = "INSERT INTO t SELECT 'qa' || value, CASE WHEN value % 3 = 0 THEN NULL ELSE \
                  CAST(value AS INT) END, value * 10000000000, CASE WHEN value % 4 = 0 THEN NULL \
                  WHEN value % 4 = 1 THEN '' ELSE 'it''s \\ é \n\"' || repeat('x', 40000) END, \
                  CAST(value AS REAL) / 7 FROM generate_series(1, 500)";
    let (mut found, mut history) = (vec![], vec![]);
    for load in ["auto", "bind"] {
        let options = format!("{CREATE_QA}, 'snowflake.load' '{load}'");
        let place = format!("{base}.public.{load}");
        let ctx = table(&url, "", &place, &options).await.unwrap();
        run(&ctx, insert).await.unwrap();
        let rows = run(&ctx, "SELECT * FROM t ORDER BY chunk_start").await;
        found.push(rows.unwrap());
        let place = format!("{base}.information_schema.load_history");
        let ctx = table(&url, "", &place, "").await.unwrap();
        let loaded = "SELECT CAST(sum(row_count) AS BIGINT) FROM t";
        let loaded = run(&ctx, loaded).await.unwrap();
        let loaded = loaded[0].column(0).as_primitive::<Int64Type>().value(0);
        // The first 8 MiB go as bound values; bind adds nothing to the history.
        assert!(
            (1..500).contains(&loaded),
            "{loaded} rows came through a stage"
        );
        history.push(loaded);
    }
    assert_eq!(history[0], history[1]);
    let rows: usize = found[0].iter().map(|b| b.num_rows()).sum();
    assert_eq!(rows, 500);
    assert!(found[0] == found[1], "the two ways differ");
    let wrong = format!("{CREATE_QA}, 'snowflake.load' 'stage'");
    let refused = table(&url, "", &format!("{base}.public.x"), &wrong).await;
    let error = refused.err().unwrap().to_string();
    assert!(error.contains("Valid: auto, bind"), "{error}");
}

#[tokio::test]
async fn texts_of_any_layout_are_written() {
    let Some(url) = service() else { return };
    let admin = Admin::new(&url, "LAYOUTS").await;
    admin
        .run("CREATE OR REPLACE TABLE LAYOUTS.PUBLIC.L (ID NUMBER(9,0), BODY VARCHAR)")
        .await;
    let ctx = table(&url, "", "LAYOUTS.PUBLIC.L", "").await.unwrap();
    let texts = ["a", "žluť \\ ''", ""];
    let layouts: [ArrayRef; 3] = [
        Arc::new(StringArray::from(texts.to_vec())),
        Arc::new(LargeStringArray::from(texts.to_vec())),
        Arc::new(StringViewArray::from(texts.to_vec())),
    ];
    for (i, texts) in layouts.into_iter().enumerate() {
        let ids = (0..3).map(|n| n + 3 * i as i64);
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(ids));
        let batch = RecordBatch::try_from_iter([("id", ids), ("body", texts)]).unwrap();
        let frame = ctx.read_batch(batch).unwrap();
        let options = DataFrameWriteOptions::new();
        frame.write_table("t", options).await.unwrap();
    }
    let found = run(&ctx, "SELECT body FROM t ORDER BY id").await.unwrap();
    let found: Vec<&str> = found
        .iter()
        .flat_map(|b| b.column(0).as_string_view().iter().flatten())
        .collect();
    let expected: Vec<&str> = texts.iter().cycle().take(9).copied().collect();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_bad_value_is_named() {
    let Some(url) = service() else { return };
    let admin = Admin::new(&url, "BAD").await;
    admin
        .run("CREATE OR REPLACE TABLE BAD.PUBLIC.B (ID NUMBER(9,0), N NUMBER(9,2), D DATE)")
        .await;
    let ctx = table(&url, "", "BAD.PUBLIC.B", "").await.unwrap();
    for (values, parts) in [
        (
            "('1', 1, NULL), ('7x', 1, NULL)",
            ["row 2", "column id", "'7x'"],
        ),
        (
            "(1, 1, '2026-01-31'), (2, 1, '2026-02-30')",
            ["row 2", "column d", "'2026-02-30'"],
        ),
        (
            "(1, 1, NULL), (2, 1, NULL), (3, 12345678, NULL)",
            ["row 3", "column n", "'12345678'"],
        ),
    ] {
        // Of a table, because the planner casts what stands in a statement itself.
        let given = format!("CREATE OR REPLACE TABLE given AS VALUES {values}");
        ctx.sql(&given).await.unwrap();
        let error = match ctx.sql("INSERT INTO t SELECT * FROM given").await {
            Ok(frame) => frame.collect().await.unwrap_err(),
            Err(error) => error,
        };
        for part in parts {
            assert!(error.to_string().contains(part), "{error}");
        }
    }
    assert_eq!(count(&ctx).await, 0);
    // A value that a declared type cannot hold, on the way out.
    admin
        .run("INSERT INTO BAD.PUBLIC.B SELECT 1, 1, NULL UNION ALL SELECT 40000, 1, NULL")
        .await;
    let ctx = table(&url, "(id SMALLINT)", "BAD.PUBLIC.B", "")
        .await
        .unwrap();
    let error = run(&ctx, "SELECT id FROM t").await.unwrap_err().to_string();
    for part in ["row 2", "column ID", "'40000'", "BAD"] {
        assert!(error.contains(part), "{error}");
    }
}

async fn count(ctx: &SessionContext) -> i64 {
    let batches = run(ctx, "SELECT count(*) FROM t").await.unwrap();
    batches[0].column(0).as_primitive::<Int64Type>().value(0)
}
