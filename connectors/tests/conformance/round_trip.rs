//! What is written is what is read: every type that a format holds, with the values at its edges.

use std::sync::Arc;

use casebook_connectors::{ConnectorOptions, register};
use datafusion::arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array,
    Int64Array, ListBuilder, RecordBatch, StringBuilder, StringViewArray, StructArray,
    Time64MicrosecondArray, TimestampMicrosecondArray, TimestampMillisecondArray,
    TimestampNanosecondArray, UInt64Array, new_null_array,
};
use datafusion::arrow::compute::{cast, concat_batches};
use datafusion::arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::prelude::{SessionConfig, SessionContext};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

const FORMATS: [&str; 4] = ["CSV", "JSON", "PARQUET", "DELTA"];
/// Microseconds of the years 1 to 9999.
const MICROSECONDS: std::ops::Range<i64> = -62_135_596_800_000_000..253_402_300_800_000_000;
/// A day less than that at both ends, for zones.
const SECONDS: std::ops::Range<i64> = -62_135_510_400..253_402_214_400;

/// One value of each type.
#[derive(Debug, Clone)]
struct Row {
    text: Option<String>,
    integer: Option<i64>,
    double: Option<f64>,
    real: Option<f32>,
    truth: Option<bool>,
    day: Option<i32>,
    moment: Option<i64>,
    nanosecond: Option<i64>,
    second: Option<i64>,
    time: Option<i64>,
    decimal: Option<i128>,
    bytes: Option<Vec<u8>>,
    list: Option<Vec<Option<String>>>,
    /// A struct of a number and a text.
    pair: Option<(Option<i64>, Option<String>)>,
}

fn text() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "", "\"", "'", "\\", ",", "\t", "\n", "\r\n", "#", "NULL", "null", "\\N", "a", "7", "=1+1",
        " ", "é", "漢", "\u{feff}", "\u{1}", "{", "[", "\u{2028}",
    ]);
    prop::collection::vec(pieces, 0..4).prop_map(|pieces| pieces.concat())
}

fn row() -> impl Strategy<Value = Row> {
    let maybe = prop::option::weighted::<BoxedStrategy<i64>>;
    let day = prop_oneof![Just(-1), Just(0), -719_162..2_932_897i32];
    let moment = prop_oneof![Just(-1), Just(MICROSECONDS.end - 1), MICROSECONDS];
    let second = prop_oneof![Just(-1), Just(SECONDS.end - 1), SECONDS];
    let limit = 10i128.pow(38) - 1;
    let decimal = prop_oneof![Just(limit), Just(-limit), Just(1), -limit..limit];
    let double = prop_oneof![
        Just(0.1),
        Just(f64::MAX),
        Just(f64::MIN_POSITIVE),
        prop::num::f64::NORMAL
    ];
    let numbers = (
        maybe(
            0.8,
            prop_oneof![Just(i64::MIN), Just((1 << 53) + 1), any::<i64>()].boxed(),
        ),
        prop::option::of(double),
        prop::option::of(prop::num::f32::NORMAL),
        prop::option::of(any::<bool>()),
        prop::option::of(decimal),
    );
    let moments = (
        prop::option::of(day),
        maybe(0.8, moment.boxed()),
        maybe(0.8, any::<i64>().boxed()),
        maybe(0.8, second.boxed()),
        maybe(0.8, (0..86_400_000_000i64).boxed()),
    );
    let others = (
        prop::option::of(text()),
        prop::option::of(prop::collection::vec(any::<u8>(), 0..4)),
        prop::option::of(prop::collection::vec(prop::option::of(text()), 0..3)),
        prop::option::of((prop::option::of(any::<i64>()), prop::option::of(text()))),
    );
    (numbers, moments, others).prop_map(|(numbers, moments, others)| {
        let (integer, double, real, truth, decimal) = numbers;
        let (day, moment, nanosecond, second, time) = moments;
        let (text, bytes, list, pair) = others;
        Row {
            text,
            integer,
            double,
            real,
            truth,
            day,
            moment,
            nanosecond,
            second,
            time,
            decimal,
            bytes,
            list,
            pair,
        }
    })
}

