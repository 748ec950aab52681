//! CSV files as streams of batches: reading and decoding happen off the async threads.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{
    FileGroup, FileOpenFuture, FileOpener, FileScanConfig,
};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::Result;
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
use crate::text::{Blocks, TextReader, TextSource, off_thread, stream};

/// What errors call a file.
pub(super) const KIND: &str = "CSV";
/// Batches that may wait for the reader of the stream, beside the one being built.
const BATCHES_AHEAD: usize = 1;

/// The scan of one table of CSV.
pub(super) fn source(table_schema: TableSchema, layout: CsvLayout) -> TextSource<CsvReader> {
    let pieces = SharedPieces::default();
    TextSource::new(table_schema, CsvReader { layout, pieces })
}

/// How its files are read.
#[derive(Debug, Clone)]
pub(super) struct CsvReader {
    layout: CsvLayout,
    pieces: SharedPieces,
}

impl TextReader for CsvReader {
    const FILE_TYPE: &'static str = "csv";

    fn opener(
        &self,
        scan: &TextSource<Self>,
        config: &FileScanConfig,
        store: Arc<dyn ObjectStore>,
    ) -> Result<Arc<dyn FileOpener>> {
        let lines = self.layout.blank_lines(scan.file_schema());
        Ok(Arc::new(CsvTextOpener {
            layout: self.layout.clone(),
            target: Target {
                schema: scan.read_schema()?,
                wanted: Wanted {
                    table: Arc::clone(scan.file_schema()),
                    projection: scan.read_columns().into(),
                    folders: scan.folders().collect(),
                    declared: self.layout.declared,
                    truncated: self.layout.may_lack_columns(),
                },
                batch_rows: scan.batch_rows(),
            },
            pieces: Pieces::shared(&self.pieces, config, &self.layout, lines, &store),
            object_store: store,
        }))
    }

    fn split(
        &self,
        config: &FileScanConfig,
        partitions: usize,
        min_bytes: usize,
    ) -> Option<Vec<FileGroup>> {
        split(config, &self.layout, partitions, min_bytes)
    }

    fn shown(&self) -> String {
        format!(", has_header={}", self.layout.has_header())
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
