//! Snowflake's source against a server that misbehaves as the real one can.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, Int8Array, Int16Array, Int32Array, Int64Array,
    RecordBatch, StringArray, StructArray,
};
use datafusion::arrow::datatypes::{DataType, Field, Int64Type, TimeUnit};
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::error::Result;
use datafusion::prelude::SessionContext;
use futures::StreamExt;

use crate::fake::snowflake::{Fake, Faults, PASSWORD, Rows, SIGNATURE, batch, column, rowtype};

/// Rows in each part of the result.
pub(super) const PART: i64 = 40;

fn numbers(part: i64) -> Vec<i64> {
    (part * PART..(part + 1) * PART).collect()
}

/// `parts` parts in which the same columns come in other widths and forms.
pub(super) fn rows(parts: i64) -> Rows {
    let part = |p: i64| {
        let n = numbers(p);
        let id: ArrayRef = match p % 5 {
            0 => Arc::new(Int16Array::from_iter_values(n.iter().map(|v| *v as i16))),
            1 if p == 1 => Arc::new(Int8Array::from_iter_values(n.iter().map(|v| *v as i8))),
            2 => Arc::new(Int32Array::from_iter_values(n.iter().map(|v| *v as i32))),
            3 => Arc::new(Int64Array::from(n.clone())),
            _ => Arc::new(
                Decimal128Array::from_iter_values(n.iter().map(|v| i128::from(*v)))
                    .with_precision_and_scale(38, 0)
                    .unwrap(),
            ),
        };
        // n seconds and n milliseconds after the epoch.
        let (at, scale): (ArrayRef, i64) = match p % 2 {
            0 => (
                Arc::new(Int64Array::from_iter_values(n.iter().map(|v| v * 1001))),
                3,
            ),
            _ => {
                let epoch: ArrayRef = Arc::new(Int64Array::from(n.clone()));
                let nanos = n.iter().map(|v| (*v * 1_000_000) as i32);
                let fraction: ArrayRef = Arc::new(Int32Array::from_iter_values(nanos));
                let fields = vec![
                    Arc::new(Field::new("epoch", DataType::Int64, false)),
                    Arc::new(Field::new("fraction", DataType::Int32, false)),
                ];
                (
                    Arc::new(StructArray::new(fields.into(), vec![epoch, fraction], None)),
                    9,
                )
            }
        };
        let texts = n
            .iter()
            .map(|v| Some(format!("text {v} é")).filter(|_| v % 7 != 0));
        let text: ArrayRef = Arc::new(StringArray::from_iter(texts));
        batch(vec![
            column("ID", id, 0),
            column("AT", at, scale),
            column("Text", text, 0),
        ])
    };
    Rows {
        rowtype: vec![
            rowtype("ID", "fixed", 18, 0),
            rowtype("AT", "timestamp_ntz", 0, 9),
            rowtype("Text", "text", 0, 0),
        ],
        parts: (0..parts).map(part).collect(),
    }
}

pub(super) async fn table(url: &str, password: &str, more: &str) -> Result<SessionContext> {
    let ctx = SessionContext::new();
    casebook_connectors::register(&ctx, &Default::default()).unwrap();
    let sql = format!(
        "CREATE EXTERNAL TABLE t STORED AS SNOWFLAKE LOCATION 'db.s.cases' OPTIONS (
           'snowflake.account' 'acct', 'snowflake.host' '{url}', 'snowflake.allow_http' 'true', 'snowflake.user' 'me',
           'snowflake.password' '{password}'{more})"
    );
    ctx.sql(&sql).await?.collect().await?;
    Ok(ctx)
}

pub(super) async fn collect(fake: &Fake, sql: &str) -> Result<Vec<RecordBatch>> {
    let ctx = table(&fake.url, PASSWORD, "").await?;
    ctx.sql(sql).await?.collect().await
}

