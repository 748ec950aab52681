//! CSV files as streams of batches: reading and decoding happen off the async threads.

use std::fmt;
use std::io::Read;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{
    FileOpenFuture, FileOpener, FileScanConfig, FileSource,
};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_plan::DisplayFormatType;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion_datasource::projection::{ProjectionOpener, SplitProjection};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::{GetOptions, GetResultPayload, ObjectStore};
use tokio::sync::mpsc;

use super::CsvLimits;
use super::batches::BatchSink;
use super::decoder::{Decoder, Dialect};
use super::header::{HeaderSink, check_is_text, schema};
use crate::error::Error;

/// Bytes read from a local file at a time.
const BLOCK_BYTES: usize = 1 << 20;
/// Batches that may wait for the reader of the stream, beside the one being built.
const BATCHES_AHEAD: usize = 1;

/// How the files of one table are written.
#[derive(Debug, Clone)]
pub(super) struct CsvLayout {
    pub(super) dialect: Dialect,
    pub(super) has_header: bool,
    pub(super) limits: CsvLimits,
    pub(super) compression: FileCompressionType,
}

/// The scan of one table.
#[derive(Debug, Clone)]
pub(super) struct CsvTextSource {
    layout: CsvLayout,
    table_schema: TableSchema,
    projection: SplitProjection,
    batch_rows: usize,
    metrics: ExecutionPlanMetricsSet,
}

impl CsvTextSource {
    pub(super) fn new(table_schema: TableSchema, layout: CsvLayout) -> Self {
        Self {
            layout,
            projection: SplitProjection::unprojected(&table_schema),
            table_schema,
            batch_rows: 8192,
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }
}

impl FileSource for CsvTextSource {
    fn create_file_opener(
        &self,
        object_store: Arc<dyn ObjectStore>,
        _: &FileScanConfig,
        _: usize,
    ) -> Result<Arc<dyn FileOpener>> {
        let file_schema = self.table_schema.file_schema();
        let projected = Arc::new(file_schema.project(&self.projection.file_indices)?);
        let opener = CsvTextOpener {
            layout: self.layout.clone(),
            schema: projected,
            columns: file_schema.fields().len(),
            projection: self.projection.file_indices.clone(),
            batch_rows: self.batch_rows,
            object_store,
        };
        ProjectionOpener::try_new(self.projection.clone(), Arc::new(opener), file_schema)
    }

    fn table_schema(&self) -> &TableSchema {
        &self.table_schema
    }

    fn with_batch_size(&self, batch_size: usize) -> Arc<dyn FileSource> {
        Arc::new(Self {
            batch_rows: batch_size,
            ..self.clone()
        })
    }

    fn try_pushdown_projection(
        &self,
        projection: &ProjectionExprs,
    ) -> Result<Option<Arc<dyn FileSource>>> {
        let merged = self.projection.source.try_merge(projection)?;
        let projection = SplitProjection::new(self.table_schema.file_schema(), &merged);
        Ok(Some(Arc::new(Self {
            projection,
            ..self.clone()
        })))
    }

    fn projection(&self) -> Option<&ProjectionExprs> {
        Some(&self.projection.source)
    }

    fn metrics(&self) -> &ExecutionPlanMetricsSet {
        &self.metrics
    }

    fn file_type(&self) -> &str {
        "csv"
    }

    fn supports_repartitioning(&self) -> bool {
        // Record borders cannot be told from a byte offset: texts hold line breaks.
        false
    }

