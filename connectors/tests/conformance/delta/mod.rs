//! Delta tables: golden ones and ones written here.

mod bounds;
mod concurrent;
mod creation;
mod golden;
mod hostile;
mod reading;
mod writing;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use casebook_connectors::{ConnectorOptions, register};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DataType, Field, Schema, UInt64Type};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::prelude::{SessionConfig, SessionContext};

/// A session with all connectors, four partitions, and schemas to create tables with.
fn session() -> SessionContext {
    let ctx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(4));
    let schema = |columns: &[(&str, DataType)]| {
        let fields = columns.iter();
        let fields: Vec<_> = fields
            .map(|(name, t)| Field::new(*name, t.clone(), true))
            .collect();
        Arc::new(Schema::new(fields))
    };
    use DataType::{Float64, Int64, Utf8View};
    let options = ConnectorOptions {
        table_schemas: vec![
            (
                "pairs",
                schema(&[
                    ("qa_id", Utf8View),
                    ("answer", Utf8View),
                    ("status", Utf8View),
                ]),
            ),
            (
                "numbers",
                schema(&[("id", Int64), ("name", Utf8View), ("score", Float64)]),
            ),
            (
                "odd",
                schema(&[
                    ("Ünï\"code", Utf8View),
                    ("select", Int64),
                    ("it's", Int64),
                    ("x.y", Int64),
                    ("CamelCase", Int64),
                ]),
            ),
        ],
        accepted: Some(casebook_connectors::AcceptedRows {
            column: "status",
            value: "ok",
        }),
        ..Default::default()
    };
    register(&ctx, &options).unwrap();
    ctx
}

/// The batches of `sql`, or the whole error.
async fn try_run(ctx: &SessionContext, sql: &str) -> Result<Vec<RecordBatch>, String> {
    let frame = ctx.sql(sql).await.map_err(|e| e.to_string())?;
    frame.collect().await.map_err(|e| e.to_string())
}

async fn run(ctx: &SessionContext, sql: &str) -> Vec<RecordBatch> {
    try_run(ctx, sql)
        .await
        .unwrap_or_else(|e| panic!("{sql}: {e}"))
}

/// The rows of `sql` as text, one line each.
async fn rows(ctx: &SessionContext, sql: &str) -> Vec<String> {
    let options = FormatOptions::default().with_null("null");
    let mut out = vec![];
    for batch in run(ctx, sql).await {
        let columns = batch.columns().iter();
        let columns: Vec<_> = columns
            .map(|c| ArrayFormatter::try_new(c.as_ref(), &options).unwrap())
            .collect();
        for row in 0..batch.num_rows() {
            let cells: Vec<String> = columns.iter().map(|c| c.value(row).to_string()).collect();
            out.push(cells.join(" | "));
        }
    }
    out
}

/// The number of rows that an INSERT says it added.
async fn insert(ctx: &SessionContext, sql: &str) -> u64 {
    use datafusion::arrow::array::AsArray;
    run(ctx, sql).await[0]
        .column(0)
        .as_primitive::<UInt64Type>()
        .value(0)
}

async fn error(ctx: &SessionContext, sql: &str) -> String {
    match try_run(ctx, sql).await {
        Ok(_) => panic!("{sql}: no error"),
        Err(error) => error,
    }
}

/// CREATE EXTERNAL TABLE with the given OPTIONS, as `'key' 'value', ...`.
fn create(name: &str, location: &Path, options: &str) -> String {
    let options = match options {
        "" => String::new(),
        options => format!(" OPTIONS ({options})"),
    };
    format!(
        "CREATE EXTERNAL TABLE {name} STORED AS DELTA LOCATION '{}'{options}",
        location.display()
    )
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/delta")
        .join(name)
}

/// A copy of a golden table that may be written to.
fn copied(name: &str, into: &Path) -> PathBuf {
    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let target = to.join(entry.file_name());
            match entry.file_type().unwrap().is_dir() {
                true => copy(&entry.path(), &target),
                false => drop(std::fs::copy(entry.path(), target).unwrap()),
            }
        }
    }
    let to = into.join(name);
    copy(&golden(name), &to);
    to
}

/// Names of the Parquet files below `table`.
fn parquet_files(table: &Path) -> Vec<PathBuf> {
    let mut out = vec![];
    for entry in std::fs::read_dir(table).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            out.extend(parquet_files(&path));
        } else if path.extension().is_some_and(|e| e == "parquet") {
            out.push(path);
        }
    }
    out
}
