//! INSERT INTO an ODBC table: takes the rows once, in order, and hands them to the thread that
//! writes ([`super::writer`]). Dropped or failed before the last row, it leaves the table as it
//! was.

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
use tokio::sync::{mpsc, oneshot};

use super::table::OdbcTable;
use super::writer::{Order, write};
use crate::error::{Error, Result};
use crate::keys::{Hashes, Keys};

/// Batches that may wait for the writer.
const BATCHES_AHEAD: usize = 1;

/// The target of one INSERT statement.
#[derive(Debug)]
pub(super) struct OdbcSink {
    table: OdbcTable,
    overwrite: bool,
}

impl OdbcSink {
    pub(super) fn new(table: OdbcTable, overwrite: bool) -> Self {
        Self { table, overwrite }
    }

    /// The batch in the table's columns: INSERT goes by position.
    fn named(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let schema = &self.table.columns.schema;
        let doing = || format!("converting rows for {}", self.table.quoted());
        let fields = schema.fields().iter().zip(batch.columns());
        let columns = fields
            .map(|(field, column)| cast(column, field.data_type()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| Error::while_doing(doing(), e))?;
        RecordBatch::try_new(Arc::clone(schema), columns)
            .map_err(|e| Error::while_doing(doing(), e))
    }

    /// Sends the rows to the writer, until the last or until it has ended.
    async fn send(
        &self,
        mut rows: SendableRecordBatchStream,
        orders: mpsc::Sender<Order>,
    ) -> datafusion::error::Result<()> {
        // Keys of this statement: the server compares with those that the table has.
        let mut keys = self
            .table
            .key
            .as_ref()
            .map(|key| Keys::new(key, Hashes::default()));
        loop {
            let next = tokio::select! {
                next = rows.next() => next,
                // The writer failed: no more rows need be made.
                () = orders.closed() => return Ok(()),
            };
            let Some(batch) = next.transpose()? else {
                break;
            };
            let mut batch = self.named(&batch)?;
            if let Some(keys) = &mut keys {
                batch = keys.keep_new(&batch).await?;
            }
            if batch.num_rows() > 0 && orders.send(Order::Stage(batch)).await.is_err() {
                return Ok(());
            }
        }
        orders.send(Order::Publish).await.ok();
        Ok(())
    }
}

impl DisplayAs for OdbcSink {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "OdbcSink: system={}, table={}",
            self.table.dialect.name,
            self.table.quoted()
        )?;
        match &self.table.key {
            Some(key) => write!(f, ", write.key={key}"),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl DataSink for OdbcSink {
    fn schema(&self) -> &SchemaRef {
        &self.table.columns.schema
    }

    async fn write_all(
        &self,
        data: SendableRecordBatchStream,
        _: &Arc<TaskContext>,
    ) -> datafusion::error::Result<u64> {
        let (orders, received) = mpsc::channel(BATCHES_AHEAD);
        let (done, written) = oneshot::channel();
        let (table, overwrite) = (self.table.clone(), self.overwrite);
        let thread = std::thread::Builder::new().name("casebook-odbc-writer".into());
        thread
            .spawn(move || done.send(write(&table, overwrite, received)).ok())
            .map_err(|e| Error::while_doing("starting an ODBC writer", e))?;
        // The writer learns of the end, good or bad, by the orders being dropped.
        let sent = self.send(data, orders).await;
        let written = written
            .await
            .map_err(|e| Error::while_doing(format!("writing to {}", self.table.quoted()), e))?;
        sent?;
        Ok(written?)
    }
}
