//! A store for tests, in whose requests something happens before or after what they do.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

/// A request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Op<'a> {
    Get(&'a Path),
    Put(&'a Path),
    Copy(&'a Path, &'a Path),
    Delete,
    Complete(&'a Path),
    Abort(&'a Path),
}

type Hook = Arc<dyn Fn(Op<'_>) -> BoxFuture<'static, Result<()>> + Send + Sync>;

/// The store `inner`, with hooks.
#[derive(Clone)]
pub(crate) struct TestStore {
    inner: Arc<dyn ObjectStore>,
    before: Hook,
    after: Hook,
}

impl TestStore {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>) -> Self {
        let nothing: Hook = Arc::new(|_| Box::pin(std::future::ready(Ok(()))));
        Self {
            inner,
            before: Arc::clone(&nothing),
            after: nothing,
        }
    }

    /// What happens before a request; on an error it is not done.
    pub(crate) fn before(
        self,
        hook: impl Fn(Op<'_>) -> BoxFuture<'static, Result<()>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            before: Arc::new(hook),
            ..self
        }
    }

    /// What happens after a request; an error is a lost answer.
    pub(crate) fn after(
        self,
        hook: impl Fn(Op<'_>) -> BoxFuture<'static, Result<()>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            after: Arc::new(hook),
            ..self
        }
    }

    /// An error of the network.
    pub(crate) fn broken() -> object_store::Error {
        object_store::Error::Generic {
            store: "test",
            source: "the connection broke".into(),
        }
    }
}

impl fmt::Debug for TestStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TestStore")
    }
}

impl fmt::Display for TestStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TestStore")
    }
}

#[async_trait]
impl ObjectStore for TestStore {
    async fn put_opts(&self, path: &Path, data: PutPayload, opts: PutOptions) -> Result<PutResult> {
        (self.before)(Op::Put(path)).await?;
        let put = self.inner.put_opts(path, data, opts).await?;
        (self.after)(Op::Put(path)).await?;
        Ok(put)
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Ok(Box::new(TestUpload {
            path: path.clone(),
            inner: self.inner.put_multipart_opts(path, opts).await?,
            store: self.clone(),
        }))
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        (self.before)(Op::Get(path)).await?;
        self.inner.get_opts(path, options).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let before = Arc::clone(&self.before);
        let looked = paths.then(move |path| {
            let before = Arc::clone(&before);
            async move {
                let path = path?;
                before(Op::Delete).await?;
                Ok(path)
            }
        });
        self.inner.delete_stream(looked.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        (self.before)(Op::Copy(from, to)).await?;
        self.inner.copy_opts(from, to, options).await?;
        (self.after)(Op::Copy(from, to)).await
    }
}

#[derive(Debug)]
struct TestUpload {
    path: Path,
    inner: Box<dyn MultipartUpload>,
    store: TestStore,
}

#[async_trait]
impl MultipartUpload for TestUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        (self.store.before)(Op::Complete(&self.path)).await?;
        self.inner.complete().await
    }

    async fn abort(&mut self) -> Result<()> {
        (self.store.before)(Op::Abort(&self.path)).await?;
        self.inner.abort().await
    }
}