pub(super) fn ids(batches: &[RecordBatch]) -> Vec<i64> {
    let columns = batches
        .iter()
        .map(|b| b.column(0).as_primitive::<Int64Type>());
    columns.flat_map(|c| c.values().to_vec()).collect()
}

#[tokio::test]
async fn parts_arrive_in_order_whatever_ends_first() {
    let faults = Faults {
        out_of_order: true,
        busy: vec![2],
        ..Faults::default()
    };
    let fake = Fake::start(rows(8), faults).await;
    let batches = collect(&fake, "SELECT id, at, \"Text\" FROM t")
        .await
        .unwrap();
    assert_eq!(ids(&batches), (0..8 * PART).collect::<Vec<_>>());
    let ended: Vec<String> = fake.events();
    let place = |e: &str| ended.iter().position(|x| x == e).unwrap();
    assert!(place("ended 1") < place("ended 0"), "{ended:?}");
    assert_eq!(fake.count("busy"), 1);
    // One schema, and the same value in every form.
    for batch in &batches {
        assert_eq!(batch.schema(), batches[0].schema());
    }
    let schema = batches[0].schema();
    let types: Vec<&DataType> = schema.fields().iter().map(|f| f.data_type()).collect();
    let at = DataType::Timestamp(TimeUnit::Nanosecond, None);
    assert_eq!(types, [&DataType::Int64, &at, &DataType::Utf8View]);
    for batch in &batches {
        let id = batch.column(0).as_primitive::<Int64Type>();
        let at = batch
            .column(1)
            .as_primitive::<datafusion::arrow::datatypes::TimestampNanosecondType>();
        let text = batch.column(2).as_string_view();
        for row in 0..batch.num_rows() {
            let n = id.value(row);
            assert_eq!(at.value(row), n * 1_001_000_000);
            assert_eq!(text.is_null(row), n % 7 == 0);
            if n % 7 != 0 {
                assert_eq!(text.value(row), format!("text {n} é"));
            }
        }
    }
}

#[tokio::test]
async fn expired_links_are_renewed() {
    let faults = Faults {
        expired_links: vec![1, 2, 4],
        ..Faults::default()
    };
    let fake = Fake::start(rows(7), faults).await;
    let batches = collect(&fake, "SELECT id FROM t").await.unwrap();
    assert_eq!(ids(&batches), (0..7 * PART).collect::<Vec<_>>());
    assert!(fake.count("refused") >= 1 && fake.count("result") >= 1);
}

#[tokio::test]
async fn links_that_never_work_are_an_error_without_the_link() {
    let faults = Faults {
        dead_links: true,
        ..Faults::default()
    };
    let fake = Fake::start(rows(3), faults).await;
    let error = collect(&fake, "SELECT id FROM t").await.unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(text.contains("the object store refuses it"), "{text}");
    assert!(!text.contains(SIGNATURE), "{text}");
}

#[tokio::test]
async fn an_expired_session_is_renewed_and_a_lost_one_begun_again() {
    let faults = Faults {
        expired_session: true,
        ..Faults::default()
    };
    let fake = Fake::start(rows(2), faults).await;
    let batches = collect(&fake, "SELECT id FROM t").await.unwrap();
    assert_eq!(ids(&batches).len(), 2 * PART as usize);
    assert_eq!((fake.count("login"), fake.count("renewed")), (1, 1));

    let faults = Faults {
        lost_session: true,
        ..Faults::default()
    };
    let fake = Fake::start(rows(2), faults).await;
    let batches = collect(&fake, "SELECT id FROM t").await.unwrap();
    assert_eq!(ids(&batches).len(), 2 * PART as usize);
    assert_eq!((fake.count("login"), fake.count("not renewed")), (2, 1));
}

#[tokio::test]
async fn long_statements_are_waited_for() {
    let faults = Faults {
        polls: 3,
        ..Faults::default()
    };
    let fake = Fake::start(rows(2), faults).await;
    let batches = collect(&fake, "SELECT id FROM t").await.unwrap();
    assert_eq!(ids(&batches).len(), 2 * PART as usize);
    assert_eq!(fake.count("result"), 3);
    assert_eq!(fake.count("abort"), 0);
}

