//! ODBC against PostgreSQL (tests/services/postgres.sh) and SQLite (tests/services/sqlite.sh).

mod create;
mod failures;
mod filters;
mod hostile;
mod read;
mod stream;
mod write;

use std::sync::Arc;

use casebook_connectors::{ConnectorOptions, register};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::error::Result;
use datafusion::prelude::{SessionConfig, SessionContext};
use odbc_api::{ConnectionOptions, Cursor, environment};

/// A database of one test.
pub(crate) struct Source {
    pub(crate) connection: String,
    /// Begins the LOCATION of a table: a schema of the test's own, or nothing.
    pub(crate) prefix: String,
    /// Holds the file of SQLite.
    _dir: Option<tempfile::TempDir>,
}

fn service(variable: &str, script: &str) -> Option<String> {
    match std::env::var(variable) {
        Ok(value) => Some(value),
        Err(_) => {
            let required = std::env::var("CASEBOOK_REQUIRE_SERVICES").is_ok_and(|v| v == "1");
            assert!(
                !required,
                "{variable} is not set: run eval \"$({script} start)\""
            );
            eprintln!("skipped: {variable} is not set; run eval \"$({script} start)\"");
            None
        }
    }
}

impl Source {
    /// PostgreSQL with an empty schema called `name`.
    pub(crate) fn postgres(name: &str) -> Option<Self> {
        let connection = service("CASEBOOK_TEST_ODBC_POSTGRES", "tests/services/postgres.sh")?;
        let source = Self {
            connection,
            prefix: format!("{name}."),
            _dir: None,
        };
        source.run(&format!("DROP SCHEMA IF EXISTS {name} CASCADE"));
        source.run(&format!("CREATE SCHEMA {name}"));
        Some(source)
    }

    /// An empty SQLite file.
    pub(crate) fn sqlite() -> Option<Self> {
        let driver = service("CASEBOOK_TEST_ODBC_SQLITE", "tests/services/sqlite.sh")?;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("test.db");
        Some(Self {
            connection: format!("Driver={{{driver}}};Database={};", file.display()),
            prefix: String::new(),
            _dir: Some(dir),
        })
    }

    /// Both, where they are running.
    pub(crate) fn all(name: &str) -> Vec<Self> {
        Self::postgres(name)
            .into_iter()
            .chain(Self::sqlite())
            .collect()
    }

    /// `name` as SQL of the source.
    pub(crate) fn table(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Runs a statement beside Casebook.
    pub(crate) fn run(&self, sql: &str) {
        let environment = environment().unwrap();
        let options = ConnectionOptions::default();
        let connection = environment
            .connect_with_connection_string(&self.connection, options)
            .unwrap();
        connection
            .execute(sql, (), None)
            .unwrap_or_else(|e| panic!("{sql}: {e}"));
    }

    /// The first value that `sql` finds, beside Casebook.
    pub(crate) fn value(&self, sql: &str) -> String {
        let environment = environment().unwrap();
        let options = ConnectionOptions::default();
        let connection = environment
            .connect_with_connection_string(&self.connection, options)
            .unwrap();
        let mut cursor = connection.execute(sql, (), None).unwrap().unwrap();
        let mut text = vec![];
        cursor
            .next_row()
            .unwrap()
            .unwrap()
            .get_text(1, &mut text)
            .unwrap();
        String::from_utf8(text).unwrap()
    }

    /// `CREATE EXTERNAL TABLE name` for the table of that name.
    pub(crate) async fn create(&self, ctx: &SessionContext, name: &str) {
        self.create_with(ctx, name, name, &[]).await.unwrap();
    }

    /// The same with a name of its own and options.
    pub(crate) async fn create_with(
        &self,
        ctx: &SessionContext,
        name: &str,
        location: &str,
        options: &[(&str, &str)],
    ) -> Result<()> {
        let location = format!("{}{location}", self.prefix);
        create(ctx, name, &location, &self.connection, options).await
    }
}

/// `CREATE EXTERNAL TABLE name STORED AS ODBC`.
pub(crate) async fn create(
    ctx: &SessionContext,
    name: &str,
    location: &str,
    connection: &str,
    options: &[(&str, &str)],
) -> Result<()> {
    let mut all = vec![("odbc.connection_string", connection)];
    all.extend(options);
    let quoted: Vec<String> = all
        .iter()
        .map(|(k, v)| format!("'{k}' '{}'", v.replace('\'', "''")))
        .collect();
    let sql = format!(
        "CREATE EXTERNAL TABLE {name} STORED AS ODBC LOCATION '{location}' OPTIONS ({})",
        quoted.join(", ")
    );
    ctx.sql(&sql).await.map(drop)
}

/// A session that knows the connectors and a small declared schema.
pub(crate) fn session() -> SessionContext {
    let config = SessionConfig::new()
        .with_batch_size(256)
        .with_target_partitions(2);
    let ctx = SessionContext::new_with_config(config);
    let pairs = Schema::new(vec![
        Field::new("qa_id", DataType::Utf8View, true),
        Field::new("chunk_no", DataType::Int32, true),
        Field::new("chunk_start", DataType::Int64, true),
        Field::new("answer", DataType::Utf8View, true),
        Field::new("grounding", DataType::Float32, true),
    ]);
    let options = ConnectorOptions {
        table_schemas: vec![("qa_pairs", Arc::new(pairs))],
        ..ConnectorOptions::default()
    };
    register(&ctx, &options).unwrap();
    ctx
}

pub(crate) async fn batches(ctx: &SessionContext, sql: &str) -> Vec<RecordBatch> {
    ctx.sql(sql)
        .await
        .unwrap()
        .collect()
        .await
        .unwrap_or_else(|e| panic!("{sql}: {e}"))
}

/// The result as a table of text.
pub(crate) async fn shown(ctx: &SessionContext, sql: &str) -> String {
    pretty_format_batches(&batches(ctx, sql).await)
        .unwrap()
        .to_string()
}

/// The only value of the result.
pub(crate) async fn one(ctx: &SessionContext, sql: &str) -> String {
    let table = shown(ctx, sql).await;
    let line = table
        .lines()
        .nth(3)
        .unwrap_or_else(|| panic!("no rows: {sql}"));
    line.trim_matches(['|', ' ']).to_owned()
}
