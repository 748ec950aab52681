//! The files of one table, reached with credentials that Unity Catalog lends for about an hour.
//!
//! Each request to the storage asks for the credentials that are good at that moment, so a scan
//! may take longer than any of them lives. Reading uses READ credentials; READ_WRITE is asked for
//! when something is written and not before.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use tokio::sync::OnceCell;

use super::catalog::Operation;
use super::storage;
use super::vending::{VendedTable, Vending};
use crate::error::Result;
use crate::expiring::Expiring;

/// The store for one operation, opened when it is first used.
#[derive(Debug)]
struct Side {
    vending: Arc<Vending>,
    store: OnceCell<Arc<dyn ObjectStore>>,
}

impl Side {
    fn new(table: &Arc<VendedTable>, operation: Operation) -> Arc<Self> {
        Arc::new(Self {
            vending: Arc::new(Vending {
                table: Arc::clone(table),
                operation,
                held: Expiring::default(),
            }),
            store: OnceCell::new(),
        })
    }

    async fn store(&self) -> object_store::Result<Arc<dyn ObjectStore>> {
        let table = &self.vending.table;
        let open = || storage::open(&table.location, &table.settings, &self.vending);
        self.store.get_or_try_init(open).await.map(Arc::clone)
    }
}

/// The table's directory as an object store.
#[derive(Debug)]
pub(super) struct VendedStore {
    read: Arc<Side>,
    write: Arc<Side>,
    /// True if listings come in no order, and are sorted here: Delta logs are read in order.
    unordered: bool,
}

impl VendedStore {
    pub(super) fn new(table: VendedTable) -> Self {
        let table = Arc::new(table);
        Self {
            read: Side::new(&table, Operation::Read),
            write: Side::new(&table, Operation::ReadWrite),
            unordered: storage::is_unordered(&table.location),
        }
    }

    /// Asks for credentials, which shows whether they are given.
    pub(super) async fn credentials(&self, operation: Operation) -> Result<()> {
        let side = match operation {
            Operation::Read => &self.read,
            Operation::ReadWrite => &self.write,
        };
        side.vending.credentials().await.map(drop)
    }

    fn listed(
        &self,
        list: impl FnOnce(Arc<dyn ObjectStore>) -> BoxStream<'static, object_store::Result<ObjectMeta>>
        + Send
        + 'static,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let side = Arc::clone(&self.read);
        let unordered = self.unordered;
        let open = async move {
            let listed = list(side.store().await?);
            if !unordered {
                return Ok(listed);
            }
            let mut all: Vec<ObjectMeta> = listed.try_collect().await?;
            all.sort_by(|a, b| a.location.cmp(&b.location));
            Ok::<_, object_store::Error>(stream::iter(all.into_iter().map(Ok)).boxed())
        };
        stream::once(open).try_flatten().boxed()
    }
}

impl fmt::Display for VendedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unity Catalog table {}", self.read.vending.table.name)
    }
}

#[async_trait]
impl ObjectStore for VendedStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        let store = self.write.store().await?;
        store.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        let store = self.write.store().await?;
        store.put_multipart_opts(location, options).await
    }

    async fn get_opts(
        &self,
        location: &Path,
        options: GetOptions,
    ) -> object_store::Result<GetResult> {
        self.read.store().await?.get_opts(location, options).await
    }

    async fn get_ranges(
        &self,
        location: &Path,
        ranges: &[Range<u64>],
    ) -> object_store::Result<Vec<Bytes>> {
        self.read.store().await?.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        let side = Arc::clone(&self.write);
        let open = async move {
            Ok::<_, object_store::Error>(side.store().await?.delete_stream(locations))
        };
        stream::once(open).try_flatten().boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let prefix = prefix.cloned();
        self.listed(move |store| store.list(prefix.as_ref()))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let (prefix, offset) = (prefix.cloned(), offset.clone());
        self.listed(move |store| store.list_with_offset(prefix.as_ref(), &offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.read.store().await?.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        from: &Path,
        to: &Path,
        options: CopyOptions,
    ) -> object_store::Result<()> {
        self.write.store().await?.copy_opts(from, to, options).await
    }
}