/// The rows in the columns that `format` holds.
fn batch(rows: &[Row], format: &str) -> RecordBatch {
    let of = |get: fn(&Row) -> Option<i64>| rows.iter().map(get).collect::<Vec<_>>();
    let (moments, seconds) = (of(|r| r.moment), of(|r| r.second));
    let milliseconds: Vec<Option<i64>> = seconds.iter().map(|s| s.map(|s| s * 1000 + 7)).collect();
    let real: Float32Array = rows.iter().map(|r| r.real).collect();
    let mut columns: Vec<(&str, ArrayRef)> = vec![
        (
            "no",
            Arc::new(Int64Array::from_iter_values(0..rows.len() as i64)),
        ),
        (
            "text",
            Arc::new(StringViewArray::from_iter(
                rows.iter().map(|r| r.text.as_deref()),
            )),
        ),
        ("integer", Arc::new(Int64Array::from(of(|r| r.integer)))),
        (
            "double",
            Arc::new(rows.iter().map(|r| r.double).collect::<Float64Array>()),
        ),
        ("real", Arc::new(real)),
        (
            "truth",
            Arc::new(rows.iter().map(|r| r.truth).collect::<BooleanArray>()),
        ),
        (
            "day",
            Arc::new(rows.iter().map(|r| r.day).collect::<Date32Array>()),
        ),
        (
            "moment",
            Arc::new(TimestampMicrosecondArray::from(moments.clone())),
        ),
        (
            "instant",
            Arc::new(TimestampMicrosecondArray::from(moments).with_timezone("UTC")),
        ),
        (
            "decimal",
            Arc::new(
                rows.iter()
                    .map(|r| r.decimal)
                    .collect::<Decimal128Array>()
                    .with_precision_and_scale(38, 10)
                    .unwrap(),
            ),
        ),
    ];
    if format != "DELTA" {
        // Delta has microseconds, UTC and no time of day.
        let elsewhere = TimestampMillisecondArray::from(milliseconds).with_timezone("+02:00");
        columns.push(("elsewhere", Arc::new(elsewhere)));
        let nanoseconds = TimestampNanosecondArray::from(of(|r| r.nanosecond));
        columns.push(("nanosecond", Arc::new(nanoseconds)));
        let times = Time64MicrosecondArray::from(of(|r| r.time));
        columns.push(("time", Arc::new(times)));
        let large: UInt64Array = rows.iter().map(|r| r.integer.map(|i| i as u64)).collect();
        columns.push(("large", Arc::new(large)));
    }
    if format == "PARQUET" || format == "DELTA" {
        let bytes: BinaryArray = rows.iter().map(|r| r.bytes.as_deref()).collect();
        columns.push(("bytes", Arc::new(bytes)));
    }
    if format != "CSV" {
        let mut lists = ListBuilder::new(StringBuilder::new());
        for row in rows {
            match &row.list {
                Some(list) => lists.append_value(list.iter().map(Option::as_deref)),
                None => lists.append_null(),
            }
        }
        columns.push(("list", Arc::new(lists.finish())));
        let pairs = rows.iter().map(|r| r.pair.clone());
        let (valid, pairs): (Vec<bool>, Vec<_>) =
            pairs.map(|p| (p.is_some(), p.unwrap_or_default())).unzip();
        let (numbers, texts): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        let fields = Fields::from(vec![
            Field::new("a", DataType::Int64, true),
            Field::new("b", DataType::Utf8, true),
        ]);
        let mut names = StringBuilder::new();
        names.extend(texts);
        let parts: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(numbers)),
            Arc::new(names.finish()),
        ];
        let pairs = StructArray::new(fields, parts, Some(valid.into()));
        columns.push(("pair", Arc::new(pairs)));
    }
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true)))
        .unwrap()
}

fn session(schema: SchemaRef) -> SessionContext {
    let ctx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
    let options = ConnectorOptions {
        table_schemas: vec![("typed", schema)],
        ..ConnectorOptions::default()
    };
    register(&ctx, &options).unwrap();
    ctx
}

