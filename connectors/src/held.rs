//! A store that counts the bytes which are written to it and, where it is told so, holds back the end
//! of every upload until all of them may end.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use datafusion::error::Result as FusionResult;
use datafusion::execution::TaskContext;
use datafusion::execution::object_store::{ObjectStoreRegistry, ObjectStoreUrl};
use futures::stream::BoxStream;
use object_store::path::{Path, PathPart};
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use url::Url;

use crate::error::Error;
use crate::stores;

/// Complete files that an error names.
const NAMES_SHOWN: usize = 5;
/// The answer to an upload that has not ended yet.
const HELD: PutResult = PutResult {
    e_tag: None,
    version: None,
};

/// The store `inner` under another hand.
#[derive(Debug, Clone)]
pub(crate) struct HeldStore {
    inner: Arc<dyn ObjectStore>,
    /// Where ends are held back.
    ends: Option<Arc<Mutex<Vec<End>>>>,
    written: Arc<AtomicU64>,
}

impl HeldStore {
    /// Holds back the ends of uploads to the store that `context` has for `url`.
    pub(crate) fn holding(context: &TaskContext, url: &ObjectStoreUrl) -> FusionResult<Self> {
        Ok(Self {
            inner: context.runtime_env().object_store(url)?,
            ends: Some(Arc::default()),
            written: Arc::default(),
        })
    }

    /// Adds the bytes that are written to the store that `context` has for `url` to `written`.
    pub(crate) fn counting(
        context: &TaskContext,
        url: &ObjectStoreUrl,
        written: &Arc<AtomicU64>,
    ) -> FusionResult<Self> {
        Ok(Self {
            inner: context.runtime_env().object_store(url)?,
            ends: None,
            written: Arc::clone(written),
        })
    }

    /// `context` with this store for `url`.
    pub(crate) fn within(&self, context: &TaskContext, url: &ObjectStoreUrl) -> Arc<TaskContext> {
        let registry = OneHeld {
            url: url.clone(),
            held: Arc::new(self.clone()),
            others: Arc::clone(&context.runtime_env().object_store_registry),
        };
        stores::with_stores(context, Arc::new(registry))
    }

    fn hold(&self, end: End) {
        if let Some(ends) = &self.ends {
            let mut ends = ends.lock().unwrap_or_else(PoisonError::into_inner);
            ends.push(end);
        }
    }

    fn held(&self) -> Vec<End> {
        let ends = self.ends.iter();
        ends.flat_map(|ends| {
            std::mem::take(&mut *ends.lock().unwrap_or_else(PoisonError::into_inner))
        })
        .collect()
    }

    /// Ends all uploads, one by one.
    ///
    /// # Errors
    /// One that could not end: those after it are given up, and the error names those before it.
    pub(crate) async fn end(&self) -> std::result::Result<(), Error> {
        let ends = self.held();
        let all = ends.len();
        let mut ends = ends.into_iter();
        let mut complete = vec![];
        while let Some(mut end) = ends.next() {
            let Err(error) = end.complete(&self.inner).await else {
                complete.push(end.path().clone());
                continue;
            };
            end.give_up(&self.inner).await;
            for mut rest in ends {
                rest.give_up(&self.inner).await;
            }
            return Err(self.partly(&complete, all, end.path(), error));
        }
        Ok(())
    }

    fn partly(
        &self,
        complete: &[Path],
        all: usize,
        at: &Path,
        error: object_store::Error,
    ) -> Error {
        let shown = |path: &Path| stores::shown_file(self.inner.as_ref(), path);
        let error = Error::while_doing(format!("completing {}", shown(at)), error);
        let first: Vec<String> = complete.iter().take(NAMES_SHOWN).map(shown).collect();
        let more = match complete.len() - first.len() {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        let advice = match complete.is_empty() {
            true => return error,
            false => "remove them before the statement runs again, or it may add their rows twice",
        };
        let message = format!(
            "{error}; {} of {all} files are complete ({}{more}): {advice}",
            complete.len(),
            first.join(", ")
        );
        Error::new(error.kind(), message).with_source(error)
    }

    /// It would only take space, so errors are left be.
    pub(crate) async fn give_up(&self) {
        for mut end in self.held() {
            end.give_up(&self.inner).await;
        }
    }
}

/// The session's stores, one of them held.
#[derive(Debug)]
struct OneHeld {
    url: ObjectStoreUrl,
    held: Arc<HeldStore>,
    others: Arc<dyn ObjectStoreRegistry>,
}

impl ObjectStoreRegistry for OneHeld {
    fn register_store(
        &self,
        url: &Url,
        store: Arc<dyn ObjectStore>,
    ) -> Option<Arc<dyn ObjectStore>> {
        self.others.register_store(url, store)
    }

