//! One file read by several partitions: a byte range is widened or narrowed to whole records.
//!
//! Whether a byte lies inside quotes depends on all bytes before it. So a file is read once, from
//! front to back, by whichever partition needs the next piece: the decoder runs over it without
//! keeping any text, which is several times faster than decoding, and cuts a piece off where the
//! first record at or after the next range begins. The pieces are decoded in parallel.
//!
//! What is in a piece depends on the file and the ranges alone, not on who asks and in which order:
//! a piece that was cut off for a partition that does not come for it is dropped once too many
//! wait, and read again by its byte range. A scan that nobody reads further is not read ahead.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::error::{DataFusionError, Result};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};

use super::borders::Borders;
use super::decoder::{Decoder, Position};
use super::dialect::BlankLines;
use super::header::{Header, check_is_text};
use super::layout::CsvLayout;
use crate::error::{Error, ErrorKind};
use crate::text::{Blocks, Place};

/// Bytes of pieces that may wait for their partition; beyond it they are read again. Few in tests,
/// so that this happens there.
const WAITING_BYTES: usize = if cfg!(test) { 40 } else { 64 << 20 };

/// The files of one scan that are read in pieces. It lives as long as a partition is read.
#[derive(Debug)]
pub(super) struct Pieces {
    files: HashMap<Path, FileRanges>,
}

#[derive(Debug)]
struct FileRanges {
    meta: ObjectMeta,
    /// Where the ranges begin, in order; the first is 0.
    starts: Vec<u64>,
    scan: Arc<Mutex<FileScan>>,
}

/// The [`Pieces`] of a scan, shared by its partitions and not kept beyond them.
pub(super) type SharedPieces = Arc<Mutex<Weak<Pieces>>>;

impl Pieces {
    /// Those that the other partitions of this scan use.
    pub(super) fn shared(
        shared: &SharedPieces,
        config: &FileScanConfig,
        layout: &CsvLayout,
        lines: BlankLines,
        store: &Arc<dyn ObjectStore>,
    ) -> Arc<Self> {
        let starts = range_starts(config);
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pieces) = shared.upgrade()
            && pieces.are_of(&starts)
        {
            return pieces;
        }
        let files = starts.into_iter().map(|(location, (meta, starts))| {
            let place = Place {
                store: Arc::clone(store),
                location: location.clone(),
                size: meta.size,
            };
            let scan = FileScan::new(place, &layout.of_file(&location), lines, starts.clone());
            let scan = Arc::new(Mutex::new(scan));
            (location, FileRanges { meta, starts, scan })
        });
        let pieces = Arc::new(Self {
            files: files.collect(),
        });
        *shared = Arc::downgrade(&pieces);
        pieces
    }

    /// True for the pieces of these files, as they are listed now, in these ranges.
    fn are_of(&self, ranges: &HashMap<Path, (ObjectMeta, Vec<u64>)>) -> bool {
        self.files.len() == ranges.len()
            && self.files.iter().all(|(location, file)| {
                ranges
                    .get(location)
                    .is_some_and(|(meta, starts)| *meta == file.meta && *starts == file.starts)
            })
    }

    /// The piece that holds the records which begin in the range of `file`.
    pub(super) fn find(&self, file: &PartitionedFile) -> Result<PieceRef> {
        let located = file.range.as_ref().and_then(|range| {
            let found = self.files.get(&file.object_meta.location)?;
            let index = found.starts.binary_search(&(range.start as u64)).ok()?;
            let end = found.starts.get(index + 1).copied();
            let complete = range.end as u64 == end.unwrap_or(found.meta.size);
            complete.then(|| PieceRef {
                scan: Arc::clone(&found.scan),
                index,
            })
        });
        located.ok_or_else(|| {
            Error::new(
                ErrorKind::Internal,
                format!(
                    "a byte range of {} is not one of its scan",
                    file.object_meta.location
                ),
            )
            .into()
        })
    }
}

fn range_starts(config: &FileScanConfig) -> HashMap<Path, (ObjectMeta, Vec<u64>)> {
    let mut found: HashMap<Path, (ObjectMeta, Vec<u64>)> = HashMap::new();
    for file in config.file_groups.iter().flat_map(|g| g.iter()) {
        if let Some(range) = &file.range {
            let location = file.object_meta.location.clone();
            let entry = found
                .entry(location)
                .or_insert_with(|| (file.object_meta.clone(), vec![]));
            entry.1.push(range.start as u64);
        }
    }
    for (_, starts) in found.values_mut() {
        starts.sort_unstable();
        starts.dedup();
    }
    found
}

/// A piece still to be read.
pub(super) struct PieceRef {
    scan: Arc<Mutex<FileScan>>,
    index: usize,
}

