//! What is read: all of it, in its types, in parallel, lazily, and with errors that help.

use std::fmt::Write;
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, AsArray, BinaryViewArray, BooleanArray, Date32Array, Decimal128Array, Float32Array,
    Float64Array, Int8Array, Int16Array, Int32Array, Int64Array, RecordBatch, StringBuilder,
    StringViewArray, TimestampMicrosecondArray, UInt32Array,
};
use datafusion::arrow::compute::concat_batches;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::prelude::SessionContext;
use futures::StreamExt;
use object_store::{ObjectStore, ObjectStoreExt};
use proptest::prelude::*;
use url::Url;

use super::place::{
    Place, SECRET, ask, azure_options, create, gcs_options, number, rows, s3_options, session,
};
use super::store::CountingStore;
use crate::fake::gcs::{private_key, service_account};

const FORMATS: [&str; 3] = ["CSV", "PARQUET", "JSON"];

/// Rows of every simple type, with nulls, quotes, line breaks and Unicode.
fn sample(count: i64) -> RecordBatch {
    let ids = 0..count;
    let some = |i: i64| (i % 7 != 3).then_some(i);
    let text =
        |i: i64| some(i).map(|i| format!("row \"{i}\",\r\né → {}\n", "x".repeat(i as usize % 40)));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from_iter_values(ids.clone()))),
        (
            "i8",
            Arc::new(Int8Array::from_iter(
                ids.clone().map(|i| some(i).map(|i| (i % 100) as i8)),
            )),
        ),
        (
            "i16",
            Arc::new(Int16Array::from_iter(
                ids.clone().map(|i| some(i).map(|i| i as i16)),
            )),
        ),
        (
            "i32",
            Arc::new(Int32Array::from_iter(
                ids.clone().map(|i| some(i).map(|i| -(i as i32))),
            )),
        ),
        (
            "u32",
            Arc::new(UInt32Array::from_iter(
                ids.clone().map(|i| some(i).map(|i| i as u32)),
            )),
        ),
        (
            "f32",
            Arc::new(Float32Array::from_iter(
                ids.clone().map(|i| some(i).map(|i| i as f32 / 4.0)),
            )),
        ),
        (
            "f64",
            Arc::new(Float64Array::from_iter(
                ids.clone().map(|i| some(i).map(|i| i as f64 / 3.0)),
            )),
        ),
        (
            "flag",
            Arc::new(BooleanArray::from_iter(
                ids.clone().map(|i| some(i).map(|i| i % 2 == 0)),
            )),
        ),
        (
            "day",
            Arc::new(Date32Array::from_iter(
                ids.clone().map(|i| some(i).map(|i| 19000 + i as i32)),
            )),
        ),
        (
            "moment",
            Arc::new(TimestampMicrosecondArray::from_iter(
                ids.clone()
                    .map(|i| some(i).map(|i| 1_700_000_000_000_000 + i * 1_000_001)),
            )),
        ),
        (
            "amount",
            Arc::new(
                Decimal128Array::from_iter(
                    ids.clone().map(|i| some(i).map(|i| i as i128 * 125 - 3)),
                )
                .with_precision_and_scale(12, 2)
                .unwrap(),
            ),
        ),
        (
            "Straße \"x\"",
            Arc::new(StringViewArray::from_iter(ids.clone().map(text))),
        ),
        (
            "raw",
            Arc::new(BinaryViewArray::from_iter(
                ids.map(|i| some(i).map(|i| vec![i as u8, 0, 255])),
            )),
        ),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true)))
        .unwrap()
}

