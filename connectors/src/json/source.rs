//! JSON files as streams of batches: reading, checking and decoding happen off the async threads.

use std::num::NonZero;
use std::sync::Arc;

use datafusion::arrow::array::{RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::json::ReaderBuilder;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileOpenFuture, FileOpener, FileScanConfig};
use datafusion::error::{DataFusionError, Result};
use futures::StreamExt;
use object_store::ObjectStore;
use object_store::path::Path;

use super::check::Checker;
use super::options::JsonLimits;
use super::records::{Layout, Position, Records};
use super::shape::Shape;
use crate::error::{Error, ErrorKind, beginning};
use crate::stores;
use crate::text::{Blocks, TextReader, TextSource, off_thread, stream};

/// What errors call a file.
const KIND: &str = "JSON";
/// Batches of objects that may wait to be decoded.
const CHUNKS_AHEAD: usize = 1;
/// Batches of one file that are decoded at a time. Each has the bytes of its objects and those of its
/// columns in memory.
const THREADS: usize = 4;

/// How the files of one table are written.
#[derive(Debug, Clone)]
pub(super) struct JsonLayout {
    pub(super) layout: Layout,
    pub(super) limits: JsonLimits,
    pub(super) compression: FileCompressionType,
}

impl TextReader for JsonLayout {
    const FILE_TYPE: &'static str = "json";

    fn opener(
        &self,
        scan: &TextSource<Self>,
        _: &FileScanConfig,
        store: Arc<dyn ObjectStore>,
    ) -> Result<Arc<dyn FileOpener>> {
        Ok(Arc::new(JsonTextOpener {
            layout: self.clone(),
            schema: scan.read_schema()?,
            checker: Arc::new(Checker {
                fields: scan.file_schema().fields().clone(),
                partitions: scan.folders().collect(),
                ignore_unknown: self.limits.ignore_unknown,
            }),
            batch_rows: scan.batch_rows(),
            object_store: store,
        }))
    }

    fn shown(&self) -> String {
        match self.layout {
            Layout::Lines => String::new(),
            Layout::Array => ", newline_delimited=false".into(),
        }
    }
}

struct JsonTextOpener {
    layout: JsonLayout,
    schema: SchemaRef,
    checker: Arc<Checker>,
    batch_rows: usize,
    object_store: Arc<dyn ObjectStore>,
}

impl FileOpener for JsonTextOpener {
    fn open(&self, file: PartitionedFile) -> Result<FileOpenFuture> {
        let (layout, batch_rows) = (self.layout.clone(), self.batch_rows);
        let (schema, checker) = (Arc::clone(&self.schema), Arc::clone(&self.checker));
        let store = Arc::clone(&self.object_store);
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        Ok(Box::pin(async move {
            let location = file.object_meta.location.clone();
            let blocks = Blocks::open(&store, &location, &layout.compression).await?;
            let name = stores::shown_file(store.as_ref(), &location);
            let chunks = stream(KIND, name.clone(), CHUNKS_AHEAD, move |outlet| {
                let emit = |chunk: Chunk| outlet.send(chunk);
                find(blocks, &layout, batch_rows, emit, || outlet.is_closed())
            });
            let name: Arc<str> = name.into();
            let batches = chunks.map(move |chunk: Result<Chunk>| {
                let (schema, checker) = (Arc::clone(&schema), Arc::clone(&checker));
                let name = Arc::clone(&name);
                async move {
                    let chunk = chunk?;
                    let task = move || decode(&chunk, schema, &checker);
                    off_thread(KIND, &name, task).await
                }
            });
            // In the order of the file.
            Ok(batches.buffered(threads.min(THREADS)).boxed())
        }))
    }
}

/// The objects of one batch, one behind the other.
#[derive(Default)]
struct Chunk {
    bytes: Vec<u8>,
    /// Where each begins in the file, and ends in `bytes`.
    records: Vec<(Position, usize)>,
}

