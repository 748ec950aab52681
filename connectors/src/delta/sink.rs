//! INSERT INTO a Delta table: files first, one commit at the end, per table.
//!
//! Rows stream into Parquet files; nothing is visible before the commit. Where rejected rows go to
//! a table of their own, that one is committed first, under the same application transaction or
//! key: a run that is killed between the two leaves the main table without its record, so that the
//! next run writes it, and finds the rejects already there. The plan that makes the rows runs once.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{AsArray, BooleanArray, RecordBatch};
use datafusion::arrow::compute::{cast, filter_record_batch, not};
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::datasource::sink::DataSink;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType};
use futures::StreamExt;

use super::checks::relaxed;
use super::options::WriteOptions;
use super::scan;
use super::source::DeltaSource;
use super::target::Target;
use crate::declared;
use crate::error::{Error, ErrorKind, Result};

/// The column that tells rejected rows, and what it says of others.
pub(super) const STATUS: (&str, &str) = ("status", "ok");

/// The target of one INSERT statement.
#[derive(Debug)]
pub(super) struct DeltaSink {
    source: DeltaSource,
    declared: SchemaRef,
    /// For rows not yet checked: a null in a NOT NULL column is told by the table's conditions,
    /// which name the row.
    schema: SchemaRef,
    options: WriteOptions,
    overwrite: bool,
}

impl DeltaSink {
    pub(super) fn new(
        source: DeltaSource,
        schema: SchemaRef,
        options: WriteOptions,
        overwrite: bool,
    ) -> Self {
        Self {
            source,
            schema: Arc::new(relaxed(&schema)),
            declared: schema,
            options,
            overwrite,
        }
    }

    /// Returns the number of rows added, rejected ones included.
    async fn write(&self, rows: SendableRecordBatchStream) -> datafusion::error::Result<u64> {
        let table = self.source.open().await?;
        let mut main = Target::new(&self.source, table, &self.options, self.overwrite).await?;
        if main.is_done() {
            return Ok(0);
        }
        let mut rejects = match self.options.separate_rejects {
            true => Some(self.rejects().await?),
            false => None,
        };
        let streamed = self.stream(rows, &mut main, rejects.as_mut()).await;
        let committed = match streamed {
            Ok(()) => commit(&mut main, rejects.as_mut())
                .await
                .map_err(Into::into),
            Err(error) => Err(error),
        };
        if committed.is_err() {
            // Whoever has committed, or may have, holds no files any more.
            main.discard().await;
            if let Some(rejects) = &mut rejects {
                rejects.discard().await;
            }
        }
        committed
    }

    async fn rejects(&self) -> Result<Target> {
        let source = self.source.rejects();
        let table = match source.open().await {
            Ok(table) => table,
            Err(e) if e.kind() == ErrorKind::NotFound => source.create(&self.declared).await?,
            Err(e) => return Err(e),
        };
        let columns = scan::provider(&table, source.location())?.schema();
        declared::check_same(&self.declared, &columns, source.location())?;
        Target::new(&source, table, &self.options, self.overwrite).await
    }

    async fn stream(
        &self,
        mut rows: SendableRecordBatchStream,
        main: &mut Target,
        mut rejects: Option<&mut Target>,
    ) -> datafusion::error::Result<()> {
        while let Some(batch) = rows.next().await.transpose()? {
            let batch = self.named(batch)?;
            match &mut rejects {
                None => main.write(batch).await?,
                Some(rejects) => {
                    let (accepted, rejected) = self.split(&batch)?;
                    main.write(accepted).await?;
                    rejects.write(rejected).await?;
                }
            }
        }
        Ok(())
    }

    /// The batch with the table's column names: INSERT goes by position.
    fn named(&self, batch: RecordBatch) -> Result<RecordBatch> {
        let fields = self.declared.fields().iter().zip(batch.columns());
        let columns = fields
            .map(|(field, column)| cast(column, field.data_type()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| self.converting(e))?;
        RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(|e| self.converting(e))
    }

    /// The rows to keep and those that were rejected, a row without status among these.
    fn split(&self, batch: &RecordBatch) -> Result<(RecordBatch, RecordBatch)> {
        let (column, ok) = STATUS;
        let status = batch
            .column_by_name(column)
            .ok_or_else(|| Error::new(ErrorKind::Internal, format!("no column {column}")))?;
        let status = cast(status, &DataType::Utf8View).map_err(|e| self.converting(e))?;
        let accepted = status.as_string_view().iter();
        let accepted: BooleanArray = accepted.map(|s| Some(s == Some(ok))).collect();
        let rejected = not(&accepted).map_err(|e| self.converting(e))?;
        let rows = |which| filter_record_batch(batch, which).map_err(|e| self.converting(e));
        Ok((rows(&accepted)?, rows(&rejected)?))
    }

    fn converting(&self, error: datafusion::arrow::error::ArrowError) -> Error {
        Error::while_doing(
            format!(
                "converting rows for the Delta table at '{}'",
                self.source.location()
            ),
            error,
        )
    }
}

/// Rejects first: the record in the main table says that both are there.
async fn commit(main: &mut Target, rejects: Option<&mut Target>) -> Result<u64> {
    let mut rows = 0;
    if let Some(rejects) = rejects {
        rows += rejects.commit().await?;
    }
    Ok(rows + main.commit().await?)
}

impl DisplayAs for DeltaSink {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeltaSink: location={}", self.source.location())?;
        if let Some(key) = &self.options.key {
            write!(f, ", write.key={key}")?;
        }
        if let Some(recorded) = &self.options.transaction {
            write!(f, ", write.app_id={}", recorded.app_id)?;
            write!(f, ", write.version={}", recorded.version)?;
        }
        match self.options.separate_rejects {
            true => write!(f, ", write.rejects=separate"),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl DataSink for DeltaSink {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    async fn write_all(
        &self,
        data: SendableRecordBatchStream,
        _: &Arc<TaskContext>,
    ) -> datafusion::error::Result<u64> {
        self.write(data).await
    }
}