/// The columns of `rows` as texts, null apart from every text.
fn shown(rows: &RecordBatch, schema: &Schema) -> Vec<(String, Vec<String>)> {
    let options = FormatOptions::new().with_null("∅");
    let columns = schema.fields().iter().map(|field| {
        let column = rows.column_by_name(field.name()).unwrap();
        let zoned = match field.data_type() {
            // A zone may be written in another way.
            DataType::Timestamp(unit, Some(_)) => DataType::Timestamp(*unit, Some("UTC".into())),
            other => other.clone(),
        };
        let column = cast(column, &zoned).unwrap();
        let values = ArrayFormatter::try_new(&column, &options).unwrap();
        let values = (0..column.len()).map(|row| format!("{:?}", values.value(row).to_string()));
        (field.name().clone(), values.collect())
    });
    columns.collect()
}

async fn written_and_read(format: &str, rows: &RecordBatch) -> RecordBatch {
    let folder = tempfile::tempdir().unwrap();
    let ctx = session(rows.schema());
    let create = format!(
        "CREATE EXTERNAL TABLE t STORED AS {format} LOCATION '{}/t/' \
         OPTIONS ('table.create' 'typed')",
        folder.path().display()
    );
    ctx.sql(&create).await.unwrap().collect().await.unwrap();
    let frame = ctx.read_batch(rows.clone()).unwrap();
    let written = frame.write_table("t", DataFrameWriteOptions::new()).await;
    written.unwrap_or_else(|e| panic!("{format}: {e}"));
    let frame = ctx.sql("SELECT * FROM t ORDER BY no").await.unwrap();
    let schema = Arc::new(frame.schema().as_arrow().clone());
    let read = frame
        .collect()
        .await
        .unwrap_or_else(|e| panic!("{format}: {e}"));
    concat_batches(&read.first().map_or(schema, |b| b.schema()), &read).unwrap()
}

#[test]
fn every_type_is_read_as_it_was_written() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut runner = TestRunner::new(ProptestConfig::with_cases(24));
    let rows = prop::collection::vec(row(), 1..12);
    runner
        .run(&rows, |rows| {
            for format in FORMATS {
                let given = batch(&rows, format);
                let read = runtime.block_on(written_and_read(format, &given));
                let schema = given.schema();
                let pairs = shown(&given, &schema)
                    .into_iter()
                    .zip(shown(&read, &schema));
                for (given, read) in pairs {
                    prop_assert_eq!(given, read, "{}", format);
                }
            }
            Ok(())
        })
        .unwrap();
}

/// What a format cannot hold is refused by name, not written as something else.
#[tokio::test]
async fn what_a_format_does_not_have_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let nested = DataType::List(Arc::new(Field::new_list_field(DataType::Int64, true)));
    for (format, kind, part) in [
        ("CSV", DataType::Binary, "base64"),
        ("CSV", nested, "STORED AS JSON"),
        (
            "CSV",
            DataType::Duration(TimeUnit::Second),
            "cast it to VARCHAR",
        ),
        (
            "DELTA",
            DataType::Time64(TimeUnit::Microsecond),
            "which Delta Lake cannot hold",
        ),
    ] {
        let schema = Arc::new(Schema::new(vec![Field::new("x", kind.clone(), true)]));
        let ctx = session(Arc::clone(&schema));
        let create = format!(
            "CREATE EXTERNAL TABLE t STORED AS {format} LOCATION '{}/{format}-{}/' \
             OPTIONS ('table.create' 'typed')",
            folder.path().display(),
            part.len()
        );
        let made = async {
            ctx.sql(&create).await?.collect().await?;
            let one = RecordBatch::try_new(schema, vec![new_null_array(&kind, 1)])?;
            let frame = ctx.read_batch(one)?;
            frame.write_table("t", DataFrameWriteOptions::new()).await
        };
        let error = made.await.unwrap_err().to_string();
        assert!(
            error.contains("column x") && error.contains(part),
            "{format} {kind}: {error}"
        );
    }
}
