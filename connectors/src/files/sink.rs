//! INSERT INTO a table of files: one new file, or one for each folder of a partitioned table, encoded
//! by the library, made visible at the end.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::datasource::sink::{DataSink, DataSinkExec};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType};
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;
use object_store::path::Path;

use super::commit::{Published, Target};
use super::keys;
use super::partitions::{self, Partitions};
use crate::error::Error;
use crate::interrupt;
use crate::keys::Keys;
use crate::write::WriteOptions;

/// The target of one INSERT statement.
#[derive(Debug)]
pub(super) struct FilesSink {
    /// What is there already, for keys.
    pub(super) table: Arc<dyn TableProvider>,
    pub(super) schema: SchemaRef,
    pub(super) partitions: Partitions,
    pub(super) target: Target,
    pub(super) write: WriteOptions,
    /// The library's writer of one file.
    pub(super) writer: Arc<DataSinkExec>,
    /// The file it writes.
    pub(super) hidden: Path,
}

impl FilesSink {
    /// Returns the number of rows added. The rows are not asked for if they were written before.
    async fn write(&self, rows: SendableRecordBatchStream, ctx: &Arc<TaskContext>) -> Result<u64> {
        let begun = self.target.begin(self.hidden.clone(), &self.write).await?;
        let Some(commit) = begun else {
            return Ok(self.done_before());
        };
        if !self.partitions.is_empty() {
            let rows = partitions::written(rows, &self.partitions);
            return match self.writer.sink().write_all(rows, ctx).await {
                Ok(count) => Ok(commit.publish_folder().await.map(|()| count)?),
                Err(error) => {
                    commit.abandon_folder().await;
                    Err(self.failed(error))
                }
            };
        }
        let by_key_alone = self.write.key.is_some() && self.write.recorded.is_none();
        let (rows, interruption) = interrupt::hold_back(rows, by_key_alone);
        let rows = match &self.write.key {
            Some(key) => {
                let config = ctx.session_config().clone();
                let session = SessionContext::new_with_config_rt(config, ctx.runtime_env());
                let keys = keys::read(&session, Arc::clone(&self.table), key).await?;
                only_new(rows, keys)
            }
            None => rows,
        };
        let written = self.writer.sink().write_all(rows, ctx).await;
        let added = match written {
            Ok(0) => commit.publish_nothing().await.map(|()| 0)?,
            Ok(count) => match commit.publish(count).await? {
                Published::Added => count,
                Published::AlreadyThere => self.done_before(),
            },
            Err(error) => {
                commit.abandon().await;
                return Err(self.failed(error));
            }
        };
        interruption.end(added, &self.target.shown)
    }

    fn failed(&self, error: DataFusionError) -> DataFusionError {
        let doing = format!("writing rows for the table at '{}'", self.target.shown);
        Error::while_doing(doing, error).into()
    }

    /// Says that the rows are there; how many were added.
    fn done_before(&self) -> u64 {
        if let Some(recorded) = &self.write.recorded {
            let notice = recorded.done_before(&self.target.shown);
            log::info!(target: "casebook", "{notice}");
        }
        0
    }
}

/// The rows whose key is new.
fn only_new(rows: SendableRecordBatchStream, keys: Keys) -> SendableRecordBatchStream {
    let schema = rows.schema();
    let new = futures::stream::try_unfold((rows, keys), |(mut rows, mut keys)| async move {
        while let Some(batch) = rows.try_next().await? {
            let new = keys.keep_new(&batch).await?;
            if new.num_rows() > 0 {
                return Ok(Some((new, (rows, keys))));
            }
        }
        Ok(None)
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, new))
}

impl DisplayAs for FilesSink {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FilesSink: location={}{}", self.target.shown, self.write)
    }
}

#[async_trait]
impl DataSink for FilesSink {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    async fn write_all(
        &self,
        data: SendableRecordBatchStream,
        ctx: &Arc<TaskContext>,
    ) -> Result<u64> {
        self.write(data, ctx).await
    }
}
