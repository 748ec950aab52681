//! A column that is declared with another type than its files have: each value as it is, or an error
//! that names file, column and value; in filters and aggregates, too.

use std::path::Path;
use std::sync::Arc;

use casebook_connectors::{ConnectorOptions, register};
use datafusion::arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int32Array,
    Int64Array, ListArray, RecordBatch, StringArray, StructArray, TimestampMicrosecondArray,
    TimestampNanosecondArray,
};
use datafusion::arrow::datatypes::{DataType, Field, Int64Type};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::file::properties::WriterProperties;
use datafusion::prelude::SessionContext;
use serde_json::json;

use crate::files::place::{ask, rows};

/// A table `t` of one column `x` of the type `declared` over a file of `column`, each value of which
/// has a row group of its own.
async fn over(column: ArrayRef, declared: &str, at: &Path) -> SessionContext {
    let batch = RecordBatch::try_from_iter_with_nullable([("x", column, true)]).unwrap();
    let file = std::fs::File::create(at.join("rows.parquet")).unwrap();
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(1))
        .build();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let ctx = SessionContext::new();
    register(&ctx, &ConnectorOptions::default()).unwrap();
    let create = format!(
        "CREATE EXTERNAL TABLE t (x {declared}) STORED AS PARQUET LOCATION '{}/'",
        at.display()
    );
    rows(&ctx, &create).await.unwrap();
    ctx
}

async fn shown(ctx: &SessionContext, sql: &str) -> Result<Vec<String>, String> {
    let shown = ask(ctx, sql).await?;
    let lines = shown.lines().skip(3).filter(|line| line.starts_with('|'));
    Ok(lines
        .map(|line| line.trim_matches(['|', ' ']).to_owned())
        .collect())
}

#[tokio::test]
async fn what_fits_is_read_as_declared() {
    let decimal = |values: Vec<i128>, precision, scale| -> ArrayRef {
        let values = Decimal128Array::from(values);
        Arc::new(values.with_precision_and_scale(precision, scale).unwrap())
    };
    let cases: Vec<(ArrayRef, &str, [&str; 2], &str, &str)> = vec![
        (
            decimal(vec![12300, 50000], 10, 4),
            "DECIMAL(10,2)",
            ["1.23", "5.00"],
            "5.00",
            "x > 1.23",
        ),
        (
            decimal(vec![12300, 50000], 10, 4),
            "DECIMAL(12,6)",
            ["1.230000", "5.000000"],
            "5.000000",
            "x > 2",
        ),
        (
            Arc::new(Int32Array::from(vec![3, -4])),
            "BIGINT",
            ["-4", "3"],
            "3",
            "x > 0",
        ),
        (
            Arc::new(Int64Array::from(vec![3, -4])),
            "INT",
            ["-4", "3"],
            "3",
            "x > 0",
        ),
        (
            Arc::new(Int64Array::from(vec![3, 20])),
            "VARCHAR",
            ["20", "3"],
            "3",
            "x > '21'",
        ),
        (
            Arc::new(Int64Array::from(vec![3, 1 << 53])),
            "DOUBLE",
            ["3.0", "9007199254740992.0"],
            "9007199254740992.0",
            "x > 4",
        ),
        (
            Arc::new(Float64Array::from(vec![3.0, -4.0])),
            "BIGINT",
            ["-4", "3"],
            "3",
            "x > 0",
        ),
        (
            Arc::new(Float64Array::from(vec![0.5, 1.5])),
            "DECIMAL(3,1)",
            ["0.5", "1.5"],
            "1.5",
            "x > 1",
        ),
        (
            Arc::new(Float32Array::from(vec![0.1, 1.5])),
            "DOUBLE",
            ["0.10000000149011612", "1.5"],
            "1.5",
            "x > 1",
        ),
        (
            Arc::new(StringArray::from(vec!["7", "10"])),
            "INT",
            ["7", "10"],
            "10",
            "x > 8",
        ),
        (
            Arc::new(Date32Array::from(vec![0, 1])),
            "TIMESTAMP(6)",
            ["1970-01-01T00:00:00", "1970-01-02T00:00:00"],
            "1970-01-02T00:00:00",
            "x > TIMESTAMP '1970-01-01T12:00:00'",
        ),
        (
            Arc::new(TimestampMicrosecondArray::from(vec![0, 86_400_000_000])),
            "DATE",
            ["1970-01-01", "1970-01-02"],
            "1970-01-02",
            "x > DATE '1970-01-01'",
        ),
        (
            Arc::new(TimestampNanosecondArray::from(vec![1000, 2000])),
            "TIMESTAMP(6)",
            ["1970-01-01T00:00:00.000001", "1970-01-01T00:00:00.000002"],
            "1970-01-01T00:00:00.000002",
            "x > TIMESTAMP '1970-01-01T00:00:00.000001'",
        ),
        (
            Arc::new(TimestampMicrosecondArray::from(vec![1, 2])),
            "TIMESTAMP",
            ["1970-01-01T00:00:00.000001", "1970-01-01T00:00:00.000002"],
            "1970-01-01T00:00:00.000002",
            "x > TIMESTAMP '1970-01-01T00:00:00.000001'",
        ),
    ];
    for (column, declared, values, greatest, second) in cases {
        let from = column.data_type().clone();
        let what = format!("{from} as {declared}");
        let folder = tempfile::tempdir().unwrap();
        let ctx = over(column, declared, folder.path()).await;
        let found = shown(&ctx, "SELECT x FROM t ORDER BY x").await;
        assert_eq!(found.unwrap(), values, "{what}");
        let found = shown(&ctx, "SELECT max(x) FROM t").await;
        assert_eq!(found.unwrap(), [greatest], "{what}");
        let found = shown(&ctx, &format!("SELECT x FROM t WHERE {second}")).await;
        assert_eq!(found.unwrap(), [greatest], "{what}");
        let found = shown(&ctx, "SELECT count(x) FROM t").await;
        assert_eq!(found.unwrap(), ["2"], "{what}");
    }
}

