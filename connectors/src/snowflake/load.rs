//! Rows on their way into the temporary table of one INSERT: the first ones as bound values, the
//! others through a stage if there are more than one statement takes.

use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema};
use futures::StreamExt;

use super::encode::{Binding, TextBatch, check_type};
use super::name::quoted;
use super::read::Reader;
use super::session::Session;
use super::stage::Stage;
use super::statement::Statement;
use crate::error::{Error, ErrorKind, Result};
use crate::sql::exchange::{Rows, Staged};
use crate::sql::staging::Staging;

/// How often a session that waits for rows says that it is alive. Snowflake ends one after four
/// hours of silence, and rows that a model writes can take that long.
const KEEP_ALIVE: Duration = Duration::from_secs(30 * 60);

/// Makes the temporary table in `session` and puts all of `rows` into it.
pub(super) async fn load(
    session: &Arc<Session>,
    staging: &Staging,
    mut rows: Rows,
) -> datafusion::error::Result<Staged> {
    for column in staging.target_columns().iter() {
        check_type(column.field.name(), column.field.data_type())?;
    }
    let mut load = Load::begin(session, staging).await?;
    loop {
        let batch = match tokio::time::timeout(KEEP_ALIVE, rows.next()).await {
            Ok(Some(batch)) => batch?,
            Ok(None) => break,
            Err(_) => {
                session.keep_alive().await.map_err(unwritten)?;
                continue;
            }
        };
        let names = staging.target_columns().schema();
        load.add(&TextBatch::new(&batch, names)?).await?;
    }
    Ok(load.finish().await?)
}

struct Load<'a> {
    session: &'a Arc<Session>,
    staging: &'a Staging,
    doing: String,
    insert: String,
    binding: Binding,
    stage: Option<Stage>,
    /// A stage may still be made.
    may_stage: bool,
    sent: u64,
}

impl<'a> Load<'a> {
    async fn begin(session: &'a Arc<Session>, staging: &'a Staging) -> Result<Self> {
        let table = quoted(&staging.target);
        let doing = format!("staging rows for {table}");
        let schema = quoted(&staging.target[..staging.target.len().saturating_sub(1)]);
        for sql in [format!("USE SCHEMA {schema}"), staging.create()] {
            let made = Statement::new(&doing, &sql).run(session).await;
            made.map_err(|e| {
                let advice = "writing needs USAGE and CREATE TABLE on the schema";
                Error::new(e.kind(), format!("{e}; {advice}")).with_source(e)
            })?;
        }
        let columns = staging.columns().fields().len();
        let marks = vec!["?"; columns].join(", ");
        let (name, names) = (staging.name(), staging.names());
        Ok(Self {
            session,
            staging,
            insert: format!("INSERT INTO {name} ({names}) VALUES ({marks})"),
            doing,
            binding: Binding::new(columns),
            stage: None,
            may_stage: session.settings.may_stage,
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
                    self.stage = Stage::create(self.session, self.staging, &self.doing).await;
                }
            }
        }
        Ok(())
    }

    /// Brings the last rows into the temporary table.
    ///
    /// # Errors
    /// Another number of rows than was sent: a request was lost, or ran twice.
    async fn finish(mut self) -> Result<Staged> {
        self.flush().await?;
        if let Some(stage) = self.stage.take() {
            stage.load(self.staging).await.map_err(unwritten)?;
        }
        let found = match self.sent {
            0 => 0,
            _ => count(self.session, self.staging, &self.doing).await?,
        };
        match found == self.sent {
            true => Ok(Staged {
                rows: self.sent,
                instead: None,
            }),
            false => Err(Error::new(
                ErrorKind::Unavailable,
                format!(
                    "{}: {} rows were sent and {found} arrived; nothing was written: run the \
                     INSERT again",
                    self.doing, self.sent
                ),
            )),
        }
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

/// The number of rows in the temporary table.
async fn count(session: &Arc<Session>, staging: &Staging, doing: &str) -> Result<u64> {
    let sql = format!("SELECT COUNT(*) AS \"N\" FROM {}", staging.name());
    let counted = Statement::new(doing, &sql).run(session).await;
    let data = counted.map_err(unwritten)?;
    let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
    let mut rows = Reader::open(session, data, &schema, 1, doing)?;
    let batch = rows.next().await?;
    let found = batch.and_then(|b| b.column(0).as_primitive::<Int64Type>().iter().next()?);
    Ok(u64::try_from(found.unwrap_or_default()).unwrap_or_default())
}

/// A failure before the target was touched.
fn unwritten(error: Error) -> Error {
    let advice = match error.kind() {
        ErrorKind::Unavailable => "nothing was written: run the INSERT again",
        _ => "nothing was written",
    };
    Error::new(error.kind(), format!("{error}; {advice}")).with_source(error)
}
