//! A store in memory that counts the bytes that are read from it, block by block.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// Bytes that arrive at a time.
const BLOCK_BYTES: usize = 64 << 10;

#[derive(Debug, Default)]
pub(crate) struct CountingStore {
    inner: InMemory,
    read: Arc<AtomicU64>,
}

impl CountingStore {
    pub(crate) fn read(&self) -> u64 {
        self.read.load(Ordering::SeqCst)
    }
}

impl fmt::Display for CountingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("counting store")
    }
}

#[async_trait]
impl ObjectStore for CountingStore {
    async fn put_opts(&self, path: &Path, data: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(path, data, opts).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, opts).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let mut found = self.inner.get_opts(path, options).await?;
        let read = Arc::clone(&self.read);
        if let GetResultPayload::Stream(stream) = found.payload {
            let blocks = stream.map_ok(|bytes: Bytes| {
                let starts = (0..bytes.len()).step_by(BLOCK_BYTES);
                let block = move |at: usize| bytes.slice(at..bytes.len().min(at + BLOCK_BYTES));
                futures::stream::iter(starts.map(block).map(Ok).collect::<Vec<Result<Bytes>>>())
            });
            let counted = blocks.try_flatten().inspect_ok(move |block| {
                read.fetch_add(block.len() as u64, Ordering::SeqCst);
            });
            found.payload = GetResultPayload::Stream(counted.boxed());
        }
        Ok(found)
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let bytes: u64 = ranges.iter().map(|r| r.end - r.start).sum();
        self.read.fetch_add(bytes, Ordering::SeqCst);
        self.inner.get_ranges(path, ranges).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
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