    fn fmt_extra(&self, t: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        match t {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                write!(f, ", has_header={}", self.layout.has_header)
            }
            DisplayFormatType::TreeRender => Ok(()),
        }
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        for projected in self.projection.source.iter() {
            if f(&projected.expr)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }
}

struct CsvTextOpener {
    layout: CsvLayout,
    schema: SchemaRef,
    columns: usize,
    projection: Vec<usize>,
    batch_rows: usize,
    object_store: Arc<dyn ObjectStore>,
}

impl FileOpener for CsvTextOpener {
    fn open(&self, file: PartitionedFile) -> Result<FileOpenFuture> {
        let layout = self.layout.clone();
        let (schema, columns) = (Arc::clone(&self.schema), self.columns);
        let (projection, batch_rows) = (self.projection.clone(), self.batch_rows);
        let store = Arc::clone(&self.object_store);
        Ok(Box::pin(async move {
            let location = file.object_meta.location.clone();
            let blocks = Blocks::open(&store, &location, &layout.compression).await?;
            let (tx, rx) = mpsc::channel(BATCHES_AHEAD);
            let name = location.to_string();
            tokio::task::spawn_blocking(move || {
                let emit = |batch: RecordBatch| tx.blocking_send(Ok(batch)).is_ok();
                let sink = BatchSink::new(
                    schema,
                    columns,
                    &projection,
                    layout.limits.clone(),
                    batch_rows,
                    layout.has_header,
                    emit,
                );
                if let Err(error) = decode(blocks, &layout, sink, || tx.is_closed()) {
                    // A closed channel means that nobody is reading any more.
                    tx.blocking_send(Err(in_file(error, &name))).ok();
                }
            });
            let batches = futures::stream::unfold(rx, |mut rx| async move {
                rx.recv().await.map(|item| (item, rx))
            });
            Ok(batches.boxed())
        }))
    }
}

/// Reads all of `blocks` into `sink`, unless nobody wants more.
fn decode<F: FnMut(RecordBatch) -> bool>(
    mut blocks: Blocks,
    layout: &CsvLayout,
    mut sink: BatchSink<F>,
    closed: impl Fn() -> bool,
) -> Result<()> {
    let mut decoder = Decoder::new(layout.dialect, layout.limits.clone());
    let mut first = true;
    let mut buffer = vec![];
    while blocks.next(&mut buffer)? {
        if std::mem::take(&mut first) {
            check_is_text(&buffer)?;
        }
        if closed() || !decoder.feed(&buffer, &mut sink)? {
            return Ok(());
        }
    }
    decoder.finish(&mut sink)?;
    Ok(sink.finish()?)
}

/// The schema of one file, from its header alone.
pub(super) async fn read_header(
    store: &Arc<dyn ObjectStore>,
    location: &object_store::path::Path,
    layout: &CsvLayout,
) -> Result<SchemaRef> {
    let mut blocks = Blocks::open(store, location, &layout.compression).await?;
    let layout = layout.clone();
    let name = location.to_string();
    let task = tokio::task::spawn_blocking(move || -> Result<SchemaRef> {
        let mut decoder = Decoder::new(layout.dialect, layout.limits.clone());
        let mut sink = HeaderSink::default();
        let (mut first, mut more) = (true, true);
        let mut buffer = vec![];
        while more && blocks.next(&mut buffer)? {
            if std::mem::take(&mut first) {
                check_is_text(&buffer)?;
            }
            more = decoder.feed(&buffer, &mut sink)?;
        }
        if sink.names().is_none() {
            decoder.finish(&mut sink)?;
        }
        match sink.names() {
            Some(names) => Ok(schema(names, layout.has_header)?),
            None => Err(Error::invalid("the file is empty; it needs at least a header").into()),
        }
    });
    let schema = task
        .await
        .map_err(|e| DataFusionError::ExecutionJoin(Box::new(e)))?;
    schema.map_err(|e| in_file(e, &name))
}

/// Names the file in an error.
fn in_file(error: DataFusionError, name: &str) -> DataFusionError {
    match error {
        DataFusionError::External(inner) => match inner.downcast::<Error>() {
            Ok(own) => Error::new(own.kind(), format!("CSV file {name}: {own}"))
                .with_source(own)
                .into(),
            Err(other) => Error::while_doing(format!("reading CSV file {name}"), other).into(),
        },
        other => Error::while_doing(format!("reading CSV file {name}"), other).into(),
    }
}

/// The decompressed bytes of a file, block by block; used on a blocking thread.
enum Blocks {
    Local(Box<dyn Read + Send>),
    Remote(
        BoxStream<'static, Result<bytes::Bytes>>,
        tokio::runtime::Handle,
    ),
}

impl Blocks {
    async fn open(
        store: &Arc<dyn ObjectStore>,
        location: &object_store::path::Path,
        compression: &FileCompressionType,
    ) -> Result<Self> {
        let found = store
            .get_opts(location, GetOptions::default())
            .await
            .map_err(|e| Error::while_doing(format!("opening {location}"), e))?;
        match found.payload {
            GetResultPayload::File(file, _) => Ok(Self::Local(compression.convert_read(file)?)),
            GetResultPayload::Stream(stream) => {
                let stream = stream.map_err(DataFusionError::from).boxed();
                let stream = compression.convert_stream(stream)?;
                Ok(Self::Remote(stream, tokio::runtime::Handle::current()))
            }
        }
    }

    /// Fills `buffer` with the next block; false at the end.
    fn next(&mut self, buffer: &mut Vec<u8>) -> Result<bool> {
        buffer.clear();
        match self {
            Self::Local(read) => {
                let mut block = read.by_ref().take(BLOCK_BYTES as u64);
                block.read_to_end(buffer)?;
            }
            Self::Remote(stream, runtime) => {
                while buffer.is_empty() {
                    match runtime.block_on(stream.try_next())? {
                        Some(bytes) => buffer.extend_from_slice(&bytes),
                        None => return Ok(false),
                    }
                }
            }
        }
        Ok(!buffer.is_empty())
    }
}
