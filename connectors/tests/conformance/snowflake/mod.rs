//! Snowflake tables on fakesnow, an emulator of the service, and on a server of our own with faults.
//!
//! `eval "$(tests/services/fakesnow.sh start)"` starts the emulator.

mod faults;
mod filters;
mod hostile;
mod reads;
mod slow;
mod stages;
mod writes;

use std::sync::Arc;

use casebook_connectors::ConnectorOptions;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::error::Result;
use datafusion::prelude::SessionContext;
use serde_json::{Value, json};

/// The emulator's address; None prints that the test is skipped.
pub(crate) fn service() -> Option<String> {
    match std::env::var("CASEBOOK_TEST_SNOWFLAKE") {
        Ok(url) => Some(url),
        Err(_) if std::env::var("CASEBOOK_REQUIRE_SERVICES").as_deref() == Ok("1") => {
            panic!("CASEBOOK_TEST_SNOWFLAKE is not set, but services are required")
        }
        Err(_) => {
            eprintln!("skipped: CASEBOOK_TEST_SNOWFLAKE is not set; start fakesnow to run it");
            None
        }
    }
}

/// A session of the emulator that runs anything; logging in makes the database.
pub(crate) struct Admin {
    url: String,
    token: String,
    http: reqwest::Client,
}

impl Admin {
    pub(crate) async fn new(url: &str, database: &str) -> Self {
        let http = reqwest::Client::new();
        let place = [("databaseName", database), ("schemaName", "PUBLIC")];
        let login = http
            .post(format!("{url}/session/v1/login-request"))
            .query(&place)
            .json(&json!({"data": {"SESSION_PARAMETERS": {}}}));
        let reply: Value = login.send().await.unwrap().json().await.unwrap();
        Self {
            url: url.to_owned(),
            token: reply["data"]["token"].as_str().unwrap().to_owned(),
            http,
        }
    }

    pub(crate) async fn run(&self, sql: &str) {
        let request = self
            .http
            .post(format!("{}/queries/v1/query-request", self.url))
            .header(
                "authorization",
                format!("Snowflake Token=\"{}\"", self.token),
            )
            .json(&json!({"sqlText": sql}));
        let reply: Value = request.send().await.unwrap().json().await.unwrap();
        assert_eq!(reply["success"], true, "{sql}: {}", reply["message"]);
    }
}

pub(crate) fn qa_pairs() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("qa_id", DataType::Utf8View, true),
        Field::new("chunk_no", DataType::Int32, true),
        Field::new("chunk_start", DataType::Int64, true),
        Field::new("answer", DataType::Utf8View, true),
        Field::new("grounding", DataType::Float32, true),
    ]))
}

fn context() -> SessionContext {
    let ctx = SessionContext::new();
    let options = ConnectorOptions {
        table_schemas: vec![("qa_pairs", qa_pairs())],
        ..ConnectorOptions::default()
    };
    casebook_connectors::register(&ctx, &options).unwrap();
    ctx
}

fn ddl(url: &str, columns: &str, location: &str, more: &str) -> String {
    format!(
        "CREATE OR REPLACE EXTERNAL TABLE t {columns} STORED AS SNOWFLAKE LOCATION '{location}' \
         OPTIONS ('snowflake.account' 'acct', 'snowflake.host' '{url}', 'snowflake.allow_http' 'true', 'snowflake.user' 'me', \
         'snowflake.password' 'hunter2' {more})"
    )
}

pub(crate) async fn run(ctx: &SessionContext, sql: &str) -> Result<Vec<RecordBatch>> {
    ctx.sql(sql).await?.collect().await
}

pub(crate) async fn table(
    url: &str,
    columns: &str,
    location: &str,
    more: &str,
) -> Result<SessionContext> {
    let ctx = context();
    run(&ctx, &ddl(url, columns, location, more)).await?;
    Ok(ctx)
}

pub(crate) fn shown(batches: &[RecordBatch]) -> String {
    pretty_format_batches(batches).unwrap().to_string()
}
