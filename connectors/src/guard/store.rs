//! A store of objects that may only be read where and as far as it makes sense: below a table's
//! directory, within the object, and as long as that is the one that was listed.
//!
//! Offsets and lengths come from the data. A store of the local disk allocates what it is asked
//! for before it looks at the file, and a failed allocation ends the process.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetRange, GetResult, ListResult, MultipartUpload,
    OBJECT_STORE_COALESCE_DEFAULT, ObjectMeta, ObjectStore, ObjectStoreExt, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result, coalesce_ranges,
};

use crate::error::{Error, ErrorKind};
use crate::stores;

/// A read of at least so many bytes is compared with the size of the object first. Smaller ones
/// are harmless, and asking costs a request.
const COMPARED_BYTES: u64 = 8 << 20;

/// What a store may be asked for.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    /// The directory that may be read.
    pub(crate) directory: Path,
    /// Whose it is, such as `the Delta table at 'x'`.
    pub(crate) owner: Arc<str>,
}

/// A store behind checks.
#[derive(Debug)]
pub(crate) struct GuardedStore {
    inner: Arc<dyn ObjectStore>,
    bounds: Option<Bounds>,
    /// The object as it was listed; what is read must be of that version.
    version: Option<ObjectMeta>,
}

impl GuardedStore {
    /// All of `inner`, or what is within `bounds`.
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, bounds: Option<Bounds>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            bounds,
            version: None,
        })
    }

    /// The one object that was listed as `version`: the parts of two versions must not be mixed.
    pub(crate) fn of_version(inner: Arc<dyn ObjectStore>, version: ObjectMeta) -> Arc<Self> {
        Arc::new(Self {
            inner,
            bounds: None,
            version: Some(version),
        })
    }

    fn check_version(&self, found: &ObjectMeta) -> Result<()> {
        match &self.version {
            Some(version) => same_version(version, found).map_err(refused),
            None => Ok(()),
        }
    }

    fn check(&self, path: &Path) -> Result<()> {
        match &self.bounds {
            Some(bounds) if !path.prefix_matches(&bounds.directory) => {
                Err(refused(outside(&bounds.owner, &format!("/{path}"))))
            }
            _ => Ok(()),
        }
    }

    /// An error if `range` of the object at `path` ends before it begins, or is long and goes
    /// beyond the object.
    async fn check_range(&self, path: &Path, range: &Range<u64>) -> Result<()> {
        let Some(length) = range.end.checked_sub(range.start) else {
            return Err(beyond(path, range, None));
        };
        if length < COMPARED_BYTES {
            return Ok(());
        }
        let size = self.inner.head(path).await?.size;
        match range.end <= size {
            true => Ok(()),
            false => Err(beyond(path, range, Some(size))),
        }
    }
}

/// The error that `file` is not among what `owner` may read.
pub(crate) fn outside(owner: &str, file: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!(
            "{owner} names a file outside of it, '{file}', which is not read: a table reads its \
             own directory only. If it is a shallow clone, read the table it was made from, or \
             make a deep clone"
        ),
    )
}

/// An error if `found` is another version of an object than the one that was listed.
fn same_version(listed: &ObjectMeta, found: &ObjectMeta) -> std::result::Result<(), Error> {
    // A listing and an answer may write one tag in two ways, and times with and without fractions.
    let tag = |meta: &ObjectMeta| {
        let tag = meta.e_tag.as_deref()?;
        Some(tag.trim_start_matches("W/").trim_matches('"').to_owned())
    };
    let same = match (tag(listed), tag(found)) {
        (Some(listed), Some(found)) => listed == found,
        _ => listed.last_modified.timestamp() == found.last_modified.timestamp(),
    };
    match same && listed.size == found.size {
        true => Ok(()),
        false => Err(changed(&listed.location)),
    }
}

/// The error that the file at `path` is not what it was when its reading began.
pub(crate) fn changed(path: impl fmt::Display) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!("{path} was changed while it was read; run the query again"),
    )
}

fn beyond(path: &Path, range: &Range<u64>, size: Option<u64>) -> object_store::Error {
    let size = size.map_or_else(String::new, |size| format!(", which has {size} bytes"));
    refused(Error::new(
        ErrorKind::Corrupt,
        format!(
            "bytes {} to {} are asked of the file '{path}'{size}: what names them is damaged; \
             write the file again or leave it out",
            range.start, range.end
        ),
    ))
}

fn refused(error: Error) -> object_store::Error {
    object_store::Error::Generic {
        store: "guarded",
        source: Box::new(error),
    }
}

