//! Where the bytes of a CSV file come from: block by block, decompressed, on a blocking thread.

use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::common::runtime::SpawnedTask;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::error::{DataFusionError, Result};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, GetResult, GetResultPayload, ObjectStore};

use crate::error::{Error, ErrorKind};

/// Bytes read from a local file at a time.
const BLOCK_BYTES: usize = 1 << 20;
/// Bytes of one request where several run at a time: long enough that its latency is small change.
const REQUEST_BYTES: u64 = 4 << 20;
/// Requests under way at a time while a file is split: one connection alone is slower than decoding.
const REQUESTS_AHEAD: usize = 4;

/// A file on some store.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) location: Path,
    /// Bytes, as listed.
    pub(super) size: u64,
}

/// The bytes of a file, in order.
pub(crate) enum Blocks {
    Local(Box<dyn Read + Send>),
    Remote(BoxStream<'static, Result<Bytes>>, tokio::runtime::Handle),
}

impl Blocks {
    /// The whole file through one request, which is dropped with what is left of it.
    pub(crate) async fn open(
        store: &Arc<dyn ObjectStore>,
        location: &Path,
        compression: &FileCompressionType,
    ) -> Result<Self> {
        let found = get(store, location, None).await?;
        match found.payload {
            GetResultPayload::File(file, _) => Ok(Self::Local(compression.convert_read(file)?)),
            GetResultPayload::Stream(stream) => {
                let stream = stream.map_err(DataFusionError::from).boxed();
                let stream = compression.convert_stream(stream)?;
                Ok(Self::Remote(stream, tokio::runtime::Handle::current()))
            }
        }
    }

    /// The whole file as it is, through several requests at a time where it is remote.
    pub(super) async fn open_ahead(place: &Place) -> Result<(Self, Option<String>)> {
        let first = 0..place.size.min(REQUEST_BYTES);
        let found = get(&place.store, &place.location, Some(first.clone())).await?;
        let version = found.meta.e_tag.clone();
        let stream = match found.payload {
            GetResultPayload::File(file, _) => return Ok((Self::Local(Box::new(file)), version)),
            GetResultPayload::Stream(stream) => stream.map_err(DataFusionError::from),
        };
        let starts = (first.end..place.size).step_by(REQUEST_BYTES as usize);
        let (rest, expected) = (place.clone(), version.clone());
        let rest = futures::stream::iter(starts)
            .map(move |start| {
                let (place, expected) = (rest.clone(), expected.clone());
                let range = start..place.size.min(start + REQUEST_BYTES);
                // Dropped with the stream, which stops the request.
                SpawnedTask::spawn(async move {
                    let found = get(&place.store, &place.location, Some(range)).await?;
                    same_version(&place.location, &expected, &found)?;
                    Ok(found.bytes().await?)
                })
            })
            .buffered(REQUESTS_AHEAD)
            .map(|joined| joined.map_err(|e| DataFusionError::ExecutionJoin(Box::new(e)))?);
        let runtime = tokio::runtime::Handle::current();
        Ok((Self::Remote(stream.chain(rest).boxed(), runtime), version))
    }

    /// A part of the file, which must still be that of `version`.
    pub(super) async fn open_range(
        place: &Place,
        range: Range<u64>,
        version: &Option<String>,
    ) -> Result<Self> {
        let found = get(&place.store, &place.location, Some(range.clone())).await?;
        same_version(&place.location, version, &found)?;
        match found.payload {
            GetResultPayload::File(mut file, _) => {
                file.seek(SeekFrom::Start(range.start))?;
                Ok(Self::Local(Box::new(file.take(range.end - range.start))))
            }
            GetResultPayload::Stream(stream) => Ok(Self::Remote(
                stream.map_err(DataFusionError::from).boxed(),
                tokio::runtime::Handle::current(),
            )),
        }
    }

    /// Appends the next block to `buffer`; false at the end.
    pub(crate) fn append(&mut self, buffer: &mut Vec<u8>) -> Result<bool> {
        let before = buffer.len();
        match self {
            Self::Local(read) => {
                let mut block = read.by_ref().take(BLOCK_BYTES as u64);
                block.read_to_end(buffer)?;
            }
            Self::Remote(stream, runtime) => {
                while buffer.len() == before {
                    match runtime.block_on(stream.try_next())? {
                        Some(bytes) => buffer.extend_from_slice(&bytes),
                        None => return Ok(false),
                    }
                }
            }
        }
        Ok(buffer.len() > before)
    }
}

async fn get(
    store: &Arc<dyn ObjectStore>,
    location: &Path,
    range: Option<Range<u64>>,
) -> Result<GetResult> {
    let options = GetOptions {
        range: range.map(GetRange::Bounded),
        ..GetOptions::default()
    };
    let found = store.get_opts(location, options).await;
    Ok(found.map_err(|e| Error::while_doing(format!("opening {location}"), e))?)
}

/// Pieces of two versions of a file must not be mixed.
fn same_version(
    location: &Path,
    expected: &Option<String>,
    found: &GetResult,
) -> Result<(), Error> {
    match *expected == found.meta.e_tag {
        true => Ok(()),
        false => Err(Error::new(
            ErrorKind::Unavailable,
            format!("{location} was changed while it was read; run the query again"),
        )),
    }
}