#[tokio::test]
async fn what_does_not_fit_is_named_with_its_file_and_column() {
    let decimal: ArrayRef = Arc::new(
        Decimal128Array::from(vec![10000, 12345])
            .with_precision_and_scale(10, 4)
            .unwrap(),
    );
    let cases: Vec<(ArrayRef, &str, &str)> = vec![
        (decimal, "DECIMAL(10,2)", "'1.2345'"),
        (
            Arc::new(TimestampMicrosecondArray::from(vec![0, 3_600_000_000])),
            "DATE",
            "'1970-01-01T01:00:00'",
        ),
        (
            Arc::new(TimestampNanosecondArray::from(vec![0, 1])),
            "TIMESTAMP(6)",
            "000000001'",
        ),
        (
            Arc::new(Int64Array::from(vec![1, 1 << 40])),
            "INT",
            "'1099511627776'",
        ),
        (
            Arc::new(Int64Array::from(vec![1, (1 << 53) + 1])),
            "DOUBLE",
            "'9007199254740993'",
        ),
        (
            Arc::new(Float64Array::from(vec![1.0, 1.5])),
            "BIGINT",
            "'1.5'",
        ),
        (
            Arc::new(Float64Array::from(vec![1.0, f64::NAN])),
            "DECIMAL(5,2)",
            "'NaN'",
        ),
        (
            Arc::new(Float64Array::from(vec![1.0, 1e300])),
            "REAL",
            "'1e300'",
        ),
        (Arc::new(Float64Array::from(vec![0.5, 0.1])), "REAL", ""),
        (
            Arc::new(StringArray::from(vec!["1", "1.7"])),
            "INT",
            "'1.7'",
        ),
        (
            Arc::new(TimestampMicrosecondArray::from(vec![
                0,
                253_402_300_799_000_000,
            ])),
            "TIMESTAMP",
            "9999-12-31",
        ),
        (
            Arc::new(BooleanArray::from(vec![true, false])),
            "BIGINT",
            "'true'",
        ),
    ];
    for (column, declared, value) in cases {
        let what = format!("{} as {declared}", column.data_type());
        let folder = tempfile::tempdir().unwrap();
        let ctx = over(column, declared, folder.path()).await;
        if value.is_empty() {
            // 0.1 is the same in REAL and DOUBLE, as it is in an INSERT.
            assert!(shown(&ctx, "SELECT x FROM t").await.is_ok(), "{what}");
            continue;
        }
        for sql in [
            "SELECT x FROM t",
            "SELECT max(x) FROM t",
            "SELECT x FROM t ORDER BY x DESC LIMIT 1",
        ] {
            let error = shown(&ctx, sql).await.unwrap_err();
            for part in ["rows.parquet", "column x", value] {
                assert!(error.contains(part), "{what}: {sql}: {error}");
            }
        }
    }
}