/// `m`, and the same rows written to and read from files as `t`.
async fn written(place: &Place, format: &str, count: i64) -> SessionContext {
    let ctx = session(2);
    ctx.register_batch("m", sample(count)).unwrap();
    let raw = if format == "PARQUET" {
        ", raw BYTEA"
    } else {
        ""
    };
    let columns = format!(
        "(id BIGINT, i8 TINYINT, i16 SMALLINT, i32 INT, u32 INT UNSIGNED, f32 REAL, f64 DOUBLE, \
         flag BOOLEAN, day DATE, moment TIMESTAMP(6), amount DECIMAL(12, 2), \
         \"Straße \"\"x\"\"\" VARCHAR{raw})"
    );
    let location = format!("{}{}/", place.base, format.to_lowercase());
    create(
        &ctx,
        &format!("t {columns}"),
        format,
        &location,
        &place.options,
    )
    .await
    .unwrap();
    let without = if format == "PARQUET" {
        "*"
    } else {
        "* EXCEPT (raw)"
    };
    let added = number(
        &ctx,
        &format!("INSERT INTO t SELECT {without} FROM m ORDER BY id"),
    )
    .await;
    assert_eq!(added as i64, count);
    ctx
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_comes_back() {
    for place in Place::all() {
        for format in FORMATS {
            let ctx = written(&place, format, 60).await;
            let without = if format == "PARQUET" {
                "*"
            } else {
                "* EXCEPT (raw)"
            };
            let expected = ask(&ctx, &format!("SELECT {without} FROM m ORDER BY id"))
                .await
                .unwrap();
            let found = ask(&ctx, "SELECT * FROM t ORDER BY id").await.unwrap();
            assert_eq!(found, expected, "{format} at {}", place.base);
            let few =
                "SELECT i32, \"Straße \"\"x\"\"\" FROM t WHERE id > 50 ORDER BY id DESC LIMIT 3";
            let expected = ask(&ctx, &few.replace("FROM t", "FROM m")).await.unwrap();
            assert_eq!(ask(&ctx, few).await.unwrap(), expected, "{format}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_of_long_parquet_rows_are_short() {
    let place = Place::local();
    let mut word = 1_u64;
    let mut texts = StringBuilder::new();
    for _ in 0..40 {
        for _ in 0..1 << 16 {
            word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            write!(texts, "{word:016x}").unwrap();
        }
        texts.append_value("");
    }
    let texts: ArrayRef = Arc::new(texts.finish());
    let batch = RecordBatch::try_from_iter([("text", texts)]).unwrap();
    let mut writer = ArrowWriter::try_new(vec![], batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    place
        .put("long.parquet", writer.into_inner().unwrap())
        .await;
    let ctx = session(1);
    let at = format!("{}long.parquet", place.base);
    create(&ctx, "t", "PARQUET", &at, "").await.unwrap();
    let found = rows(&ctx, "SELECT * FROM t").await.unwrap();
    let most = found.iter().map(RecordBatch::num_rows).max().unwrap();
    assert!(most <= 16, "{most} rows of 1 MiB in a batch");
    let found = concat_batches(&found[0].schema(), &found).unwrap();
    let text = found.column(0).as_string_view();
    assert!(text.iter().eq(batch.column(0).as_string::<i32>().iter()));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_rows_keep_their_columns() {
    let place = Place::local();
    for format in FORMATS {
        let ctx = written(&place, format, 0).await;
        let batches = ctx.table("t").await.unwrap();
        assert_eq!(batches.schema().field(0).name(), "id");
        assert_eq!(number(&ctx, "SELECT count(*) FROM t").await, 0, "{format}");
    }
}

fn predicate() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        (0i64..90).prop_map(|i| format!("id < {i}")),
        (0i64..90).prop_map(|i| format!("i16 >= {i}")),
        (0i64..90).prop_map(|i| format!("i32 <> -{i}")),
        (0i64..30).prop_map(|i| format!("f32 > {i}.25")),
        Just("flag".to_owned()),
        Just("f64 IS NULL".to_owned()),
        Just("amount > 12.20".to_owned()),
        Just("day > DATE '2022-02-01'".to_owned()),
        Just("\"Straße \"\"x\"\"\" LIKE '%\"1%'".to_owned()),
        Just("\"Straße \"\"x\"\"\" IN ('a', 'b''c')".to_owned()),
    ];
    leaf.prop_recursive(2, 8, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} AND {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} OR {b})")),
            inner.prop_map(|a| format!("NOT ({a})")),
        ]
    })
}