    fn get_store(&self, url: &Url) -> FusionResult<Arc<dyn ObjectStore>> {
        match url == self.url.as_ref() {
            true => Ok(Arc::clone(&self.held) as _),
            false => self.others.get_store(url),
        }
    }
}

/// How an upload will end.
#[derive(Debug)]
enum End {
    Upload(Path, Box<dyn MultipartUpload>),
    /// There is nothing to upload in an empty file.
    Empty(Path),
    Named(Beside),
}

impl End {
    fn path(&self) -> &Path {
        match self {
            Self::Upload(path, _) | Self::Empty(path) => path,
            Self::Named(beside) => &beside.to,
        }
    }

    async fn complete(&mut self, store: &Arc<dyn ObjectStore>) -> Result<()> {
        match self {
            Self::Upload(_, upload) => upload.complete().await.map(drop),
            Self::Empty(path) => store.put(path, PutPayload::default()).await.map(drop),
            Self::Named(beside) => beside.complete().await,
        }
    }

    async fn give_up(&mut self, store: &Arc<dyn ObjectStore>) {
        match self {
            Self::Upload(_, upload) => drop(upload.abort().await),
            Self::Empty(_) => {}
            Self::Named(beside) => {
                if let Some(from) = beside.from.take() {
                    store.delete(&from).await.ok();
                }
            }
        }
    }
}

/// A small file on this machine, complete under a hidden name beside its own: an upload would keep it
/// open, and there may be more of them than a program may open.
#[derive(Debug)]
struct Beside {
    store: Arc<dyn ObjectStore>,
    /// None once it has its name.
    from: Option<Path>,
    to: Path,
}

impl Beside {
    fn new(store: &Arc<dyn ObjectStore>, to: &Path) -> (Self, Path) {
        let name = format!(".casebook-{}.tmp", uuid::Uuid::new_v4().simple());
        let mut parts: Vec<PathPart<'_>> = to.parts().collect();
        parts.pop();
        parts.push(name.into());
        let from = Path::from_iter(parts);
        let beside = Self {
            store: Arc::clone(store),
            from: Some(from.clone()),
            to: to.clone(),
        };
        (beside, from)
    }