#[tokio::test]
async fn a_value_within_another_is_not_cut_either() {
    let list = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), Some(2)])]);
    let folder = tempfile::tempdir().unwrap();
    let ctx = over(Arc::new(list.clone()), "INT[]", folder.path()).await;
    assert_eq!(shown(&ctx, "SELECT x FROM t").await.unwrap(), ["[1, 2]"]);
    let folder = tempfile::tempdir().unwrap();
    let ctx = over(Arc::new(list), "DOUBLE[]", folder.path()).await;
    let error = shown(&ctx, "SELECT x FROM t").await.unwrap_err();
    assert!(
        error.contains("column x is") && error.contains("rows.parquet"),
        "{error}"
    );
    let field = Arc::new(Field::new("a", DataType::Float64, true));
    let inner: ArrayRef = Arc::new(Float64Array::from(vec![1.5]));
    let within = || {
        Arc::new(StructArray::from(vec![(
            Arc::clone(&field),
            Arc::clone(&inner),
        )]))
    };
    let folder = tempfile::tempdir().unwrap();
    let ctx = over(within(), "STRUCT<a DOUBLE, b BIGINT>", folder.path()).await;
    let found = shown(&ctx, "SELECT x['a'] FROM t WHERE x['b'] IS NULL").await;
    assert_eq!(found.unwrap(), ["1.5"]);
    let folder = tempfile::tempdir().unwrap();
    let ctx = over(within(), "STRUCT<a BIGINT>", folder.path()).await;
    let error = shown(&ctx, "SELECT x['a'] FROM t WHERE x['a'] > 0")
        .await
        .unwrap_err();
    assert!(
        error.contains("column x is") && error.contains("rows.parquet"),
        "{error}"
    );
}

/// A log may say another type than its files have, too.
#[tokio::test]
async fn a_delta_table_holds_what_its_files_have_or_names_the_value() {
    let decimal = || -> ArrayRef {
        let values = Decimal128Array::from(vec![10000, 12345]);
        Arc::new(values.with_precision_and_scale(10, 4).unwrap())
    };
    let moments = || Arc::new(TimestampMicrosecondArray::from(vec![0, 3_600_000_000])) as ArrayRef;
    for (column, kind, expected) in [
        (decimal(), "decimal(10,4)", Ok("1.2345")),
        (decimal(), "decimal(12,6)", Ok("1.234500")),
        (decimal(), "decimal(10,2)", Err("'1.2345'")),
        (moments(), "date", Err("'1970-01-01T01:00:00'")),
        (Arc::new(Int32Array::from(vec![1, 7])), "long", Ok("7")),
        (
            Arc::new(Int64Array::from(vec![1, 1 << 40])),
            "integer",
            Err("'1099511627776'"),
        ),
        (
            Arc::new(Float64Array::from(vec![1.0, 1.5])),
            "long",
            Err("'1.5'"),
        ),
        (
            Arc::new(Float32Array::from(vec![1.0, 1.5])),
            "double",
            Ok("1.5"),
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        over(column, "VARCHAR", folder.path()).await;
        let schema = json!({"type": "struct", "fields": [
            {"name": "x", "type": kind, "nullable": true, "metadata": {}},
        ]});
        let size = std::fs::metadata(folder.path().join("rows.parquet"))
            .unwrap()
            .len();
        let actions = [
            json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}),
            json!({"metaData": {
                "id": "54f93383-0e3a-5549-b4a8-e505e2fad9ef", "partitionColumns": [],
                "format": {"provider": "parquet", "options": {}}, "configuration": {},
                "schemaString": schema.to_string(),
            }}),
            json!({"add": {
                "path": "rows.parquet", "partitionValues": {}, "size": size,
                "modificationTime": 0, "dataChange": true,
            }}),
        ];
        let log = actions.map(|action| action.to_string()).join("\n");
        std::fs::create_dir(folder.path().join("_delta_log")).unwrap();
        let commit = folder.path().join("_delta_log/00000000000000000000.json");
        std::fs::write(commit, log).unwrap();
        let ctx = SessionContext::new();
        register(&ctx, &ConnectorOptions::default()).unwrap();
        let create = format!(
            "CREATE EXTERNAL TABLE d STORED AS DELTA LOCATION '{}'",
            folder.path().display()
        );
        rows(&ctx, &create).await.unwrap();
        let found = shown(&ctx, "SELECT max(x) FROM d").await;
        match (expected, found) {
            (Ok(expected), found) => assert_eq!(found.unwrap(), [expected], "{kind}"),
            (Err(value), found) => {
                let error = found.expect_err(kind);
                for part in ["rows.parquet", "column x", value] {
                    assert!(error.contains(part), "{kind}: {error}");
                }
            }
        }
    }
}
