//! CSV files as streams of batches: reading and decoding happen off the async threads.

use std::fmt;
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
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_expr::{LexOrdering, PhysicalExpr};
use datafusion::physical_plan::DisplayFormatType;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion_datasource::projection::{ProjectionOpener, SplitProjection};
use futures::StreamExt;
use object_store::ObjectStore;
use tokio::sync::mpsc;

use super::batches::BatchSink;
use super::blocks::Blocks;
use super::decoder::{Decoder, Dialect, Position};
use super::header::{HeaderSink, check_is_text, schema};
use super::pieces::{Piece, PieceBytes, PieceRef, Pieces, SharedPieces};
use super::split::split;
use crate::csv_limits::CsvLimits;
use crate::error::Error;

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
    pieces: SharedPieces,
    metrics: ExecutionPlanMetricsSet,
}

impl CsvTextSource {
    pub(super) fn new(table_schema: TableSchema, layout: CsvLayout) -> Self {
        Self {
            layout,
            projection: SplitProjection::unprojected(&table_schema),
            table_schema,
            batch_rows: 8192,
            pieces: SharedPieces::default(),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }
}

impl FileSource for CsvTextSource {
    fn create_file_opener(
        &self,
        object_store: Arc<dyn ObjectStore>,
        config: &FileScanConfig,
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
            pieces: Pieces::shared(&self.pieces, config, &self.layout, &object_store),
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

    fn repartitioned(
        &self,
        target_partitions: usize,
        repartition_file_min_size: usize,
        output_ordering: Option<LexOrdering>,
        config: &FileScanConfig,
    ) -> Result<Option<FileScanConfig>> {
        if output_ordering.is_some() {
            return Ok(None);
        }
        let (partitions, min_bytes) = (target_partitions, repartition_file_min_size);
        let groups = split(config, &self.layout.dialect, partitions, min_bytes);
        Ok(groups.map(|groups| {
            let mut config = config.clone();
            config.file_groups = groups;
            config
        }))
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
    pieces: Arc<Pieces>,
    object_store: Arc<dyn ObjectStore>,
}

impl FileOpener for CsvTextOpener {
    fn open(&self, file: PartitionedFile) -> Result<FileOpenFuture> {
        let layout = self.layout.clone();
        let (schema, columns) = (Arc::clone(&self.schema), self.columns);
        let (projection, batch_rows) = (self.projection.clone(), self.batch_rows);
        let store = Arc::clone(&self.object_store);
        let piece = match file.range {
            Some(_) => Some(self.pieces.find(&file)?),
            None => None,
        };
        Ok(Box::pin(async move {
            let location = file.object_meta.location.clone();
            let input = match piece {
                Some(piece) => Input::Piece(piece),
                None => {
                    let blocks = Blocks::open(&store, &location, &layout.compression).await?;
                    Input::File(blocks)
                }
            };
            let (tx, rx) = mpsc::channel(BATCHES_AHEAD);
            let name = location.to_string();
            tokio::task::spawn_blocking(move || {
                let emit = |batch: RecordBatch| tx.blocking_send(Ok(batch)).is_ok();
                let sink = |has_header| {
                    BatchSink::new(
                        schema,
                        columns,
                        &projection,
                        layout.limits.clone(),
                        batch_rows,
                        has_header,
                        emit,
                    )
                };
                if let Err(error) = decode(input, &layout, sink, || tx.is_closed()) {
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

/// What one stream of batches is made from.
enum Input {
    File(Blocks),
    Piece(PieceRef),
}

/// Decodes all of `input`, unless nobody wants more. `sink` is given whether a header comes first.
fn decode<F: FnMut(RecordBatch) -> bool>(
    input: Input,
    layout: &CsvLayout,
    sink: impl FnOnce(bool) -> BatchSink<F>,
    closed: impl Fn() -> bool,
) -> Result<()> {
    let (start, mut held, mut blocks) = match input {
        Input::File(blocks) => (Position { record: 1, byte: 0 }, vec![], Some(blocks)),
        Input::Piece(piece) => match piece.take(&closed)? {
            None => return Ok(()),
            Some(Piece { start, bytes }) => match bytes {
                PieceBytes::Held(bytes) => (start, bytes, None),
                PieceBytes::Again(blocks) => (start, vec![], Some(blocks)),
            },
        },
    };
    let mut sink = sink(layout.has_header && start.byte == 0);
    let mut decoder = Decoder::resume(layout.dialect, layout.limits.clone(), start);
    if !decoder.feed(&held, &mut sink)? {
        return Ok(());
    }
    let mut first = start.byte == 0;
    while let Some(blocks) = &mut blocks {
        held.clear();
        if !blocks.append(&mut held)? {
            break;
        }
        if std::mem::take(&mut first) {
            check_is_text(&held)?;
        }
        if closed() || !decoder.feed(&held, &mut sink)? {
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
        while more && blocks.append(&mut buffer)? {
            if std::mem::take(&mut first) {
                check_is_text(&buffer)?;
            }
            more = decoder.feed(&buffer, &mut sink)?;
            buffer.clear();
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