#[test]
fn filters_equal_those_in_memory() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let place = Place::local();
    let sessions = FORMATS.map(|f| (f, runtime.block_on(written(&place, f, 90))));
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(40));
    let outcome = runner.run(&predicate(), |predicate| {
        for (format, ctx) in &sessions {
            let sql = |table| format!("SELECT id, i8 FROM {table} WHERE {predicate} ORDER BY id");
            let found = runtime.block_on(ask(ctx, &sql("t"))).unwrap();
            let expected = runtime.block_on(ask(ctx, &sql("m"))).unwrap();
            prop_assert_eq!(found, expected, "{}: {}", format, predicate);
        }
        Ok(())
    });
    outcome.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn five_megabytes_of_text_are_intact() {
    let text: String = (0..1_700_000)
        .map(|i| ["a\"b", "é\r\n", ",", "→x"][i % 4])
        .collect();
    let batch = RecordBatch::try_from_iter([
        (
            "qa_id",
            Arc::new(StringViewArray::from(vec!["k"])) as ArrayRef,
        ),
        (
            "text",
            Arc::new(StringViewArray::from(vec![text.as_str()])) as ArrayRef,
        ),
    ]);
    for place in Place::all() {
        for format in FORMATS {
            let ctx = session(2);
            ctx.register_batch("m", batch.as_ref().unwrap().clone())
                .unwrap();
            let location = format!("{}long-{format}/", place.base);
            let table = "t (qa_id VARCHAR, text VARCHAR)";
            create(&ctx, table, format, &location, &place.options)
                .await
                .unwrap();
            rows(&ctx, "INSERT INTO t SELECT * FROM m").await.unwrap();
            let found = rows(&ctx, "SELECT text FROM t").await.unwrap();
            let found = found[0].column(0).as_string_view();
            assert!(found.value(0) == text, "{format} at {}", place.base);
        }
    }
}