/// Whole records of a file.
pub(super) struct Piece {
    /// Where its first record is.
    pub(super) start: Position,
    pub(super) head: Arc<Head>,
    pub(super) bytes: PieceBytes,
}

/// What the first record of a file says about the others.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) header: Header,
    pub(super) blank_lines: BlankLines,
}

pub(super) enum PieceBytes {
    /// Cut off just now.
    Held(Vec<u8>),
    /// To be read again.
    Again(Blocks),
}

impl PieceRef {
    /// Reads on until the piece is complete; none if nobody wants it any more. Blocks.
    pub(super) fn take(&self, closed: &impl Fn() -> bool) -> Result<Option<Piece>> {
        let (start, end, head, place, version) = {
            let mut scan = self.scan.lock().unwrap_or_else(PoisonError::into_inner);
            let mut held = scan.waiting.remove(&self.index);
            while held.is_none() && scan.cut <= self.index {
                if closed() {
                    return Ok(None);
                }
                held = scan.advance(self.index)?;
            }
            let start = scan.borders.found[self.index];
            let end = scan.borders.found.get(self.index + 1).map(|p| p.byte);
            let end = end.unwrap_or(scan.read_to);
            if start.byte == end {
                match start.byte {
                    0 => held = Some(vec![]),
                    // No record begins here.
                    _ => return Ok(None),
                }
            }
            let head = Arc::clone(scan.head());
            if let Some(bytes) = held {
                return Ok(Some(Piece {
                    start,
                    head,
                    bytes: PieceBytes::Held(bytes),
                }));
            }
            (start, end, head, scan.place.clone(), scan.version.clone())
        };
        let runtime = tokio::runtime::Handle::current();
        let blocks = Blocks::open_range(&place, start.byte..end, &version);
        Ok(Some(Piece {
            start,
            head,
            bytes: PieceBytes::Again(runtime.block_on(blocks)?),
        }))
    }
}

/// A file being cut into pieces.
struct FileScan {
    place: Place,
    /// None before the first block.
    blocks: Option<Blocks>,
    /// The version of the file that is read.
    version: Option<String>,
    decoder: Decoder,
    borders: Borders,
    /// None until a piece is asked for, whose first record was read by then.
    head: Option<Arc<Head>>,
    /// True if pieces are kept as they are cut off. A local file is read again instead: it is in
    /// the system's cache by then, and large buffers cost more than small ones filled twice.
    holds: bool,
    /// Read, but not cut off yet: begins where piece `cut` does. What is not kept is only passed through.
    buffer: Vec<u8>,
    /// Bytes of the file read so far.
    read_to: u64,
    /// Number of pieces that are complete.
    cut: usize,
    /// Complete pieces nobody came for yet.
    waiting: Waiting,
    /// Why the rest cannot be read.
    failed: Option<(ErrorKind, String)>,
}

impl std::fmt::Debug for FileScan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileScan")
            .field("location", &self.place.location)
            .field("cut", &self.cut)
            .finish_non_exhaustive()
    }
}

impl FileScan {
    fn new(place: Place, layout: &CsvLayout, lines: BlankLines, starts: Vec<u64>) -> Self {
        let decoder = Decoder::new(layout.dialect, layout.limits.clone());
        Self {
            decoder: decoder.with_blank_lines(lines),
            borders: Borders::new(starts, layout.has_header()),
            head: None,
            place,
            blocks: None,
            version: None,
            holds: true,
            buffer: vec![],
            read_to: 0,
            cut: 0,
            waiting: Waiting::default(),
            failed: None,
        }
    }

    /// What the first record says.
    fn head(&mut self) -> &Arc<Head> {
        let (borders, decoder) = (&mut self.borders, &self.decoder);
        self.head.get_or_insert_with(|| {
            Arc::new(Head {
                header: std::mem::take(&mut borders.header),
                blank_lines: decoder.blank_lines(),
            })
        })
    }

    /// Reads one block; piece `wanted` if that completed it. The other pieces wait.
    fn advance(&mut self, wanted: usize) -> Result<Option<Vec<u8>>> {
        if let Some((kind, message)) = &self.failed {
            return Err(Error::new(*kind, message.clone()).into());
        }
        let read = self.read_block();
        if let Err(error) = &read {
            // What the decoder was in the middle of is lost: the others get the same error.
            let own = match error {
                DataFusionError::External(inner) => inner.downcast_ref::<Error>(),
                _ => None,
            };
            let own = own.map(|e| (e.kind(), e.to_string()));
            self.failed = Some(own.unwrap_or((ErrorKind::Unavailable, error.to_string())));
        }
        let at_end = !read?;
        let mut taken = None;
        while self.cut + 1 < self.borders.found.len() {
            let length = self.borders.found[self.cut + 1].byte - self.borders.found[self.cut].byte;
            let piece = self.holds.then(|| {
                let mut rest = self.buffer.split_off(length as usize);
                rest.reserve(length as usize);
                std::mem::replace(&mut self.buffer, rest)
            });
            self.set_aside(piece, wanted, &mut taken);
        }
        if at_end && self.cut < self.borders.found.len() {
            let piece = self.holds.then(|| std::mem::take(&mut self.buffer));
            self.set_aside(piece, wanted, &mut taken);
        }
        Ok(taken)
    }

