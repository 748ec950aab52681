//! The parts of a result that lie in an object store: downloaded a few ahead, in order, within a
//! byte budget. Their links are signed, so they are secrets and expire.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use datafusion::common::runtime::SpawnedTask;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::Mutex;

use super::messages::{ChunkRef, QueryData};
use super::session::Session;
use crate::error::{Error, ErrorKind, Result, said};
use crate::http::{self, Retry};
use crate::secret::Secret;

/// Chunks that are downloaded at once: enough to hide the latency of an object store.
const AHEAD: usize = 4;
/// How often the links may be refused for one chunk: once per expiry, and one more.
const MAX_REFRESHES: usize = 2;
/// Largest chunk; Snowflake's are at most 160 MB.
const MAX_CHUNK_BYTES: usize = 512 << 20;

/// A downloaded chunk.
pub(super) struct Chunk {
    pub(super) bytes: Bytes,
    pub(super) rows: u64,
}

/// The chunks of one result that were not taken yet.
pub(super) struct Chunks {
    links: Arc<Links>,
    /// Rows and declared size of those not begun.
    waiting: VecDeque<(usize, u64, u64)>,
    running: VecDeque<(u64, u64, SpawnedTask<Result<Bytes>>)>,
    /// Bytes of the running ones and of the one taken last.
    held: u64,
    taken: u64,
    budget: u64,
}

impl Chunks {
    /// The chunks that `data` lists.
    pub(super) fn new(session: &Arc<Session>, data: &mut QueryData, doing: &str) -> Result<Self> {
        let listed = data.chunks.take().unwrap_or_default();
        check_distinct(&listed, doing)?;
        let sizes = listed.iter().enumerate();
        // No more than may come: the server says any number, and they are added.
        let size = |c: &ChunkRef| c.uncompressed_size.clamp(1, MAX_CHUNK_BYTES as u64);
        let waiting = sizes.map(|(i, c)| (i, c.row_count, size(c)));
        Ok(Self {
            waiting: waiting.collect(),
            running: VecDeque::new(),
            held: 0,
            taken: 0,
            budget: session.settings.prefetch_bytes as u64,
            links: Arc::new(Links {
                session: Arc::clone(session),
                query_id: data.query_id.clone().unwrap_or_default(),
                doing: doing.to_owned(),
                current: Mutex::new(Signed {
                    generation: 0,
                    headers: headers(data.chunk_headers.take(), data.qrmk.take())?,
                    chunks: listed,
                }),
            }),
        })
    }

    /// Rows in all chunks, as the server says.
    pub(super) fn rows(&self) -> u64 {
        let rows = self.waiting.iter().map(|(_, rows, _)| *rows);
        rows.fold(0, u64::saturating_add)
    }

    /// The next chunk in order. The one before counts against the budget until now.
    pub(super) async fn next(&mut self) -> Result<Option<Chunk>> {
        self.held -= std::mem::take(&mut self.taken);
        while let Some((index, rows, bytes)) = self.waiting.front().copied() {
            let fits = self.held + bytes <= self.budget && self.running.len() < AHEAD;
            if !fits && !self.running.is_empty() {
                break;
            }
            self.waiting.pop_front();
            let links = Arc::clone(&self.links);
            let task = SpawnedTask::spawn(async move { links.download(index).await });
            self.running.push_back((rows, bytes, task));
            self.held += bytes;
        }
        let Some((rows, bytes, task)) = self.running.pop_front() else {
            return Ok(None);
        };
        self.taken = bytes;
        let bytes = task
            .await
            .map_err(|e| Error::while_doing(&self.links.doing, e))??;
        Ok(Some(Chunk { bytes, rows }))
    }
}

/// Two chunks behind one link would be one of them twice.
fn check_distinct(chunks: &[ChunkRef], doing: &str) -> Result<()> {
    let mut links = HashSet::new();
    match chunks.iter().all(|c| links.insert(c.url.expose())) {
        true => Ok(()),
        false => Err(Error::new(
            ErrorKind::Corrupt,
            format!("{doing}: Snowflake lists a chunk twice; run the statement again"),
        )),
    }
}

/// Where the chunks are, for now.
struct Links {
    session: Arc<Session>,
    query_id: String,
    doing: String,
    current: Mutex<Signed>,
}

