//! INSERT INTO a Delta table: rows stream into Parquet files, one commit makes them visible.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::datasource::sink::DataSink;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType};
use futures::StreamExt;

use super::checks::relaxed;
use super::source::DeltaSource;
use super::target::Target;
use crate::error::{Error, Result};
use crate::notices;
use crate::write::WriteOptions;

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

    /// Returns the number of rows added. The rows are not asked for if they were written before.
    async fn write(
        &self,
        mut rows: SendableRecordBatchStream,
        ctx: &Arc<TaskContext>,
    ) -> datafusion::error::Result<u64> {
        let table = self.source.open().await?;
        let mut target = Target::new(&self.source, table, &self.options, self.overwrite).await?;
        let written = match target.is_done() {
            true => Ok(0),
            false => self.stream(&mut rows, &mut target).await,
        };
        if written.is_err() {
            target.discard().await;
        } else if target.is_done()
            && let Some(recorded) = &self.options.recorded
        {
            let notice = recorded.done_before(self.source.location());
            notices::say(ctx.session_config(), &notice);
        }
        written
    }

    async fn stream(
        &self,
        rows: &mut SendableRecordBatchStream,
        target: &mut Target,
    ) -> datafusion::error::Result<u64> {
        while let Some(batch) = rows.next().await.transpose()? {
            target.write(self.named(batch)?).await?;
        }
        Ok(target.commit().await?)
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

impl DisplayAs for DeltaSink {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (location, options) = (self.source.location(), &self.options);
        write!(f, "DeltaSink: location={location}{options}")
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
        ctx: &Arc<TaskContext>,
    ) -> datafusion::error::Result<u64> {
        self.write(data, ctx).await
    }
}
