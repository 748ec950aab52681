//! NaN and the two zeros mean the same in every table, whatever its statistics say: a filter, an
//! order and an aggregate over files find what they find in memory.

use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, Float32Array, Float64Array, Int64Array, RecordBatch, StructArray,
    TimestampMicrosecondArray,
};
use datafusion::arrow::datatypes::Field;
use datafusion::datasource::MemTable;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::file::properties::{EnabledStatistics, WriterProperties};
use datafusion::prelude::{SessionConfig, SessionContext};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::files::place::{ask, rows};

/// Rows of a row group and of a Delta file.
const GROUP: usize = 4;
/// Microseconds of an hour.
const HOUR: i64 = 3_600_000_000;

fn session() -> SessionContext {
    let config = SessionConfig::new().with_target_partitions(2);
    let ctx = SessionContext::new_with_config(config);
    casebook_connectors::register(&ctx, &casebook_connectors::ConnectorOptions::default()).unwrap();
    ctx
}

/// Numbered rows of each value: wide, narrow, and within a struct.
fn batch(values: &[Option<f64>]) -> RecordBatch {
    let wide: ArrayRef = Arc::new(Float64Array::from(values.to_vec()));
    let narrow = values.iter().map(|v| v.map(|v| v as f32));
    let narrow: ArrayRef = Arc::new(narrow.collect::<Float32Array>());
    let ids = || Arc::new(Int64Array::from_iter_values(0..values.len() as i64)) as ArrayRef;
    let field = |name: &str, column: &ArrayRef| {
        Arc::new(Field::new(name, column.data_type().clone(), true))
    };
    let inner = [("f", Arc::clone(&wide)), ("i", ids())];
    let inner = inner.map(|(name, column)| (field(name, &column), column));
    let within: ArrayRef = Arc::new(StructArray::from(inner.to_vec()));
    let hours = (0..values.len() as i64).map(|i| i * 7 * HOUR);
    let moments: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values(hours));
    let columns = [
        ("i", ids()),
        ("f", wide),
        ("r", narrow),
        ("s", within),
        ("t", moments),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)))
        .unwrap()
}

/// The tables `memory`, `csv`, `parquet` and `delta` of the same rows, in groups of [`GROUP`].
async fn tables(values: &[Option<f64>], at: &Path) -> SessionContext {
    let ctx = session();
    let batch = batch(values);
    let memory = MemTable::try_new(batch.schema(), vec![vec![batch.clone()]]).unwrap();
    ctx.register_table("memory", Arc::new(memory)).unwrap();
    std::fs::create_dir(at.join("parquet")).unwrap();
    let file = std::fs::File::create(at.join("parquet/rows.parquet")).unwrap();
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(GROUP))
        .set_data_page_row_count_limit(2)
        .set_write_batch_size(2)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_bloom_filter_enabled(true)
        .build();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let shown = at.display();
    let parquet =
        format!("CREATE EXTERNAL TABLE parquet STORED AS PARQUET LOCATION '{shown}/parquet/'");
    rows(&ctx, &parquet).await.unwrap();
    let delta = format!(
        "CREATE EXTERNAL TABLE delta (i BIGINT, f DOUBLE, r REAL, s STRUCT<f DOUBLE, i BIGINT>, \
         t TIMESTAMP(6)) STORED AS DELTA LOCATION '{shown}/delta'"
    );
    rows(&ctx, &delta).await.unwrap();
    let csv = format!(
        "CREATE EXTERNAL TABLE csv (i BIGINT, f DOUBLE, r REAL, t TIMESTAMP(6)) STORED AS CSV \
         LOCATION '{shown}/csv/'"
    );
    rows(&ctx, &csv).await.unwrap();
    for start in (0..values.len()).step_by(GROUP) {
        let some = format!("FROM memory WHERE i >= {start} AND i < {}", start + GROUP);
        rows(&ctx, &format!("INSERT INTO delta SELECT * {some}"))
            .await
            .unwrap();
        rows(&ctx, &format!("INSERT INTO csv SELECT i, f, r, t {some}"))
            .await
            .unwrap();
    }
    ctx
}

