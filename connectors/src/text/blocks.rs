//! Where the bytes of a file come from: block by block, decompressed, on a blocking thread, and all of
//! one version of the file.

use std::fs::{File, Metadata};
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

use crate::error::Error;
use crate::guard::changed;
use crate::stores;

/// Bytes read from a local file at a time.
const BLOCK_BYTES: usize = 1 << 20;
/// Bytes of one request where several run at a time: long enough that its latency is small change.
const REQUEST_BYTES: u64 = 4 << 20;
/// Requests under way at a time while a file is split: one connection alone is slower than decoding.
const REQUESTS_AHEAD: usize = 4;

/// A file on some store.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) location: Path,
    /// Bytes, as listed.
    pub(crate) size: u64,
}

impl Place {
    fn name(&self) -> String {
        stores::shown_file(self.store.as_ref(), &self.location)
    }
}

/// The bytes of a file, in order.
pub(crate) enum Blocks {
    Local(LocalFile),
    Remote(BoxStream<'static, Result<Bytes>>, tokio::runtime::Handle),
}

/// A file of this machine. Someone may write to it while it is open, which shows at the end.
pub(crate) struct LocalFile {
    read: Box<dyn Read + Send>,
    handle: File,
    /// When it was opened.
    before: Metadata,
    name: String,
}

impl LocalFile {
    fn new(
        file: File,
        name: String,
        read: impl FnOnce(File) -> Result<Box<dyn Read + Send>>,
    ) -> Result<Self> {
        let (handle, before) = (file.try_clone()?, file.metadata()?);
        Ok(Self {
            read: read(file)?,
            handle,
            before,
            name,
        })
    }

    fn check_unchanged(&self) -> Result<()> {
        let now = self.handle.metadata()?;
        let same = now.len() == self.before.len() && now.modified()? == self.before.modified()?;
        match same {
            true => Ok(()),
            false => Err(changed(&self.name).into()),
        }
    }
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
            GetResultPayload::File(file, _) => {
                let name = stores::shown_file(store.as_ref(), location);
                let file = LocalFile::new(file, name, |file| compression.convert_read(file))?;
                Ok(Self::Local(file))
            }
            GetResultPayload::Stream(stream) => {
                let stream = stream.map_err(DataFusionError::from).boxed();
                let stream = compression.convert_stream(stream)?;
                Ok(Self::Remote(stream, tokio::runtime::Handle::current()))
            }
        }
    }

    /// The whole file as it is, through several requests at a time where it is remote.
    pub(crate) async fn open_ahead(place: &Place) -> Result<(Self, Option<String>)> {
        let first = 0..place.size.min(REQUEST_BYTES);
        let found = get(&place.store, &place.location, Some(first.clone())).await?;
        if found.meta.size != place.size {
            return Err(changed(place.name()).into());
        }
        let version = found.meta.e_tag.clone();
        let stream = match found.payload {
            GetResultPayload::File(file, _) => {
                let file = LocalFile::new(file, place.name(), |file| Ok(Box::new(file)))?;
                return Ok((Self::Local(file), version));
            }
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
                    same_version(&place, &expected, &found)?;
                    Ok(found.bytes().await?)
                })
            })
            .buffered(REQUESTS_AHEAD)
            .map(|joined| joined.map_err(|e| DataFusionError::ExecutionJoin(Box::new(e)))?);
        let runtime = tokio::runtime::Handle::current();
        Ok((Self::Remote(stream.chain(rest).boxed(), runtime), version))
    }

    /// A part of the file, which must still be that of `version`.
    pub(crate) async fn open_range(
        place: &Place,
        range: Range<u64>,
        version: &Option<String>,
    ) -> Result<Self> {
        let found = get(&place.store, &place.location, Some(range.clone())).await?;
        same_version(place, version, &found)?;
        match found.payload {
            GetResultPayload::File(mut file, _) => {
                file.seek(SeekFrom::Start(range.start))?;
                let file = LocalFile::new(file, place.name(), |file| {
                    Ok(Box::new(file.take(range.end - range.start)))
                })?;
                Ok(Self::Local(file))
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
            Self::Local(file) => {
                let mut block = file.read.by_ref().take(BLOCK_BYTES as u64);
                block.read_to_end(buffer)?;
                if buffer.len() == before {
                    file.check_unchanged()?;
                }
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
    let opening = || format!("opening {}", stores::shown_file(store.as_ref(), location));
    Ok(found.map_err(|e| Error::while_doing(opening(), e))?)
}

/// Parts of two versions of a file must not be mixed.
fn same_version(place: &Place, expected: &Option<String>, found: &GetResult) -> Result<(), Error> {
    match *expected == found.meta.e_tag && found.meta.size == place.size {
        true => Ok(()),
        false => Err(changed(place.name())),
    }
}

#[cfg(test)]
impl Blocks {
    /// Those of `bytes`.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        use std::io::Write;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        let file = LocalFile::new(file, "memory".into(), |file| Ok(Box::new(file)));
        Self::Local(file.unwrap())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use object_store::local::LocalFileSystem;

    use super::*;

    /// What is read of a file of three blocks, in which `change` happens after the first.
    fn read(change: impl FnOnce(&std::path::Path)) -> Result<usize> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        std::fs::write(&path, vec![b'x'; 3 * BLOCK_BYTES]).unwrap();
        let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new());
        let location = Path::from_absolute_path(&path).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let plain = FileCompressionType::UNCOMPRESSED;
        let mut blocks = runtime.block_on(Blocks::open(&store, &location, &plain))?;
        let mut buffer = vec![];
        assert!(blocks.append(&mut buffer)?);
        change(&path);
        while blocks.append(&mut buffer)? {}
        Ok(buffer.len())
    }

    #[test]
    fn a_file_that_changes_under_its_reader_is_an_error() {
        let append = |path: &std::path::Path| {
            let mut file = File::options().append(true).open(path).unwrap();
            file.write_all(b"more").unwrap();
        };
        for (change, name) in [
            (Box::new(append) as Box<dyn Fn(&std::path::Path)>, "append"),
            (Box::new(|p| std::fs::write(p, "short").unwrap()), "replace"),
        ] {
            let error = read(change).unwrap_err().to_string();
            assert!(error.contains("a.csv was changed"), "{name}: {error}");
        }
        // The same number of bytes, written again.
        let again = |path: &std::path::Path| {
            let before = std::fs::metadata(path).unwrap().modified().unwrap();
            let bytes = std::fs::read(path).unwrap();
            // The clock of a file system may be slow.
            while std::fs::metadata(path).unwrap().modified().unwrap() == before {
                std::fs::write(path, &bytes).unwrap();
            }
        };
        let error = read(again).unwrap_err().to_string();
        assert!(error.contains("a.csv was changed"), "{error}");
        // The one that was opened is read to its end when another takes its name.
        let renamed = |path: &std::path::Path| {
            let other = path.with_extension("new");
            std::fs::write(&other, "other").unwrap();
            std::fs::rename(&other, path).unwrap();
        };
        assert_eq!(read(renamed).unwrap(), 3 * BLOCK_BYTES);
        assert_eq!(read(|_| {}).unwrap(), 3 * BLOCK_BYTES);
    }
}