struct Signed {
    /// How often the links were renewed.
    generation: usize,
    headers: HeaderMap,
    chunks: Vec<ChunkRef>,
}

impl Links {
    async fn download(&self, index: usize) -> Result<Bytes> {
        let what = format!("{}: downloading chunk {}", self.doing, index + 1);
        for refreshes in 0.. {
            let (generation, url, headers) = self.link(index).await?;
            let make = || {
                let request = self.session.http.get(url.expose());
                request.headers(headers.clone())
            };
            let error = match http::fetch(&what, &Retry::default(), MAX_CHUNK_BYTES, make).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => error,
            };
            if error.kind() != ErrorKind::Denied || refreshes >= MAX_REFRESHES {
                // The store's answer may quote what was signed.
                return Err(match error.kind() {
                    ErrorKind::Denied | ErrorKind::NotFound | ErrorKind::InvalidInput => {
                        Error::new(
                            error.kind(),
                            format!(
                                "{what}: the object store refuses it, with new links, too; run the \
                             statement again"
                            ),
                        )
                    }
                    _ => error,
                });
            }
            self.refresh(generation).await?;
        }
        Err(Error::new(ErrorKind::Internal, what))
    }

    async fn link(&self, index: usize) -> Result<(usize, Secret, HeaderMap)> {
        let current = self.current.lock().await;
        let chunk = current.chunks.get(index).ok_or_else(|| self.changed())?;
        Ok((
            current.generation,
            chunk.url.clone(),
            current.headers.clone(),
        ))
    }

    /// New links in the place of those of `generation`, unless another chunk has got them already.
    async fn refresh(&self, generation: usize) -> Result<()> {
        let mut current = self.current.lock().await;
        if current.generation != generation {
            return Ok(());
        }
        let path = format!("queries/{}/result", self.query_id);
        let reply = self.session.result(&path).await?;
        let Some(data) = reply.data.filter(|_| reply.success) else {
            return Err(Error::new(
                ErrorKind::Unavailable,
                format!(
                    "{}: the links to the result have expired, and Snowflake gives no new ones \
                     ({}); run the statement again, with a lower spool.after_secs, so that the rest \
                     of the rows is kept on this machine sooner",
                    self.doing,
                    said(&reply.message.unwrap_or_default())
                ),
            ));
        };
        let chunks = data.chunks.unwrap_or_default();
        let same = |a: &ChunkRef, b: &ChunkRef| a.row_count == b.row_count;
        if chunks.len() != current.chunks.len()
            || !chunks.iter().zip(&current.chunks).all(|(a, b)| same(a, b))
        {
            return Err(self.changed());
        }
        check_distinct(&chunks, &self.doing)?;
        *current = Signed {
            generation: generation + 1,
            headers: headers(data.chunk_headers, data.qrmk)?,
            chunks,
        };
        Ok(())
    }

    fn changed(&self) -> Error {
        Error::new(
            ErrorKind::Corrupt,
            format!(
                "{}: Snowflake lists other chunks than before; run the statement again",
                self.doing
            ),
        )
    }
}

/// The headers that go with every chunk: those given, else the key of the store's encryption.
fn headers(given: Option<HashMap<String, Secret>>, key: Option<Secret>) -> Result<HeaderMap> {
    const CUSTOMER_KEY: &str = "x-amz-server-side-encryption-customer-key";
    const CUSTOMER_ALGORITHM: &str = "x-amz-server-side-encryption-customer-algorithm";
    let mut all = given.unwrap_or_default();
    if let Some(key) = key.filter(|k| all.is_empty() && !k.expose().is_empty()) {
        all.insert(CUSTOMER_ALGORITHM.into(), Secret::new("AES256"));
        all.insert(CUSTOMER_KEY.into(), key);
    }
    let mut headers = HeaderMap::new();
    for (name, value) in all {
        let bad = || {
            Error::new(
                ErrorKind::Corrupt,
                format!("Snowflake asks for the header '{name}' with a value that is none"),
            )
        };
        let key = HeaderName::try_from(&name).map_err(|_| bad())?;
        let mut value = HeaderValue::from_str(value.expose()).map_err(|_| bad())?;
        value.set_sensitive(true);
        headers.insert(key, value);
    }
    Ok(headers)
}
