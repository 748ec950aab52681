//! Where encoded rows go: one file, or one per partition, each complete or not there at all.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::runtime::{JoinSet, SpawnedTask};
use datafusion::datasource::physical_plan::{FileSink, FileSinkConfig};
use datafusion::datasource::sink::DataSink;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType};
use datafusion_datasource::write::ObjectWriterBuilder;
use datafusion_datasource::write::demux::DemuxedStreamReceiver;
use object_store::ObjectStore;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::Receiver;

use super::encoder::CsvEncoder;
use super::layout::CsvLayout;
use crate::error::Error;

/// The target of one statement.
pub(super) struct CsvTextSink {
    config: FileSinkConfig,
    layout: CsvLayout,
}

impl CsvTextSink {
    pub(super) fn new(config: FileSinkConfig, layout: CsvLayout) -> Self {
        Self { config, layout }
    }
}

impl fmt::Debug for CsvTextSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CsvTextSink").finish_non_exhaustive()
    }
}

impl DisplayAs for CsvTextSink {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CsvTextSink")
    }
}

#[async_trait]
impl DataSink for CsvTextSink {
    fn schema(&self) -> &SchemaRef {
        self.config.output_schema()
    }

    async fn write_all(
        &self,
        data: SendableRecordBatchStream,
        context: &Arc<TaskContext>,
    ) -> Result<u64> {
        FileSink::write_all(self, data, context).await
    }
}

#[async_trait]
impl FileSink for CsvTextSink {
    fn config(&self) -> &FileSinkConfig {
        &self.config
    }

    async fn spawn_writer_tasks_and_join(
        &self,
        context: &Arc<TaskContext>,
        demux_task: SpawnedTask<Result<()>>,
        mut files: DemuxedStreamReceiver,
        store: Arc<dyn ObjectStore>,
    ) -> Result<u64> {
        let options = &context.session_config().options().execution;
        let mut writers: JoinSet<Result<(u64, Writer)>> = JoinSet::new();
        while let Some((location, batches)) = files.recv().await {
            let writer =
                ObjectWriterBuilder::new(self.layout.compression, &location, Arc::clone(&store))
                    .with_buffer_size(Some(options.objectstore_writer_buffer_size))
                    .with_compression_level(self.layout.writing.compression_level)
                    .build()?;
            let encoder = Arc::new(CsvEncoder::new(self.layout.clone()));
            writers.spawn(write_file(batches, encoder, writer));
        }
        let (mut rows, mut complete) = (0, vec![]);
        while let Some(written) = writers.join_next().await {
            let written = written.map_err(|e| DataFusionError::ExecutionJoin(Box::new(e)))?;
            let (count, writer) = written?;
            rows += count;
            complete.push(writer);
        }
        // The rows end early if their query failed.
        let sent = demux_task.join_unwind().await;
        sent.map_err(|e| DataFusionError::ExecutionJoin(Box::new(e)))??;
        for mut writer in complete {
            writer.shutdown().await.map_err(failed)?;
        }
        Ok(rows)
    }
}

/// A file under way. Dropped before its end, it leaves no file behind.
type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// Writes the rows of one file.
async fn write_file(
    mut batches: Receiver<RecordBatch>,
    encoder: Arc<CsvEncoder>,
    mut writer: Writer,
) -> Result<(u64, Writer)> {
    let (mut rows, mut first) = (0, true);
    while let Some(batch) = batches.recv().await {
        rows += batch.num_rows() as u64;
        let encoder = Arc::clone(&encoder);
        let encode = move || encoder.encode(&batch, first);
        let text = tokio::task::spawn_blocking(encode).await;
        let text = text.map_err(|e| DataFusionError::ExecutionJoin(Box::new(e)))??;
        writer.write_all(&text).await.map_err(failed)?;
        first = false;
    }
    Ok((rows, writer))
}

fn failed(error: std::io::Error) -> Error {
    Error::while_doing("writing a CSV file", error)
}