/// Every table answers `query` over `{t}` as memory does. Nested columns are not in CSV.
async fn check(ctx: &SessionContext, query: &str) {
    let answer = async |table: &str| {
        let shown = ask(ctx, &query.replace("{t}", table)).await?;
        // The heads name the table.
        let lines = shown.lines().skip(3).filter(|line| line.starts_with('|'));
        // Which of two zeros comes first is the sort's to say: they are equal to a filter.
        let cell = |cell: &str| cell.trim().replace("-0.0", "0.0");
        let lines = lines.map(|line| line.split('|').map(cell).collect::<Vec<String>>());
        Ok::<_, String>(lines.collect::<Vec<_>>())
    };
    let expected = answer("memory").await;
    assert!(expected.is_ok(), "{query}: {expected:?}");
    for table in ["parquet", "delta", "csv"] {
        if table == "csv" && query.contains("s[") {
            continue;
        }
        assert_eq!(answer(table).await, expected, "{table}: {query}");
    }
}

#[tokio::test]
async fn nan_and_zeros_are_found_by_every_filter_order_and_aggregate() {
    let nan = f64::NAN;
    let values = [
        // Each group of four has its own extremes, and hides something behind them.
        [Some(1.0), Some(nan), Some(-1.0), None],
        [Some(0.0), Some(-0.0), Some(0.0), Some(-0.0)],
        [Some(nan), Some(nan), Some(nan), Some(nan)],
        [Some(2.0), Some(f64::INFINITY), Some(2.0), Some(2.0)],
        [Some(-5.0), Some(f64::NEG_INFINITY), Some(-7.0), Some(nan)],
        [None, None, None, None],
        [Some(0.5), Some(0.5), Some(0.5), Some(nan)],
        [Some(-0.0), Some(-0.0), Some(-0.0), Some(-0.0)],
    ]
    .concat();
    let folder = tempfile::tempdir().unwrap();
    let ctx = tables(&values, folder.path()).await;
    let nan = "CAST('NaN' AS DOUBLE)";
    for column in ["f", "r", "s['f']"] {
        for condition in [
            format!("{column} > 1"),
            format!("{column} > 100"),
            format!("{column} >= CAST('Infinity' AS DOUBLE)"),
            format!("{column} > CAST('Infinity' AS DOUBLE)"),
            format!("{column} = {nan}"),
            format!("{column} <> {nan}"),
            format!("{column} < {nan}"),
            format!("{column} IS DISTINCT FROM {nan}"),
            format!("{column} IN ({nan}, 0.5)"),
            format!("{column} NOT IN (0.5, 2.0)"),
            format!("{column} BETWEEN 0 AND {nan}"),
            format!("NOT ({column} <= 1)"),
            format!("isnan({column})"),
            format!("{column} = 0.0"),
            format!("{column} = CAST('-0.0' AS DOUBLE)"),
            format!("{column} < 0.0"),
            format!("{column} > CAST('-0.0' AS DOUBLE)"),
            format!("{column} <> 0.0"),
            format!("{column} <> 0.5"),
            format!("{column} > 1 OR i = 3"),
            format!("{column} > 1 AND i < 9"),
            format!("{column} IS NULL"),
            format!("{column} IS NOT NULL AND i > 20"),
            format!("-{column} < -100"),
            format!("{column} + 1 > 100"),
        ] {
            check(
                &ctx,
                &format!("SELECT i FROM {{t}} WHERE {condition} ORDER BY i"),
            )
            .await;
            check(
                &ctx,
                &format!("SELECT count(*) FROM {{t}} WHERE {condition}"),
            )
            .await;
        }
        for query in [
            format!("SELECT max({column}), min({column}), count({column}) FROM {{t}}"),
            format!("SELECT max({column}) FROM {{t}} WHERE i < 8"),
            format!("SELECT min({column}) FROM {{t}} WHERE {column} > 0"),
            format!("SELECT count(DISTINCT {column}) FROM {{t}}"),
            format!("SELECT i FROM {{t}} ORDER BY {column} DESC NULLS LAST, i LIMIT 1"),
            format!("SELECT {column} FROM {{t}} ORDER BY {column} DESC NULLS LAST LIMIT 7"),
            format!("SELECT {column} FROM {{t}} ORDER BY {column} ASC LIMIT 3"),
            format!("SELECT i FROM {{t}} ORDER BY {column}, i"),
            format!(
                "SELECT l.i, o.i FROM {{t}} l JOIN {{t}} o ON l.{column} = o.{column} \
                 WHERE o.i IN (1, 4, 5, 12) ORDER BY l.i, o.i"
            ),
        ] {
            check(&ctx, &query).await;
        }
    }
    for expected in [
        ("f > 1000 AND i = 8", "1"),
        ("f = CAST('NaN' AS DOUBLE)", "7"),
    ] {
        let (condition, count) = expected;
        let found = ask(
            &ctx,
            &format!("SELECT count(*) FROM parquet WHERE {condition}"),
        )
        .await;
        assert!(
            found.unwrap().contains(&format!("| {count} ")),
            "{condition}"
        );
    }
}

