//! INSERT INTO a Delta table: files first, one commit at the end.
//!
//! Rows stream into Parquet files; at most [`FLUSH_BYTES`] of them are in memory. Nothing is
//! visible before the commit, and files of a failed INSERT are removed. With a key, rows already
//! there are left out; should another writer commit meanwhile, the INSERT fails as retryable,
//! because those rows were not compared.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::datasource::sink::DataSink;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType};
use deltalake::kernel::transaction::{CommitBuilder, CommitProperties, TransactionError};
use deltalake::kernel::{Action, Add};
use deltalake::protocol::{DeltaOperation, SaveMode};
use deltalake::writer::{DeltaWriter, RecordBatchWriter};
use deltalake::{DeltaTable, DeltaTableError};
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;

use super::DeltaSource;
use super::keys::Keys;
use crate::error::{Error, ErrorKind, Result};

/// Encoded bytes after which a file is finished and the next one begun.
const FLUSH_BYTES: usize = 64 << 20;
/// Commit attempts of an append, which any concurrent append may precede.
const APPEND_RETRIES: usize = 15;

/// The target of one INSERT statement.
#[derive(Debug)]
pub(super) struct DeltaSink {
    source: DeltaSource,
    schema: SchemaRef,
    key: Option<String>,
    overwrite: bool,
}

impl DeltaSink {
    pub(super) fn new(
        source: DeltaSource,
        schema: SchemaRef,
        key: Option<String>,
        overwrite: bool,
    ) -> Self {
        Self {
            source,
            schema,
            key,
            overwrite,
        }
    }

    /// Returns the number of rows added.
    async fn write(&self, rows: SendableRecordBatchStream) -> datafusion::error::Result<u64> {
        let table = self.source.open().await?;
        let mut writer =
            RecordBatchWriter::for_table(&table).map_err(|e| self.failed("opening a file", e))?;
        let mut adds = vec![];
        let written = self.stream(&table, rows, &mut writer, &mut adds).await;
        let committed = match written {
            Ok(0) if !self.overwrite => return Ok(0),
            Ok(count) => self
                .commit(&table, &adds)
                .await
                .map(|()| count)
                .map_err(Into::into),
            Err(error) => Err(error),
        };
        if committed.is_err() {
            remove_files(&table, &adds).await;
        }
        committed
    }

    async fn stream(
        &self,
        table: &DeltaTable,
        mut rows: SendableRecordBatchStream,
        writer: &mut RecordBatchWriter,
        adds: &mut Vec<Add>,
    ) -> datafusion::error::Result<u64> {
        let mut keys = match &self.key {
            Some(key) if !self.overwrite => Some((key, Keys::read(table, key).await?)),
            Some(key) => Some((key, Keys::default())),
            None => None,
        };
        let mut count = 0;
        while let Some(batch) = rows.next().await.transpose()? {
            let mut batch = self.named(batch)?;
            if let Some((key, keys)) = &mut keys {
                batch = keys.keep_new(&batch, key)?;
            }
            if batch.num_rows() == 0 {
                continue;
            }
            count += batch.num_rows() as u64;
            let batch = self.encodable(batch, writer)?;
            writer
                .write(batch)
                .await
                .map_err(|e| self.failed("writing rows", e))?;
            if writer.buffer_len() >= FLUSH_BYTES {
                adds.extend(
                    writer
                        .flush()
                        .await
                        .map_err(|e| self.failed("writing a file", e))?,
                );
            }
        }
        adds.extend(
            writer
                .flush()
                .await
                .map_err(|e| self.failed("writing a file", e))?,
        );
        Ok(count)
    }

    /// The batch with the table's column names: INSERT goes by position.
    fn named(&self, batch: RecordBatch) -> Result<RecordBatch> {
        let fields = self.schema.fields().iter().zip(batch.columns());
        let columns = fields
            .map(|(field, column)| cast(column, field.data_type()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| self.failed("converting rows", e))?;
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
            .map_err(|e| self.failed("converting rows", e))
    }

    /// The batch in the types of the Parquet files.
    fn encodable(&self, batch: RecordBatch, writer: &RecordBatchWriter) -> Result<RecordBatch> {
        let schema = writer.arrow_schema();
        let columns = schema
            .fields()
            .iter()
            .zip(batch.columns())
            .map(|(field, column)| cast(column, field.data_type()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| self.failed("converting rows", e))?;
        RecordBatch::try_new(schema, columns).map_err(|e| self.failed("converting rows", e))
    }

    async fn commit(&self, table: &DeltaTable, adds: &[Add]) -> Result<()> {
        let doing = "committing rows";
        let state = table.snapshot().map_err(|e| self.failed(doing, e))?;
        let mut actions: Vec<Action> = adds.iter().cloned().map(Action::Add).collect();
        let mut mode = SaveMode::Append;
        if self.overwrite {
            mode = SaveMode::Overwrite;
            let store = table.log_store();
            let mut files = state.snapshot().file_views(store.as_ref(), None);
            while let Some(file) = files.try_next().await.map_err(|e| self.failed(doing, e))? {
                actions.push(Action::Remove(file.remove_action(true)));
            }
        }
        let retries = if self.key.is_some() || self.overwrite {
            0
        } else {
            APPEND_RETRIES
        };
        let operation = DeltaOperation::Write {
            mode,
            partition_by: None,
            predicate: None,
        };
        CommitBuilder::from(CommitProperties::default().with_max_retries(retries))
            .with_actions(actions)
            .build(Some(state), table.log_store(), operation)
            .await
            .map(drop)
            .map_err(|e| self.commit_failed(e))
    }

    fn commit_failed(&self, error: DeltaTableError) -> Error {
        let conflict = matches!(
            &error,
            DeltaTableError::Transaction {
                source: TransactionError::MaxCommitAttempts(_)
                    | TransactionError::VersionAlreadyExists(_)
                    | TransactionError::CommitConflict(_)
            }
        );
        match conflict {
            true => Error::new(
                ErrorKind::Unavailable,
                format!(
                    "another writer committed to the Delta table at '{}' meanwhile; nothing was \
                     written: run the INSERT again",
                    self.source.location
                ),
            )
            .with_source(error),
            false => self.failed("committing rows", error),
        }
    }

    fn failed(
        &self,
        doing: &str,
        error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        Error::while_doing(
            format!("{doing} for the Delta table at '{}'", self.source.location),
            error,
        )
    }
}

/// Removes files that no commit will name. They would only take space, so errors are left be.
async fn remove_files(table: &DeltaTable, adds: &[Add]) {
    let store = table.object_store();
    for add in adds {
        store
            .delete(&object_store::path::Path::from(add.path.as_str()))
            .await
            .ok();
    }
}

impl DisplayAs for DeltaSink {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeltaSink: location={}", self.source.location)?;
        match &self.key {
            Some(key) => write!(f, ", write.key={key}"),
            None => Ok(()),
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