#[tokio::test]
async fn a_dropped_stream_stops_the_statement() {
    let faults = Faults {
        never_done: true,
        ..Faults::default()
    };
    let fake = Fake::start(rows(2), faults).await;
    let ctx = table(&fake.url, PASSWORD, "").await.unwrap();
    let mut stream = ctx
        .sql("SELECT id FROM t")
        .await
        .unwrap()
        .execute_stream()
        .await
        .unwrap();
    tokio::select! {
        batch = stream.next() => panic!("a statement that never ends gave {batch:?}"),
        _ = fake.wait_for("result") => {}
    }
    drop(stream);
    let aborted = fake.wait_for("abort").await;
    let id = aborted.strip_prefix("abort ").unwrap();
    assert_eq!(
        fake.count(&format!("query {id} ")),
        1,
        "{:?}",
        fake.events()
    );
}

#[tokio::test]
async fn a_truncated_chunk_is_an_error_never_a_short_result() {
    let whole = Fake::start(rows(3), Faults::default()).await;
    assert!(collect(&whole, "SELECT id FROM t").await.is_ok());
    // Nothing, the schema only, and into the rows.
    for length in [0, 100, 300, 400] {
        let faults = Faults {
            truncated: Some((1, length)),
            ..Faults::default()
        };
        let fake = Fake::start(rows(3), faults).await;
        let error = collect(&fake, "SELECT id FROM t")
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("is damaged"), "{length}: {error}");
        assert!(
            error.contains("\"DB\".\"S\".\"CASES\"") || error.contains("cases"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_limit_leaves_most_chunks_where_they_are() {
    let fake = Fake::start(rows(100), Faults::default()).await;
    // The server ignores LIMIT, as it may where a filter stays here.
    let batches = collect(&fake, "SELECT id FROM t LIMIT 1").await.unwrap();
    assert_eq!(ids(&batches), [0]);
    assert!(fake.count("begun") <= 8, "{:?}", fake.events());
}

#[tokio::test]
async fn nothing_is_read_before_the_stream_is() {
    let fake = Fake::start(rows(2), Faults::default()).await;
    let ctx = table(&fake.url, PASSWORD, "").await.unwrap();
    let frame = ctx.sql("SELECT id FROM t WHERE id > 3").await.unwrap();
    frame.create_physical_plan().await.unwrap();
    assert_eq!(fake.count("query"), 0);
    assert_eq!((fake.count("login"), fake.count("describe")), (1, 1));
}

#[tokio::test]
async fn rows_are_counted_without_columns_and_no_rows_keep_the_schema() {
    let fake = Fake::start(rows(3), Faults::default()).await;
    let counted = collect(&fake, "SELECT count(*) FROM t").await.unwrap();
    assert_eq!(ids(&counted), [3 * PART]);
    let empty = Rows {
        parts: vec![],
        ..rows(1)
    };
    let fake = Fake::start(empty, Faults::default()).await;
    let ctx = table(&fake.url, PASSWORD, "").await.unwrap();
    let frame = ctx.sql("SELECT * FROM t").await.unwrap();
    assert_eq!(frame.schema().fields().len(), 3);
    let found: usize = frame
        .collect()
        .await
        .unwrap()
        .iter()
        .map(|b| b.num_rows())
        .sum();
    assert_eq!(found, 0);
}

#[tokio::test]
async fn secrets_are_in_no_error_plan_or_debug() {
    let fake = Fake::start(rows(2), Faults::default()).await;
    let error = table(&fake.url, "hunter9", "").await.err().unwrap();
    let text = format!("{error} {error:?}");
    assert!(
        text.contains("check snowflake.user and snowflake.password"),
        "{text}"
    );
    assert!(!text.contains("hunter9"), "{text}");
    let ctx = table(&fake.url, PASSWORD, "").await.unwrap();
    let plan = ctx.sql("EXPLAIN VERBOSE SELECT id FROM t").await.unwrap();
    let plan = plan.collect().await.unwrap();
    let provider = ctx.table_provider("t").await.unwrap();
    let plan = pretty_format_batches(&plan).unwrap();
    let shown = format!("{plan} {provider:?}");
    assert!(
        shown.contains("SnowflakeScan: sql=SELECT \"ID\" FROM"),
        "{shown}"
    );
    assert!(
        !shown.contains(PASSWORD) && !shown.contains("token-"),
        "{shown}"
    );
}

#[tokio::test]
async fn a_host_that_is_not_there_is_named() {
    let options = "http://127.0.0.1:1";
    let ctx = SessionContext::new();
    casebook_connectors::register(&ctx, &Default::default()).unwrap();
    let connector = casebook_connectors::CONNECTORS
        .iter()
        .find(|c| c.name == "SNOWFLAKE")
        .unwrap();
    let given = [
        ("snowflake.account", "acct"),
        ("snowflake.host", options),
        ("snowflake.allow_http", "true"),
        ("snowflake.user", "me"),
        ("snowflake.password", PASSWORD),
    ];
    let steps = connector
        .check(casebook_connectors::CheckRequest {
            location: "db.s.t".into(),
            options: given.map(|(k, v)| (k.into(), v.into())).into(),
            write: false,
        })
        .await;
    let names: Vec<&str> = steps.iter().map(|s| s.name).collect();
    assert_eq!(names, ["options", "reach"]);
    let error = steps[1].result.as_ref().unwrap_err().to_string();
    assert!(
        error.contains("127.0.0.1") && !error.contains(PASSWORD),
        "{error}"
    );
}

const INSERT: &str = "INSERT INTO t VALUES (1, TIMESTAMP '2024-01-01', 'a'), (2, NULL, 'b')";

#[tokio::test]
async fn a_write_stages_its_rows_and_ends_with_one_statement() {
    let fake = Fake::start(rows(1), Faults::default()).await;
    let keyed = ", 'write.key' 'id'";
    let ctx = table(&fake.url, PASSWORD, keyed).await.unwrap();
    ctx.sql(INSERT).await.unwrap().collect().await.unwrap();
    let events = fake.events();
    let writes = events.iter().filter_map(|e| e.strip_prefix("write "));
    let writes: Vec<&str> = writes.collect();
    let starts = [
        "USE SCHEMA \"db\".\"s\"",
        "CREATE TEMPORARY TABLE CASEBOOK_STAGING_",
        "INSERT INTO CASEBOOK_STAGING_",
        "MERGE INTO \"db\".\"s\".\"cases\" t USING (SELECT C1, C2, C3 FROM CASEBOOK_STAGING_",
    ];
    assert_eq!(writes.len(), starts.len(), "{writes:?}");
    for (write, start) in writes.iter().zip(starts) {
        assert!(write.starts_with(start), "{write}");
    }
    // The session, and with it the temporary table, ends with the write.
    fake.wait_for("logout").await;
}

#[tokio::test]
async fn rows_lost_on_their_way_stop_the_write() {
    let faults = Faults {
        loses_rows: true,
        ..Faults::default()
    };
    let fake = Fake::start(rows(1), faults).await;
    let error = collect(&fake, INSERT).await.unwrap_err().to_string();
    assert!(error.contains("2 rows were sent and 1 arrived"), "{error}");
    assert_eq!(fake.count("write INSERT INTO \"db\""), 0);
}

#[tokio::test]
async fn a_session_that_ends_in_a_write_takes_it_along() {
    let faults = Faults {
        ends_in_write: true,
        ..Faults::default()
    };
    let fake = Fake::start(rows(1), faults).await;
    let error = collect(&fake, INSERT).await.unwrap_err().to_string();
    assert!(
        error.contains("nothing was written: run the INSERT again"),
        "{error}"
    );
    assert_eq!(fake.count("write INSERT INTO \"db\""), 0);
}