    /// The next piece is complete.
    fn set_aside(&mut self, piece: Option<Vec<u8>>, wanted: usize, taken: &mut Option<Vec<u8>>) {
        match piece {
            Some(piece) if self.cut == wanted => *taken = Some(piece),
            Some(piece) => self.waiting.keep(self.cut, piece),
            None => {}
        }
        self.cut += 1;
    }

    /// False at the end of the file.
    fn read_block(&mut self) -> Result<bool> {
        let runtime = tokio::runtime::Handle::current();
        let blocks = match &mut self.blocks {
            Some(blocks) => blocks,
            None => {
                let (blocks, version) = runtime.block_on(Blocks::open_ahead(&self.place))?;
                self.version = version;
                self.holds = matches!(blocks, Blocks::Remote(..));
                self.blocks.insert(blocks)
            }
        };
        let before = self.buffer.len();
        if !blocks.append(&mut self.buffer)? {
            self.decoder.finish(&mut self.borders)?;
            self.borders.end(self.read_to);
            self.blocks = None;
            return Ok(false);
        }
        let block = &self.buffer[before..];
        if self.read_to == 0 {
            check_is_text(block)?;
        }
        self.decoder.feed(block, &mut self.borders)?;
        self.read_to += block.len() as u64;
        if !self.holds {
            self.buffer.clear();
        }
        Ok(true)
    }
}

/// Pieces by number, up to [`WAITING_BYTES`].
#[derive(Default)]
struct Waiting {
    pieces: BTreeMap<usize, Vec<u8>>,
    bytes: usize,
}

impl Waiting {
    /// Drops the oldest where there is no room.
    fn keep(&mut self, index: usize, piece: Vec<u8>) {
        self.bytes += piece.len();
        self.pieces.insert(index, piece);
        while self.bytes > WAITING_BYTES
            && let Some((_, dropped)) = self.pieces.pop_first()
        {
            self.bytes -= dropped.len();
        }
    }

    fn remove(&mut self, index: &usize) -> Option<Vec<u8>> {
        let piece = self.pieces.remove(index)?;
        self.bytes -= piece.len();
        Some(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::csv::options::OwnOptions;

    #[test]
    fn as_many_pieces_wait_as_there_is_room_for() {
        let mut waiting = Waiting::default();
        for index in 0..4 {
            waiting.keep(index, vec![0; WAITING_BYTES / 4]);
        }
        assert_eq!(waiting.pieces.len(), 4);
        waiting.keep(4, vec![0; 1]);
        // The oldest made room.
        assert_eq!(waiting.remove(&0), None);
        assert_eq!(waiting.remove(&1), Some(vec![0; WAITING_BYTES / 4]));
        assert_eq!(waiting.bytes, WAITING_BYTES / 2 + 1);
    }

    #[test]
    fn pieces_are_shared_by_the_same_ranges_of_the_same_files_alone() {
        let meta = |size| ObjectMeta {
            location: Path::from("a.csv"),
            last_modified: Default::default(),
            size,
            e_tag: None,
            version: None,
        };
        let ranges = |size, starts: &[u64]| {
            HashMap::from([(Path::from("a.csv"), (meta(size), starts.to_vec()))])
        };
        let scan = || {
            let place = Place {
                store: Arc::new(object_store::memory::InMemory::new()),
                location: Path::from("a.csv"),
                size: 9,
            };
            let scan = FileScan::new(
                place,
                &CsvLayout::standard(OwnOptions::default()),
                BlankLines::Skipped,
                vec![0, 5],
            );
            Arc::new(Mutex::new(scan))
        };
        let file = FileRanges {
            meta: meta(9),
            starts: vec![0, 5],
            scan: scan(),
        };
        let pieces = Pieces {
            files: HashMap::from([(Path::from("a.csv"), file)]),
        };
        assert!(pieces.are_of(&ranges(9, &[0, 5])));
        for other in [ranges(9, &[0, 6]), ranges(8, &[0, 5]), HashMap::new()] {
            assert!(!pieces.are_of(&other), "{other:?}");
        }
        let mut more = ranges(9, &[0, 5]);
        more.insert(Path::from("b.csv"), (meta(9), vec![0]));
        assert!(!pieces.are_of(&more));
    }
}