/// Passes the objects of `blocks` on, batch by batch, unless nobody wants more.
fn find(
    mut blocks: Blocks,
    layout: &JsonLayout,
    batch_rows: usize,
    mut emit: impl FnMut(Chunk) -> bool,
    closed: impl Fn() -> bool,
) -> Result<()> {
    let limits = &layout.limits;
    let mut records = Records::new(layout.layout, limits.max_record_bytes);
    let mut chunk = Chunk::default();
    loop {
        let next = records.next::<DataFusionError>(|buffer| match closed() {
            true => Ok(false),
            false => blocks.append(buffer),
        })?;
        let Some((at, range)) = next else {
            break;
        };
        chunk.bytes.extend_from_slice(records.bytes(range));
        chunk.records.push((at, chunk.bytes.len()));
        let is_full = chunk.records.len() >= batch_rows || chunk.bytes.len() >= limits.batch_bytes;
        if is_full && !emit(std::mem::take(&mut chunk)) {
            return Ok(());
        }
    }
    if !chunk.records.is_empty() {
        emit(chunk);
    }
    Ok(())
}

/// The batch of one chunk.
fn decode(chunk: &Chunk, schema: SchemaRef, checker: &Checker) -> Result<RecordBatch> {
    let rows = chunk.records.len();
    let mut decoder = ReaderBuilder::new(Arc::clone(&schema))
        .with_batch_size(rows.max(1))
        .with_coerce_primitive(true)
        .build_decoder()?;
    let first = chunk.records.first().map(|(at, _)| *at);
    let first = first.unwrap_or(Position { record: 1, byte: 0 });
    let is_wanted = !schema.fields().is_empty();
    let mut start = 0;
    for (at, end) in &chunk.records {
        let record = &chunk.bytes[start..*end];
        start = *end;
        checker.check(record, *at)?;
        if is_wanted && decoder.decode(record).map_err(|e| failed(*at, e))? != record.len() {
            let message = format!("{at} was read in part only");
            return Err(Error::new(ErrorKind::Internal, message).into());
        }
    }
    let batch = match is_wanted {
        true => decoder.flush(),
        false => {
            let options = RecordBatchOptions::new().with_row_count(Some(rows));
            RecordBatch::try_new_with_options(schema, vec![], &options).map(Some)
        }
    };
    match batch.map_err(|e| failed(first, e))? {
        Some(batch) if batch.num_rows() == rows => Ok(batch),
        _ => Err(Error::new(
            ErrorKind::Internal,
            format!("{rows} records from {first} on became another number of rows"),
        )
        .into()),
    }
}

/// Message of the library, which may quote a value of megabytes.
fn failed(first: Position, error: ArrowError) -> DataFusionError {
    let text = error.to_string();
    Error::invalid(format!(
        "records from {first} on: {}; declare the column as VARCHAR to read it as it is",
        beginning(&text, 300)
    ))
    .into()
}

/// The shape of the first `most` objects of one file, and how many there were.
pub(super) async fn read_shape(
    store: &Arc<dyn ObjectStore>,
    location: &Path,
    layout: &JsonLayout,
    most: usize,
) -> Result<(Shape, usize)> {
    let mut blocks = Blocks::open(store, location, &layout.compression).await?;
    let layout = layout.clone();
    let name = stores::shown_file(store.as_ref(), location);
    let read = move || -> Result<(Shape, usize)> {
        let mut records = Records::new(layout.layout, layout.limits.max_record_bytes);
        let (mut shape, mut count) = (Shape::empty(), 0);
        while count < most {
            let next = records.next::<DataFusionError>(|buffer| blocks.append(buffer))?;
            let Some((at, range)) = next else {
                break;
            };
            let found = Shape::of(records.bytes(range));
            shape = found
                .and_then(|found| shape.and(found))
                .map_err(|e| Error::invalid(format!("{at}: {}", e)))?;
            count += 1;
        }
        Ok((shape, count))
    };
    off_thread(KIND, &name, read).await
}
