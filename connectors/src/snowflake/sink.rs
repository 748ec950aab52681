//! INSERT INTO a Snowflake table: rows go into a temporary table first, then one statement brings
//! them into the target.
//!
//! That statement is the whole transaction. Explicit BEGIN and COMMIT around it would add nothing
//! but a lock: a program killed between the two leaves the table locked until Snowflake gives up
//! on the session, hours later. Before it nothing is visible, and the temporary table goes with
//! its session. With a key it is a MERGE, so a write that is run again, after whatever end of the
//! first, adds what is missing.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::datasource::sink::DataSink;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType};
use futures::StreamExt;
use uuid::Uuid;

use super::bind::{Binding, TextBatch, check_type};
use super::columns::Columns;
use super::messages::QueryData;
use super::name::quoted;
use super::rows::Rows;
use super::session::{Session, WhenLost};
use super::settings::Settings;
use super::stage::{self, Stage};
use super::statement::Statement;
use crate::error::{Error, ErrorKind, Result};
use crate::sql::ddl::column_list;
use crate::sql::dialect::SNOWFLAKE;

/// How often a session that waits for rows says that it is alive. Snowflake ends one after four
/// hours of silence, and rows that a model writes can take that long.
const KEEP_ALIVE: Duration = Duration::from_secs(30 * 60);

/// The target of one INSERT statement.
#[derive(Debug)]
pub(super) struct SnowflakeSink {
    settings: Settings,
    target: Vec<String>,
    columns: Columns,
    key: Option<usize>,
    overwrite: bool,
}

impl SnowflakeSink {
    /// # Errors
    /// A column whose type cannot be written.
    pub(super) fn new(
        settings: Settings,
        target: Vec<String>,
        columns: Columns,
        key: Option<usize>,
        overwrite: bool,
    ) -> Result<Self> {
        for field in columns.schema().fields() {
            check_type(field.name(), field.data_type())?;
        }
        Ok(Self {
            settings,
            target,
            columns,
            key,
            overwrite,
        })
    }

    /// Returns the number of rows added.
    async fn write(&self, mut rows: SendableRecordBatchStream) -> datafusion::error::Result<u64> {
        let session = Session::new(self.settings.clone(), WhenLost::Fail)?;
        // Before the first row, so that a missing privilege shows before rows are made.
        let mut staging = Staging::create(&session, self).await?;
        loop {
            let batch = match tokio::time::timeout(KEEP_ALIVE, rows.next()).await {
                Ok(Some(batch)) => batch?,
                Ok(None) => break,
                Err(_) => {
                    session.keep_alive().await.map_err(unwritten)?;
                    continue;
                }
            };
            let batch = TextBatch::new(&batch, self.columns.schema())?;
            if let Some(key) = self.key {
                batch.check_key(key)?;
            }
            staging.add(&batch).await?;
        }
        let staged = staging.finish().await?;
        if staged.rows == 0 && !self.overwrite {
            return Ok(0);
        }
        staged.check(&session).await?;
        Ok(self.commit(&session, &staged).await?)
    }

    /// Brings the staged rows into the target, all or none.
    async fn commit(&self, session: &Arc<Session>, staged: &Staged) -> Result<u64> {
        let table = quoted(&self.target);
        let doing = format!("writing {} rows to {table}", staged.rows);
        let sql = self.commit_sql(&staged.name);
        let statement = Statement::new(&doing, &sql);
        let data = statement.run(session).await.map_err(|e| {
            let advice = match (e.kind(), self.key) {
                (ErrorKind::Unavailable, None) => {
                    "it is not known whether the rows are there: look before you run it again, and \
                     set write.key so that running it again is safe"
                }
                (ErrorKind::Unavailable, Some(_)) => "run it again: rows already there are kept",
                _ => return unwritten(e),
            };
            Error::new(e.kind(), format!("{e}; {advice}")).with_source(e)
        })?;
        Ok(affected(&data).unwrap_or(staged.rows))
    }

    fn commit_sql(&self, staging: &str) -> String {
        let table = quoted(&self.target);
        let remote = self.columns.remote();
        let names = column_list(&SNOWFLAKE, remote);
        let staged = stage::columns(remote.fields().len());
        let Some(key) = self.key else {
            let overwrite = if self.overwrite { "OVERWRITE " } else { "" };
            return format!(
                "INSERT {overwrite}INTO {table} ({names}) SELECT {staged} FROM {staging}"
            );
        };
        let (key, staged_key) = (
            SNOWFLAKE.quoted(remote.field(key).name()),
            stage::column(key),
        );
        // One row per key, whatever the rows hold and however often a request arrived.
        let once = format!(
            "SELECT {staged} FROM {staging} QUALIFY ROW_NUMBER() OVER (PARTITION BY {staged_key} \
             ORDER BY {staged_key}) = 1"
        );
        if self.overwrite {
            return format!("INSERT OVERWRITE INTO {table} ({names}) {once}");
        }
        let columns = 0..remote.fields().len();
        let values: Vec<String> = columns.map(|i| format!("s.{}", stage::column(i))).collect();
        format!(
            "MERGE INTO {table} t USING ({once}) s ON t.{key} = s.{staged_key} WHEN NOT MATCHED \
             THEN INSERT ({names}) VALUES ({})",
            values.join(", ")
        )
    }
}

/// The temporary table of one write, and the rows on their way into it: the first ones as bound
/// values, the others through a stage if there are more than one statement takes.
struct Staging<'a> {
    session: &'a Arc<Session>,
    name: String,
    doing: String,
    insert: String,
    binding: Binding,
    stage: Option<Stage>,
    /// A stage may still be made.
    may_stage: bool,
    sent: u64,
}