impl fmt::Display for GuardedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for GuardedStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.check(location)?;
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.check(location)?;
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.check(location)?;
        if let Some(GetRange::Bounded(range)) = &options.range {
            self.check_range(location, range).await?;
        }
        let found = self.inner.get_opts(location, options).await?;
        self.check_version(&found.meta)?;
        Ok(found)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.check(location)?;
        let mut longest = None;
        for range in ranges {
            match range.end.checked_sub(range.start) {
                Some(length) => longest = longest.max(Some((length, range.start))),
                None => return Err(beyond(location, range, None)),
            }
        }
        if let Some((length, start)) = longest {
            self.check_range(location, &(start..start + length)).await?;
        }
        if self.version.is_none() {
            return self.inner.get_ranges(location, ranges).await;
        }
        // One by one, because each answer says which version it is of. Requests cost more than
        // the bytes between two ranges; on disk it is the other way round.
        let gap = match stores::is_disk(self) {
            true => 0,
            false => OBJECT_STORE_COALESCE_DEFAULT,
        };
        coalesce_ranges(ranges, |range| self.get_range(location, range), gap).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let bounds = self.bounds.clone();
        let checked = locations.and_then(move |path| {
            let checked = match &bounds {
                Some(bounds) if !path.prefix_matches(&bounds.directory) => {
                    Err(refused(outside(&bounds.owner, &format!("/{path}"))))
                }
                _ => Ok(path),
            };
            futures::future::ready(checked)
        });
        self.inner.delete_stream(checked.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.check(prefix.unwrap_or(&Path::default())) {
            Ok(()) => self.inner.list(prefix),
            Err(error) => futures::stream::iter([Err(error)]).boxed(),
        }
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.check(prefix.unwrap_or(&Path::default())) {
            Ok(()) => self.inner.list_with_offset(prefix, offset),
            Err(error) => futures::stream::iter([Err(error)]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.check(prefix.unwrap_or(&Path::default()))?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.check(from)?;
        self.check(to)?;
        self.inner.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::memory::InMemory;

    async fn store(bounds: Option<Bounds>) -> Arc<GuardedStore> {
        let inner = InMemory::new();
        for path in ["t/a", "t/b/c", "tt/a", "a"] {
            let content = PutPayload::from_static(b"0123456789");
            inner.put(&Path::from(path), content).await.unwrap();
        }
        GuardedStore::new(Arc::new(inner), bounds)
    }

    #[tokio::test]
    async fn a_table_reads_its_own_directory_only() {
        let bounds = Bounds {
            directory: Path::from("t"),
            owner: "the table 't'".into(),
        };
        let store = store(Some(bounds)).await;
        for path in ["t/a", "t/b/c"] {
            store.get(&Path::from(path)).await.unwrap();
        }
        for path in ["tt/a", "a"] {
            let path = Path::from(path);
            let error = store.get(&path).await.unwrap_err();
            let error = Error::while_doing("reading", error).to_string();
            assert!(
                error.contains("the table 't' names a file outside"),
                "{error}"
            );
            assert!(store.head(&path).await.is_err());
            assert!(store.get_range(&path, 0..1).await.is_err());
            assert!(store.list(Some(&path)).try_next().await.is_err());
            assert!(store.delete(&path).await.is_err());
        }
        assert!(store.list(None).try_next().await.is_err());
    }

    #[tokio::test]
    async fn an_object_is_read_as_it_was_listed() {
        let (inner, path) = (Arc::new(InMemory::new()), Path::from("a"));
        let put = |text: &'static str| inner.put(&path, PutPayload::from_static(text.as_bytes()));
        put("0123").await.unwrap();
        let listed = inner.head(&path).await.unwrap();
        let store = GuardedStore::of_version(Arc::clone(&inner) as _, listed.clone());
        assert_eq!(store.get_range(&path, 1..3).await.unwrap().as_ref(), b"12");
        put("4567").await.unwrap();
        for error in [
            store.get(&path).await.err(),
            store.get_range(&path, 0..1).await.err(),
            store.get_ranges(&path, &[0..1, 2..3]).await.err(),
        ] {
            let error = Error::while_doing("reading", error.unwrap());
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            assert!(error.to_string().contains("was changed"), "{error}");
        }
        // One tag, written in two ways; without tags the time counts, to the second.
        let tagged = |tag: &str| ObjectMeta {
            e_tag: Some(tag.to_owned()),
            ..listed.clone()
        };
        assert!(same_version(&tagged("0x8D"), &tagged("\"0x8D\"")).is_ok());
        assert!(same_version(&tagged("W/\"a\""), &tagged("\"a\"")).is_ok());
        assert!(same_version(&tagged("a"), &tagged("b")).is_err());
        let bare = ObjectMeta {
            e_tag: None,
            ..listed.clone()
        };
        assert!(same_version(&bare, &tagged("x")).is_ok());
        let longer = ObjectMeta {
            size: 5,
            ..bare.clone()
        };
        assert!(same_version(&bare, &longer).is_err());
    }

    #[tokio::test]
    async fn ranges_stay_within_the_object() {
        let store = store(None).await;
        let path = Path::from("t/a");
        assert_eq!(store.get_range(&path, 2..4).await.unwrap().as_ref(), b"23");
        let whole = 0..1 << 50;
        #[allow(clippy::reversed_empty_ranges)] // a damaged footer asks for one
        for range in [5..2, whole.clone(), 3..u64::MAX] {
            let error = store.get_ranges(&path, &[0..1, range.clone()]).await;
            let error = Error::while_doing("reading", error.unwrap_err());
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(error.to_string().contains("'t/a'"), "{error}");
        }
        assert!(store.get_range(&path, whole).await.is_err());
    }
}
