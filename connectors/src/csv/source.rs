//! CSV files as streams of batches: reading and decoding happen off the async threads.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{
    FileOpenFuture, FileOpener, FileScanConfig, FileSource,
};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::Result;
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_expr::{LexOrdering, PhysicalExpr};
use datafusion::physical_plan::DisplayFormatType;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion_datasource::projection::{ProjectionOpener, SplitProjection};
use object_store::ObjectStore;

use super::batches::{BatchSink, Target};
use super::columns::Wanted;
use super::decoder::{Decoder, Position};
use super::encoding::Text;
use super::header::{Header, HeaderSink};
use super::layout::CsvLayout;
use super::pieces::{Piece, PieceBytes, PieceRef, Pieces, SharedPieces};
use super::split::split;
use crate::error::Error;
use crate::stores;
use crate::text::{Blocks, off_thread, stream};

/// What errors call a file.
pub(super) const KIND: &str = "CSV";
/// Batches that may wait for the reader of the stream, beside the one being built.
const BATCHES_AHEAD: usize = 1;

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
        let folders = self.table_schema.table_partition_cols().iter();
        let wanted = Wanted {
            table: Arc::clone(file_schema),
            projection: self.projection.file_indices.as_slice().into(),
            folders: folders.map(|f| f.name().clone()).collect(),
            declared: self.layout.declared,
            truncated: self.layout.may_lack_columns(),
        };
        let opener = CsvTextOpener {
            layout: self.layout.clone(),
            target: Target {
                schema: projected,
                wanted,
                batch_rows: self.batch_rows,
            },
            pieces: Pieces::shared(
                &self.pieces,
                config,
                &self.layout,
                self.layout.blank_lines(file_schema),
                &object_store,
            ),
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
        let groups = split(config, &self.layout, partitions, min_bytes);
        Ok(groups.map(|groups| {
            let mut config = config.clone();
            config.file_groups = groups;
            config
        }))
    }

    fn fmt_extra(&self, t: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        match t {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                write!(f, ", has_header={}", self.layout.has_header())
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
    target: Target,
    pieces: Arc<Pieces>,
    object_store: Arc<dyn ObjectStore>,
}

impl FileOpener for CsvTextOpener {
    fn open(&self, file: PartitionedFile) -> Result<FileOpenFuture> {
        let location = file.object_meta.location.clone();
        let layout = self.layout.of_file(&location);
        let target = self.target.clone();
        let store = Arc::clone(&self.object_store);
        let piece = match file.range {
            Some(_) => Some(self.pieces.find(&file)?),
            None => None,
        };
        Ok(Box::pin(async move {
            let input = match piece {
                Some(piece) => Input::Piece(piece),
                None => {
                    let blocks = Blocks::open(&store, &location, &layout.compression).await?;
                    Input::File(Box::new(blocks))
                }
            };
            let name = stores::shown_file(store.as_ref(), &location);
            Ok(stream(KIND, name, BATCHES_AHEAD, move |outlet| {
                let emit = |batch: RecordBatch| outlet.send(batch);
                decode(input, &layout, target, emit, || outlet.is_closed())
            }))
        }))
    }
}

/// What one stream of batches is made from.
pub(super) enum Input {
    File(Box<Blocks>),
    Piece(PieceRef),
}

/// Decodes all of `input`, unless nobody wants more.
pub(super) fn decode(
    input: Input,
    layout: &CsvLayout,
    target: Target,
    emit: impl FnMut(RecordBatch) -> bool,
    closed: impl Fn() -> bool,
) -> Result<()> {
    let lines = layout.blank_lines(&target.wanted.table);
    let from_start = |blocks| Text::new(blocks, layout.encoding, layout.limits.invalid_utf8);
    let start = Position { record: 1, byte: 0 };
    let mut columns = (!layout.has_header()).then(|| target.wanted.by_position());
    let (start, lines, mut held, mut text) = match input {
        Input::File(blocks) => (start, lines, vec![], Some(from_start(*blocks))),
        Input::Piece(piece) => match piece.take(&closed)? {
            None => return Ok(()),
            Some(Piece { start, head, bytes }) => {
                let lines = match start.byte == 0 {
                    true => lines,
                    false if layout.has_header() => {
                        columns = Some(target.wanted.by_name(&head.header)?);
                        head.blank_lines
                    }
                    false => lines,
                };
                match bytes {
                    PieceBytes::Held(bytes) => (start, lines, bytes, None),
                    PieceBytes::Again(blocks) if start.byte == 0 => {
                        (start, lines, vec![], Some(from_start(blocks)))
                    }
                    PieceBytes::Again(blocks) => (start, lines, vec![], Some(Text::middle(blocks))),
                }
            }
        },
    };
    let mut sink = BatchSink::new(target, layout.clone(), columns, emit);
    let mut decoder =
        Decoder::resume(layout.dialect, layout.limits.clone(), start).with_blank_lines(lines);
    if !decoder.feed(&held, &mut sink)? {
        return Ok(());
    }
    while let Some(text) = &mut text {
        held.clear();
        if !text.append(&mut held)? {
            break;
        }
        if closed() || !decoder.feed(&held, &mut sink)? {
            return Ok(());
        }
    }
    decoder.finish(&mut sink)?;
    Ok(sink.finish()?)
}

/// The first record of one file.
pub(super) async fn read_header(
    store: &Arc<dyn ObjectStore>,
    location: &object_store::path::Path,
    layout: &CsvLayout,
) -> Result<Header> {
    let layout = layout.of_file(location);
    let blocks = Blocks::open(store, location, &layout.compression).await?;
    let name = stores::shown_file(store.as_ref(), location);
    let read = move || -> Result<Header> {
        let mut text = Text::new(blocks, layout.encoding, layout.limits.invalid_utf8);
        let mut decoder = Decoder::new(layout.dialect, layout.limits.clone());
        let mut sink = HeaderSink::default();
        let mut more = true;
        let mut buffer = vec![];
        while more && text.append(&mut buffer)? {
            more = decoder.feed(&buffer, &mut sink)?;
            buffer.clear();
        }
        if sink.names().is_none() {
            decoder.finish(&mut sink)?;
        }
        match sink.names() {
            Some(names) => Ok(names.clone()),
            None => Err(Error::invalid("the file is empty; it needs at least a header").into()),
        }
    };
    off_thread(KIND, &name, read).await
}
