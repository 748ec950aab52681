//! STORED AS DATABRICKS against a fake workspace.

mod catalog;
mod files;
mod hostile;
mod reads;
mod serve;
mod slow;
mod writes;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use axum::http::StatusCode;
use casebook_connectors::{ConnectorOptions, register};
use datafusion::arrow::array::{Int64Array, RecordBatch, StringViewArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::prelude::{SessionConfig, SessionContext};
use serde_json::{Value, json};

use crate::fake::databricks::{Fake, SECRETS, TOKEN};

/// A session with our connectors; one partition, so that rows keep their order.
fn session() -> SessionContext {
    let config = SessionConfig::new()
        .with_target_partitions(1)
        .with_batch_size(256);
    let ctx = SessionContext::new_with_config(config);
    let options = ConnectorOptions {
        table_schemas: vec![("qa_pairs", qa_schema())],
        ..ConnectorOptions::default()
    };
    register(&ctx, &options).unwrap();
    ctx
}

/// A small contract.
fn qa_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("qa_id", DataType::Utf8View, true),
        Field::new("question", DataType::Utf8View, true),
        Field::new("chunk_no", DataType::Int32, true),
        Field::new("grounding", DataType::Float32, true),
    ]))
}

/// `rows` cases: id, text.
fn cases(rows: i64) -> RecordBatch {
    let schema = Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("text", DataType::Utf8View, true),
    ]);
    let texts =
        (0..rows).map(|i| format!("text {i} 'quoted' \\ é\n{}", "x".repeat(i as usize % 50)));
    RecordBatch::try_new(
        Arc::new(schema),
        vec![
            Arc::new(Int64Array::from_iter_values(0..rows)),
            Arc::new(StringViewArray::from_iter_values(texts)),
        ],
    )
    .unwrap()
}

/// Options that sign in with the token and know a warehouse, and `more`, which can replace them.
fn options(fake: &Fake, more: &[(&str, &str)]) -> HashMap<String, String> {
    let mut options = HashMap::from([
        ("databricks.host".to_owned(), fake.url.clone()),
        ("databricks.token".to_owned(), TOKEN.to_owned()),
        ("databricks.warehouse_id".to_owned(), "wh1".to_owned()),
        ("databricks.allow_local_files".to_owned(), "true".to_owned()),
    ]);
    for (key, value) in more {
        match *value {
            "" => options.remove(*key),
            value => options.insert((*key).to_owned(), value.to_owned()),
        };
    }
    options
}

/// CREATE EXTERNAL TABLE `table` for main.legal.`table`.
async fn create(
    ctx: &SessionContext,
    fake: &Fake,
    table: &str,
    more: &[(&str, &str)],
) -> datafusion::error::Result<()> {
    create_at(ctx, fake, table, &format!("main.legal.{table}"), more).await
}

async fn create_at(
    ctx: &SessionContext,
    fake: &Fake,
    table: &str,
    location: &str,
    more: &[(&str, &str)],
) -> datafusion::error::Result<()> {
    let options: Vec<String> = options(fake, more)
        .iter()
        .map(|(key, value)| format!("'{key}' '{value}'"))
        .collect();
    let sql = format!(
        "CREATE EXTERNAL TABLE {table} STORED AS DATABRICKS LOCATION '{location}' OPTIONS ({})",
        options.join(", ")
    );
    ctx.sql(&sql).await.map(drop)
}

async fn query(ctx: &SessionContext, sql: &str) -> datafusion::error::Result<Vec<RecordBatch>> {
    ctx.sql(sql).await?.collect().await
}

async fn shown(ctx: &SessionContext, sql: &str) -> String {
    let batches = query(ctx, sql).await.unwrap();
    pretty_format_batches(&batches).unwrap().to_string()
}

/// The message of an error and of all its causes; no secret is in it.
fn message(error: &dyn std::error::Error) -> String {
    let mut all = format!("{error}\n{error:?}");
    let mut cause = error.source();
    while let Some(inner) = cause {
        all = format!("{all}\n{inner}\n{inner:?}");
        cause = inner.source();
    }
    assert_no_secret(&all);
    error.to_string()
}

fn assert_no_secret(text: &str) {
    for secret in SECRETS {
        assert!(!text.contains(secret), "{secret} is in {text}");
    }
}

fn assert_has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "'{part}' is not in: {text}");
    }
}

/// A Delta table at `path` with `rows` cases, each batch of `per_file` in a file.
async fn delta_cases(path: &Path, rows: i64, per_file: usize) {
    let batch = cases(rows);
    let url = url::Url::from_directory_path(path).unwrap();
    let mut table = deltalake::DeltaTable::try_from_url(url).await.unwrap();
    for at in (0..batch.num_rows()).step_by(per_file) {
        let part = batch.slice(at, per_file.min(batch.num_rows() - at));
        table = table.write(vec![part]).await.unwrap();
    }
}

/// Vending for tables on the local disk: no credentials, no expiration.
fn no_keys(_: u32, _: &str) -> (StatusCode, Value) {
    (StatusCode::OK, json!({"url": "file:///"}))
}