/// `id,text` with quoted line breaks, about 100 bytes a record.
fn big_csv(records: usize) -> String {
    let mut out = String::from("id,text\n");
    for i in 0..records {
        out.push_str(&format!(
            "{i},\"line one of {i}\n\"\"quoted\"\", {}\r\nlast\"\n",
            "y".repeat(i % 90)
        ));
    }
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn one_big_file_is_read_by_all_partitions() {
    let text = big_csv(150_000);
    for place in Place::all() {
        let (serial, parallel) = (session(1), session(4));
        place.put("big.csv", text.clone()).await;
        let location = format!("{}big.csv", place.base);
        for ctx in [&serial, &parallel] {
            create(ctx, "t", "CSV", &location, &place.options)
                .await
                .unwrap();
        }
        let sums = "SELECT count(*), sum(octet_length(text)), sum(CAST(id AS BIGINT)), \
                    count(DISTINCT id) FROM t";
        let expected = ask(&serial, sums).await.unwrap();
        assert!(expected.contains("150000"), "{expected}");
        assert_eq!(
            ask(&parallel, sums).await.unwrap(),
            expected,
            "{}",
            place.base
        );
        let plan = |sql: &str| format!("EXPLAIN {sql}");
        let shown = ask(&parallel, &plan(sums)).await.unwrap();
        assert!(shown.contains("file_groups={4 groups"), "{shown}");
        let limited = ask(&parallel, &plan("SELECT * FROM t LIMIT 5"))
            .await
            .unwrap();
        assert!(limited.contains("file_groups={1 group"), "{limited}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_parts_is_read_by_all_partitions() {
    for place in Place::all() {
        let ctx = session(4);
        for part in 0..8 {
            place.put(&format!("parts/{part}.csv"), big_csv(100)).await;
        }
        let location = format!("{}parts/", place.base);
        create(&ctx, "t", "CSV", &location, &place.options)
            .await
            .unwrap();
        let shown = ask(&ctx, "EXPLAIN SELECT * FROM t").await.unwrap();
        assert!(shown.contains("file_groups={4 groups"), "{shown}");
        assert_eq!(number(&ctx, "SELECT count(*) FROM t").await, 800);
    }
}

async fn counting(text: String) -> (SessionContext, Arc<CountingStore>) {
    let ctx = session(2);
    let store = Arc::new(CountingStore::default());
    store.put(&"big.csv".into(), text.into()).await.unwrap();
    let url = Url::parse("memory://counted").unwrap();
    let registered: Arc<dyn ObjectStore> = store.clone();
    ctx.register_object_store(&url, registered);
    create(&ctx, "t", "CSV", "memory://counted/big.csv", "")
        .await
        .unwrap();
    (ctx, store)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_reads_little() {
    let text = big_csv(1_200_000);
    let bytes = text.len() as u64;
    assert!(bytes > 100 << 20);
    let (ctx, store) = counting(text).await;
    let before = store.read();
    assert!(before < 1 << 20, "{before} bytes for the header");
    rows(&ctx, "SELECT * FROM t LIMIT 1").await.unwrap();
    assert!(
        store.read() - before < 2 << 20,
        "{} bytes for LIMIT 1",
        store.read()
    );
    let before = store.read();
    rows(&ctx, "SELECT * FROM t WHERE id LIKE '%7' LIMIT 5")
        .await
        .unwrap();
    let read = store.read() - before;
    assert!(
        read < bytes * 3 / 4,
        "{read} of {bytes} bytes for a filter with LIMIT 5"
    );
    let before = store.read();
    assert_eq!(number(&ctx, "SELECT count(*) FROM t").await, 1_200_000);
    let read = store.read() - before;
    assert!(
        read < bytes + bytes / 4,
        "{read} bytes: the file was read twice"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_stream_stops_reading() {
    let text = big_csv(1_200_000);
    let bytes = text.len() as u64;
    let (ctx, store) = counting(text).await;
    let idle = Arc::strong_count(&store);
    let mut stream = ctx
        .sql("SELECT * FROM t")
        .await
        .unwrap()
        .execute_stream()
        .await
        .unwrap();
    assert!(stream.next().await.unwrap().is_ok());
    drop(stream);
    // Whoever reads holds the store.
    let stopped = async {
        while Arc::strong_count(&store) > idle {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), stopped)
        .await
        .unwrap();
    assert!(
        store.read() < bytes * 3 / 4,
        "{} of {bytes} bytes",
        store.read()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn globs_directories_and_compression() {
    // gzip of {"id":1,"text":"x"} and {"id":2,"text":null}, made by the table itself.
    for place in Place::all() {
        for (format, compression, ending) in [
            ("JSON", "gzip", ".json.gz"),
            ("CSV", "gzip", ".csv.gz"),
            ("JSON", "zstd", ".json.zst"),
        ] {
            let ctx = session(2);
            let directory = format!("{}{format}{compression}/", place.base);
            let options = format!("{} 'format.compression' '{compression}'", place.options);
            let table = "w (id BIGINT, text VARCHAR)";
            create(&ctx, table, format, &directory, &options)
                .await
                .unwrap();
            for _ in 0..2 {
                rows(&ctx, "INSERT INTO w VALUES (1, 'x'), (2, NULL)")
                    .await
                    .unwrap();
            }
            assert_eq!(number(&ctx, "SELECT count(*) FROM w").await, 4);
            // What is compressed is seen by the names.
            for (name, location) in [
                ("d", directory.clone()),
                ("g", format!("{directory}*{ending}")),
                ("p", directory.trim_end_matches('/').to_owned()),
            ] {
                create(&ctx, name, format, &location, &place.options)
                    .await
                    .unwrap_or_else(|e| panic!("{location}: {e}"));
                let sql = format!("SELECT count(*) FROM {name} WHERE text = 'x'");
                assert_eq!(number(&ctx, &sql).await, 2, "{location}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_with_values_are_columns() {
    for place in Place::all() {
        if place.options.is_empty() {
            std::fs::create_dir_all(format!("{}h/year=2025", place.base)).unwrap();
            std::fs::create_dir_all(format!("{}h/year=2026", place.base)).unwrap();
        }
        place
            .put("h/year=2025/a.csv", "id\n1\n2\n".to_owned())
            .await;
        place.put("h/year=2026/b.csv", "id\n3\n".to_owned()).await;
        let ctx = session(2);
        let at = format!("{}h/", place.base);
        create(&ctx, "t", "CSV", &at, &place.options).await.unwrap();
        let sum = "SELECT sum(CAST(id AS BIGINT)) FROM t WHERE year = '2025'";
        assert_eq!(number(&ctx, sum).await, 3, "{at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tables_of_one_bucket_keep_their_credentials() {
    let google = (Place::gcs(), gcs_options(&service_account(&private_key())));
    let azure = Place::azure().zip(azure_options("aHVudGVyMnNlY3JldHZhbHVl"));
    for (place, wrong) in azure.into_iter().chain([google]) {
        let ctx = session(1);
        let columns = "(id BIGINT)";
        let at = format!("{}x/", place.base);
        create(&ctx, &format!("good {columns}"), "CSV", &at, &place.options)
            .await
            .unwrap();
        rows(&ctx, "INSERT INTO good VALUES (1)").await.unwrap();
        let error = create(&ctx, &format!("bad {columns}"), "CSV", &at, &wrong)
            .await
            .unwrap_err();
        assert!(error.contains("check the credentials"), "{error}");
        let secrets = ["aHVudGVyMnNlY3JldHZhbHVl", "PRIVATE KEY", "eyJ"];
        assert!(secrets.iter().all(|s| !error.contains(s)), "{error}");
        assert_eq!(number(&ctx, "SELECT count(*) FROM good").await, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_named() {
    let ctx = session(1);
    let place = Place::local();
    let missing = format!("{}nope.csv", place.base);
    let error = create(&ctx, "t", "CSV", &missing, "").await.unwrap_err();
    assert!(error.contains("there is no file"), "{error}");
    let error = create(&ctx, "t", "PARQUET", &place.base, "")
        .await
        .unwrap_err();
    assert!(
        error.contains("no .parquet files") && error.contains("table.create"),
        "{error}"
    );
    let remote = [Place::s3(), Place::azure(), Some(Place::gcs())];
    for remote in remote.into_iter().flatten() {
        let missing = format!("{}nope.csv", remote.base);
        let error = create(&ctx, "t", "CSV", &missing, &remote.options)
            .await
            .unwrap_err();
        assert!(error.contains("there is no object at"), "{error}");
        assert!(!error.contains(SECRET), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_shown_nowhere() {
    // Nothing listens there.
    let options = s3_options("http://127.0.0.1:9", SECRET);
    let ctx = session(1);
    let error = create(&ctx, "t", "CSV", "s3://b/x.csv", &options)
        .await
        .unwrap_err();
    assert!(
        error.contains("s3://b/x.csv") && !error.contains(SECRET),
        "{error}"
    );
    let Some(place) = Place::s3() else { return };
    create(&ctx, "t (id BIGINT)", "JSON", &place.base, &place.options)
        .await
        .unwrap();
    rows(&ctx, "INSERT INTO t VALUES (1)").await.unwrap();
    let mut shown = format!("{:?}", ctx.table_provider("t").await.unwrap());
    for sql in [
        "EXPLAIN VERBOSE SELECT * FROM t",
        "EXPLAIN INSERT INTO t VALUES (2)",
        "SELECT * FROM information_schema.views",
        "SHOW CREATE TABLE t",
    ] {
        shown += &ask(&ctx, sql).await.unwrap();
    }
    assert!(!shown.contains(SECRET), "{shown}");
}