impl<'a> Staging<'a> {
    async fn create(session: &'a Arc<Session>, sink: &SnowflakeSink) -> Result<Self> {
        let table = quoted(&sink.target);
        let doing = format!("staging rows for {table}");
        let schema = quoted(&sink.target[..2]);
        // Needs no quotes.
        let name = format!("CASEBOOK_STAGING_{:X}", Uuid::new_v4().simple());
        let fields = sink.columns.remote().fields().iter().enumerate();
        let named: Vec<String> = fields
            .map(|(i, f)| format!("{} AS {}", SNOWFLAKE.quoted(f.name()), stage::column(i)))
            .collect();
        let named = named.join(", ");
        for sql in [
            format!("USE SCHEMA {schema}"),
            // The target's types, but none of its constraints and defaults.
            format!("CREATE TEMPORARY TABLE {name} AS SELECT {named} FROM {table} WHERE 1 = 0"),
        ] {
            let made = Statement::new(&doing, &sql).run(session).await;
            made.map_err(|e| {
                let advice = "writing needs USAGE and CREATE TABLE on the schema";
                Error::new(e.kind(), format!("{e}; {advice}")).with_source(e)
            })?;
        }
        let columns = sink.columns.schema().fields().len();
        let marks = vec!["?"; columns].join(", ");
        let names = stage::columns(columns);
        Ok(Self {
            session,
            insert: format!("INSERT INTO {name} ({names}) VALUES ({marks})"),
            name,
            doing,
            binding: Binding::new(columns),
            stage: None,
            may_stage: sink.settings.may_stage,
            sent: 0,
        })
    }

    async fn add(&mut self, batch: &TextBatch) -> Result<()> {
        let mut from = 0;
        while from < batch.rows() {
            if let Some(stage) = &mut self.stage {
                stage.add(batch, from).await.map_err(unwritten)?;
                self.sent += (batch.rows() - from) as u64;
                return Ok(());
            }
            from += self.binding.fill(batch, from);
            if from < batch.rows() {
                self.flush().await?;
                if std::mem::take(&mut self.may_stage) {
                    let name = format!("{}_FILES", self.name);
                    let columns = self.binding.columns();
                    self.stage = Stage::create(self.session, &name, columns, &self.doing).await;
                }
            }
        }
        Ok(())
    }

    /// Brings the last rows into the temporary table.
    async fn finish(mut self) -> Result<Staged> {
        self.flush().await?;
        if let Some(stage) = self.stage {
            stage.load(&self.name).await.map_err(unwritten)?;
        }
        Ok(Staged {
            name: self.name,
            doing: self.doing,
            rows: self.sent,
        })
    }

    async fn flush(&mut self) -> Result<()> {
        let rows = self.binding.rows() as u64;
        if rows == 0 {
            return Ok(());
        }
        let values = self.binding.take();
        let statement = Statement {
            bindings: Some(&values),
            ..Statement::new(&self.doing, &self.insert)
        };
        statement.run(self.session).await.map_err(unwritten)?;
        self.sent += rows;
        Ok(())
    }
}

/// The temporary table of one write when all rows are in.
struct Staged {
    name: String,
    doing: String,
    /// How many were sent.
    rows: u64,
}

impl Staged {
    /// # Errors
    /// Another number of rows than was sent: a request was lost, or ran twice.
    async fn check(&self, session: &Arc<Session>) -> Result<()> {
        let sql = format!("SELECT COUNT(*) AS \"N\" FROM {}", self.name);
        let counted = Statement::new(&self.doing, &sql).run(session).await;
        let data = counted.map_err(unwritten)?;
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
        let mut rows = Rows::open(session, data, &schema, 1, &self.doing)?;
        let batch = rows.next().await?;
        let found = batch.and_then(|b| b.column(0).as_primitive::<Int64Type>().iter().next()?);
        match u64::try_from(found.unwrap_or(-1)) {
            Ok(found) if found == self.rows => Ok(()),
            _ => Err(Error::new(
                ErrorKind::Unavailable,
                format!(
                    "{}: {} rows were sent and {} arrived; nothing was written: run the INSERT \
                     again",
                    self.doing,
                    self.rows,
                    found.unwrap_or_default()
                ),
            )),
        }
    }
}

/// A failure before the target was touched.
fn unwritten(error: Error) -> Error {
    let advice = match error.kind() {
        ErrorKind::Unavailable => "nothing was written: run the INSERT again",
        _ => "nothing was written",
    };
    Error::new(error.kind(), format!("{error}; {advice}")).with_source(error)
}

/// The number of rows that a statement says it changed.
fn affected(data: &QueryData) -> Option<u64> {
    let first = data.rowset.as_ref()?.first()?.first()?;
    match first.as_str() {
        Some(text) => text.parse().ok(),
        None => first.as_u64(),
    }
}

impl DisplayAs for SnowflakeSink {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SnowflakeSink: table={}", quoted(&self.target))?;
        match self.key {
            Some(key) => write!(f, ", write.key={}", self.columns.schema().field(key).name()),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl DataSink for SnowflakeSink {
    fn schema(&self) -> &SchemaRef {
        self.columns.schema()
    }

    async fn write_all(
        &self,
        data: SendableRecordBatchStream,
        _: &Arc<TaskContext>,
    ) -> datafusion::error::Result<u64> {
        self.write(data).await
    }
}