    async fn complete(&mut self) -> Result<()> {
        if let Some(from) = &self.from {
            self.store.rename(from, &self.to).await?;
            self.from = None;
        }
        Ok(())
    }
}

impl Drop for Beside {
    /// The statement was stopped.
    fn drop(&mut self) {
        if let (Some(from), Ok(runtime)) = (self.from.take(), tokio::runtime::Handle::try_current())
        {
            let store = Arc::clone(&self.store);
            runtime.spawn(async move { store.delete(&from).await.ok() });
        }
    }
}

impl fmt::Display for HeldStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for HeldStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.written
            .fetch_add(payload.content_length() as u64, Ordering::Relaxed);
        if self.ends.is_none() {
            return self.inner.put_opts(location, payload, options).await;
        }
        if payload.content_length() == 0 {
            self.hold(End::Empty(location.clone()));
            return Ok(HELD);
        }
        if stores::is_disk(self.inner.as_ref()) {
            let (beside, from) = Beside::new(&self.inner, location);
            let inner = Arc::clone(&self.inner);
            // Whoever stops to wait for it leaves it to be removed.
            let put = tokio::spawn(async move {
                inner.put_opts(&from, payload, options).await?;
                Ok::<_, object_store::Error>(beside)
            });
            let beside = put.await.map_err(|e| object_store::Error::Generic {
                store: "held",
                source: e.into(),
            })?;
            self.hold(End::Named(beside?));
            return Ok(HELD);
        }
        // What is held back is the end alone, not the bytes of many small files.
        let options = PutMultipartOptions {
            tags: options.tags,
            attributes: options.attributes,
            extensions: options.extensions,
        };
        let mut upload = self.inner.put_multipart_opts(location, options).await?;
        upload.put_part(payload).await?;
        self.hold(End::Upload(location.clone(), upload));
        Ok(HELD)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Ok(Box::new(HeldUpload {
            path: location.clone(),
            inner: Some(self.inner.put_multipart_opts(location, options).await?),
            store: self.clone(),
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// An upload whose bytes are counted, and whose end may be held back.
#[derive(Debug)]
struct HeldUpload {
    path: Path,
    /// Away when it has ended.
    inner: Option<Box<dyn MultipartUpload>>,
    store: HeldStore,
}

impl HeldUpload {
    fn ended() -> object_store::Error {
        object_store::Error::Generic {
            store: "held",
            source: "the upload has ended".into(),
        }
    }
}

#[async_trait]
impl MultipartUpload for HeldUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.store
            .written
            .fetch_add(data.content_length() as u64, Ordering::Relaxed);
        match &mut self.inner {
            Some(inner) => inner.put_part(data),
            None => Box::pin(std::future::ready(Err(Self::ended()))),
        }
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let mut inner = self.inner.take().ok_or_else(Self::ended)?;
        if self.store.ends.is_none() {
            return inner.complete().await;
        }
        self.store.hold(End::Upload(self.path.clone(), inner));
        Ok(HELD)
    }

    async fn abort(&mut self) -> Result<()> {
        match self.inner.take() {
            Some(mut inner) => inner.abort().await,
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use object_store::local::LocalFileSystem;
    use object_store::memory::InMemory;

    use super::*;
    use crate::test_store::{Op, TestStore};

    fn holding(inner: Arc<dyn ObjectStore>) -> HeldStore {
        HeldStore {
            inner,
            ends: Some(Arc::default()),
            written: Arc::default(),
        }
    }

    fn names(below: &std::path::Path) -> Vec<String> {
        let entries = std::fs::read_dir(below).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn small_files_on_disk_wait_closed_beside_their_names() {
        let dir = tempfile::tempdir().unwrap();
        let local: Arc<dyn ObjectStore> =
            Arc::new(LocalFileSystem::new_with_prefix(dir.path()).unwrap());
        let small = || PutPayload::from_static(b"x");
        for ends in [true, false] {
            let store = holding(Arc::clone(&local));
            for name in ["a", "b", "c"] {
                store.put(&Path::from(name), small()).await.unwrap();
            }
            let waiting = names(dir.path());
            assert_eq!(waiting.len(), 3);
            assert!(
                waiting.iter().all(|name| name.starts_with(".casebook-")),
                "{waiting:?}"
            );
            #[cfg(target_os = "linux")]
            {
                let open = std::fs::read_dir("/proc/self/fd").unwrap();
                let open = open.filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok());
                assert_eq!(open.filter(|path| path.starts_with(dir.path())).count(), 0);
            }
            match ends {
                true => {
                    store.end().await.unwrap();
                    assert_eq!(names(dir.path()), ["a", "b", "c"]);
                    for name in ["a", "b", "c"] {
                        local.delete(&Path::from(name)).await.unwrap();
                    }
                }
                false => {
                    store.give_up().await;
                    assert!(names(dir.path()).is_empty());
                }
            }
        }
    }

    #[tokio::test]
    async fn when_one_cannot_end_the_rest_is_given_up_and_the_others_are_named() {
        let aborted: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&aborted);
        let inner = TestStore::new(Arc::new(InMemory::new())).before(move |op| {
            if let Op::Abort(path) = op {
                seen.lock().unwrap().push(path.to_string());
            }
            let fails = matches!(op, Op::Complete(path) if path.as_ref() == "b");
            Box::pin(async move {
                match fails {
                    true => Err(TestStore::broken()),
                    false => Ok(()),
                }
            })
        });
        let store = holding(Arc::new(inner));
        for name in ["a", "b", "c", "d"] {
            store
                .put(&Path::from(name), PutPayload::from_static(b"x"))
                .await
                .unwrap();
        }
        assert_eq!(store.written.load(Ordering::Relaxed), 4);
        let error = store.end().await.unwrap_err().to_string();
        assert!(error.contains("completing b"), "{error}");
        assert!(error.contains("1 of 4 files are complete (a)"), "{error}");
        assert_eq!(*aborted.lock().unwrap(), ["b", "c", "d"]);
        assert!(store.inner.head(&Path::from("a")).await.is_ok());
        assert!(store.inner.head(&Path::from("c")).await.is_err());
    }
}