#[test]
fn random_numbers_compare_alike_in_every_table() {
    let number = || {
        prop_oneof![
            Just(f64::NAN),
            Just(0.0),
            Just(-0.0),
            Just(1.5),
            Just(f64::INFINITY),
            Just(f64::NEG_INFINITY),
            (-4..4i32).prop_map(f64::from),
        ]
    };
    let operator = prop::sample::select(vec!["=", "<>", "<", "<=", ">", ">="]);
    let column = prop::sample::select(vec!["f", "r", "s['f']"]);
    let comparison = (column, operator, number());
    let values = prop::collection::vec(prop::option::weighted(0.85, number()), 1..24);
    let cases = (values, prop::collection::vec(comparison, 6));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    type Comparison = (&'static str, &'static str, f64);
    let compared = |(values, comparisons): (Vec<Option<f64>>, Vec<Comparison>)| {
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let ctx = tables(&values, folder.path()).await;
            for (column, operator, number) in comparisons {
                let one = format!("{column} {operator} CAST('{number:?}' AS DOUBLE)");
                for query in [
                    format!("SELECT i FROM {{t}} WHERE {one} ORDER BY i"),
                    format!("SELECT max({column}), min({column}) FROM {{t}} WHERE NOT ({one})"),
                    format!("SELECT {column} FROM {{t}} ORDER BY 1 DESC LIMIT 2"),
                ] {
                    check(&ctx, &query).await;
                }
            }
        });
        Ok(())
    };
    TestRunner::new(Config::with_cases(12))
        .run(&cases, compared)
        .unwrap();
}

/// Whole numbers, texts and times are still pruned by, alone and beside floating ones.
#[tokio::test]
async fn other_columns_are_still_pruned_by() {
    let folder = tempfile::tempdir().unwrap();
    let values: Vec<Option<f64>> = (0..32).map(|i| Some(f64::from(i))).collect();
    let ctx = tables(&values, folder.path()).await;
    let explained = async |sql: &str| ask(&ctx, &format!("EXPLAIN ANALYZE {sql}")).await.unwrap();
    for condition in [
        "i > 27",
        "i > 27 AND f > 1",
        "t > TIMESTAMP '1970-01-09T05:00:00'",
        "i = 30",
    ] {
        let shown = explained(&format!("SELECT * FROM parquet WHERE {condition}")).await;
        let pruned = "row_groups_pruned_statistics=8 total → 1 matched";
        assert!(shown.contains(pruned), "{condition}: {shown}");
    }
    let shown = explained("SELECT * FROM parquet WHERE f > 27").await;
    assert!(
        !shown.contains("row_groups_pruned_statistics=8 total → 1"),
        "{shown}"
    );
    let planned = ask(&ctx, "EXPLAIN SELECT max(i), min(t) FROM parquet")
        .await
        .unwrap();
    assert!(
        !planned.contains("DataSourceExec"),
        "answered by statistics: {planned}"
    );
    let planned = ask(&ctx, "EXPLAIN SELECT max(f) FROM parquet")
        .await
        .unwrap();
    assert!(planned.contains("DataSourceExec"), "{planned}");
}

/// The library looks through a cast as if the times of two days were in order.
#[tokio::test]
async fn a_cast_that_turns_the_order_is_not_pruned_by() {
    let folder = tempfile::tempdir().unwrap();
    let ctx = tables(&[None; 32], folder.path()).await;
    for condition in [
        "CAST(t AS TIME) > TIME '20:00:00'",
        "CAST(t AS TIME) = TIME '07:00:00'",
        "CAST(i AS VARCHAR) > '5'",
        "CAST(t AS DATE) = DATE '1970-01-03'",
    ] {
        check(
            &ctx,
            &format!("SELECT i FROM {{t}} WHERE {condition} ORDER BY i"),
        )
        .await;
    }
}
