//! The rows of a statement: chunks in order, some ahead, within a budget of bytes.
//!
//! A link to a chunk is asked for when its turn comes, because links expire within minutes; one
//! that the storage refuses nevertheless is asked for again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::buffer::Buffer;
use datafusion::arrow::ipc::reader::StreamDecoder;
use futures::stream::{self, Stream, StreamExt, TryStreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::errors::{given_up, refused};
use super::messages::{ChunkInfo, Link, Manifest};
use super::statement::{Finished, Warehouse};
use crate::error::{Error, ErrorKind, Result};
use crate::guard::caught;

/// Chunks that are downloaded at a time; they have up to about 20 MB.
const AHEAD: usize = 4;
/// Bytes of chunks that are in memory at a time, unless a single one is larger.
const BUDGET_BYTES: usize = 96 << 20;
/// The unit in which the budget is counted.
const UNIT_BYTES: usize = 64 << 10;
/// What a chunk counts for whose size the server does not say.
const UNKNOWN_BYTES: u64 = 20 << 20;
/// Largest chunk that is downloaded: far above what the server makes.
const MAX_CHUNK_BYTES: usize = 1 << 30;
/// Links tried for one chunk.
const LINKS: u32 = 3;

/// The batches of `finished`, as the server typed them.
pub(super) fn stream(
    warehouse: Warehouse,
    what: String,
    finished: Finished,
) -> impl Stream<Item = Result<RecordBatch>> + Send {
    let units = BUDGET_BYTES / UNIT_BYTES;
    let budget = Arc::new(Semaphore::new(units));
    let links = finished.result.external_links.unwrap_or_default();
    let count = finished.manifest.chunk_count(links.len());
    let chunks = match count {
        Ok(count) => stream::iter(listed(&finished.manifest, count).map(Ok)).left_stream(),
        Err(why) => {
            let what = format!("{what} (statement {})", finished.id);
            let error = Error::new(ErrorKind::Corrupt, format!("{what}: the answer says {why}"));
            stream::iter([Err(error)]).right_stream()
        }
    };
    let announced = finished.manifest.total_row_count;
    let counted = Arc::new(AtomicU64::new(0));
    let source = Arc::new(Source {
        warehouse,
        what: format!("{what} (statement {})", finished.id),
        statement: finished.id,
        links,
        used: Mutex::default(),
    });
    let end = {
        let (source, counted) = (Arc::clone(&source), Arc::clone(&counted));
        move || match (announced, counted.load(Ordering::Relaxed)) {
            (Some(announced), counted) if announced != counted => Some(Err(Error::new(
                ErrorKind::Corrupt,
                format!(
                    "{}: {counted} rows came, but the server announced {announced}",
                    source.what
                ),
            ))),
            _ => None,
        }
    };
    chunks
        // One after the other: a later chunk must not take what an earlier one waits for.
        .and_then(move |chunk: ChunkInfo| {
            let budget = Arc::clone(&budget);
            async move {
                let bytes = usize::try_from(chunk.byte_count.unwrap_or(UNKNOWN_BYTES));
                let wanted = bytes
                    .unwrap_or(usize::MAX)
                    .div_ceil(UNIT_BYTES)
                    .clamp(1, units);
                let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
                let permit = budget.acquire_many_owned(wanted).await;
                let permit = permit.map_err(|e| Error::while_doing("waiting for memory", e))?;
                Ok::<_, Error>((chunk, permit))
            }
        })
        .map_ok(move |(chunk, permit)| {
            let source = Arc::clone(&source);
            async move {
                let bytes = source.download(chunk).await?;
                Ok::<_, Error>(Rows::new(source, chunk, bytes, permit))
            }
        })
        .try_buffered(AHEAD)
        .map_ok(stream::iter)
        .try_flatten()
        .inspect_ok(move |batch: &RecordBatch| {
            counted.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
        })
        // Looked at when all before it has come.
        .chain(stream::iter(std::iter::once_with(end).flatten()))
}

/// The chunks of a result, one by one: the list in the manifest may be absent, and the count is
/// only what the server says.
fn listed(manifest: &Manifest, count: u64) -> impl Iterator<Item = ChunkInfo> + Send + use<> {
    let known = manifest.chunks.iter().flatten();
    let known: HashMap<u32, ChunkInfo> = known.map(|c| (c.chunk_index, *c)).collect();
    (0..u32::try_from(count).unwrap_or(u32::MAX)).map(move |index| {
        let known = known.get(&index).copied();
        known.unwrap_or(ChunkInfo {
            chunk_index: index,
            row_count: None,
            byte_count: None,
        })
    })
}

/// Where chunks come from.
struct Source {
    warehouse: Warehouse,
    what: String,
    statement: String,
    /// Those that came with the result.
    links: Vec<Link>,
    /// The chunk to which each link led, by its digest.
    used: Mutex<HashMap<[u8; 32], u32>>,
}

impl Source {
    async fn download(&self, chunk: ChunkInfo) -> Result<Bytes> {
        let index = chunk.chunk_index;
        let what = format!("{}: downloading chunk {index}", self.what);
        // Only the first link can be fresh: the others wait for their turn.
        let mut link = self
            .links
            .iter()
            .find(|l| l.chunk_index == index && index == 0)
            .cloned();
        let mut tried = 0;
        loop {
            let at = match link.take() {
                Some(link) => link,
                None => {
                    let link = self.warehouse.link(&what, &self.statement, index).await;
                    link.map_err(given_up)?
                }
            };
            self.check_link(&what, &at, index)?;
            let headers = at.http_headers.unwrap_or_default();
            let client = &self.warehouse.client;
            let got = client
                .download(&what, &at.external_link, &headers, MAX_CHUNK_BYTES)
                .await;
            tried += 1;
            match got {
                Ok(bytes) => return Ok(bytes),
                Err(error) if error.kind() == ErrorKind::Exhausted => return Err(error),
                Err(_) if tried < LINKS => {}
                Err(error) => return Err(refused(&what, LINKS, &error)),
            }
        }
    }
}

impl Source {
    /// Two chunks behind one link would be one of them twice.
    fn check_link(&self, what: &str, link: &Link, index: u32) -> Result<()> {
        let digest = *blake3::hash(link.external_link.expose().as_bytes()).as_bytes();
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        match used.insert(digest, index) {
            Some(other) if other != index => Err(Error::new(
                ErrorKind::Corrupt,
                format!("{what}: the server gave the link of chunk {other} for it"),
            )),
            _ => Ok(()),
        }
    }
}

/// The batches of one chunk, decoded one by one.
struct Rows {
    source: Arc<Source>,
    chunk: ChunkInfo,
    decoder: StreamDecoder,
    rest: Buffer,
    rows: u64,
    ended: bool,
    /// Given back when the chunk is read.
    _permit: OwnedSemaphorePermit,
}

impl Rows {
    fn new(
        source: Arc<Source>,
        chunk: ChunkInfo,
        bytes: Bytes,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            source,
            chunk,
            decoder: StreamDecoder::new(),
            rest: Buffer::from(bytes),
            rows: 0,
            ended: false,
            _permit: permit,
        }
    }

    fn decode(&mut self) -> Result<Option<RecordBatch>> {
        while !self.rest.is_empty() {
            let (decoder, rest) = (&mut self.decoder, &mut self.rest);
            let decoded = caught(self.source.what.trim_start_matches("reading "), || {
                decoder.decode(rest)
            })?;
            if let Some(batch) = decoded.map_err(|e| self.broken(&e.to_string()))? {
                self.rows += batch.num_rows() as u64;
                return Ok(Some(batch));
            }
        }
        // Neither a chunk cut short nor a missing batch may pass for the end.
        let end = self.decoder.finish();
        end.map_err(|e| self.broken(&e.to_string()))?;
        match self.chunk.row_count {
            Some(count) if count != self.rows => Err(self.broken(&format!(
                "it holds {} rows, but the server announced {count}",
                self.rows
            ))),
            _ => Ok(None),
        }
    }

    fn broken(&self, why: &str) -> Error {
        let Self { source, chunk, .. } = self;
        Error::new(
            ErrorKind::Corrupt,
            format!(
                "{}: chunk {} is damaged: {why}",
                source.what, chunk.chunk_index
            ),
        )
    }
}

impl Iterator for Rows {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let decoded = self.decode();
        self.ended = !matches!(decoded, Ok(Some(_)));
        decoded.transpose()
    }
}
