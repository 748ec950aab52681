//! The files of one statement, all complete or none there: the library gives a file its name when its
//! rows end, which they also do when their query fails.
//!
//! The writer works on a store that holds back the end of every upload. When the statement has
//! succeeded the uploads end; else they are given up, and what was there before is there still.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::datasource::listing::ListingTableUrl;
use datafusion::datasource::physical_plan::FileSinkConfig;
use datafusion::datasource::sink::{DataSink, DataSinkExec};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::object_store::{ObjectStoreRegistry, ObjectStoreUrl};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan};
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, UploadPart,
};
use url::Url;

use crate::error::{Error, ErrorKind};
use crate::folders;
use crate::stores;
use crate::unfinished;

/// `plan`, which is a writer of the library or of ours for `config`, so that its files are whole and
/// nulls have folders.
pub(crate) fn whole(
    plan: &Arc<dyn ExecutionPlan>,
    config: &FileSinkConfig,
) -> Result<Arc<dyn ExecutionPlan>> {
    let Some(writer) = plan.downcast_ref::<DataSinkExec>() else {
        let message = "a writer of files is no sink";
        return Err(Error::new(ErrorKind::Internal, message).into());
    };
    let columns = config.table_partition_cols.iter();
    let sink = WholeSink {
        writer: writer.clone(),
        url: config.object_store_url.clone(),
        targets: config.table_paths.clone(),
        folders: columns.map(|(name, _)| name.clone()).collect(),
        keep: config.keep_partition_by_columns,
    };
    let order = writer.sort_order().clone();
    let input = Arc::clone(writer.input());
    Ok(Arc::new(DataSinkExec::new(input, Arc::new(sink), order)))
}

#[derive(Debug)]
struct WholeSink {
    writer: DataSinkExec,
    url: ObjectStoreUrl,
    targets: Vec<ListingTableUrl>,
    /// Columns that become folders.
    folders: Vec<String>,
    /// Files have these columns as well.
    keep: bool,
}

impl DisplayAs for WholeSink {
    fn fmt_as(&self, t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.writer.sink().fmt_as(t, f)
    }
}

#[async_trait]
impl DataSink for WholeSink {
    fn metrics(&self) -> Option<MetricsSet> {
        self.writer.sink().metrics()
    }

    fn schema(&self) -> &SchemaRef {
        self.writer.sink().schema()
    }

    async fn write_all(
        &self,
        rows: SendableRecordBatchStream,
        context: &Arc<TaskContext>,
    ) -> Result<u64> {
        unfinished::say(&self.targets, self.folders.len()).await;
        let rows = match self.folders.is_empty() {
            true => rows,
            false => folders::written(rows, self.folders.clone(), self.keep),
        };
        let runtime = context.runtime_env();
        let held = Arc::new(HeldStore {
            inner: runtime.object_store(&self.url)?,
            ends: Arc::default(),
        });
        let registry = OneHeld {
            url: self.url.clone(),
            held: Arc::clone(&held),
            others: Arc::clone(&runtime.object_store_registry),
        };
        let own = stores::with_stores(context, Arc::new(registry));
        let written = self.writer.sink().write_all(rows, &own).await;
        match written {
            Ok(count) => held.end().await.map(|()| count),
            Err(error) => {
                held.give_up().await;
                Err(error)
            }
        }
    }
}

/// The session's stores, one of them holding back.
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

    fn get_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        match url == self.url.as_ref() {
            true => Ok(Arc::clone(&self.held) as _),
            false => self.others.get_store(url),
        }
    }
}

/// How an upload will end.
#[derive(Debug)]
enum End {
    Complete(Box<dyn MultipartUpload>),
    /// There is nothing to upload in an empty file.
    Empty(Path),
}

/// A store whose uploads do not end by themselves. Their bytes are in `inner` as they come.
#[derive(Debug)]
struct HeldStore {
    inner: Arc<dyn ObjectStore>,
    ends: Arc<Mutex<Vec<End>>>,
}

impl HeldStore {
    fn held(&self) -> Vec<End> {
        std::mem::take(&mut *self.ends.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn end(&self) -> Result<()> {
        for end in self.held() {
            let ended = match end {
                End::Complete(mut upload) => upload.complete().await,
                End::Empty(path) => self.inner.put(&path, PutPayload::default()).await,
            };
            ended.map_err(|e| DataFusionError::ObjectStore(Box::new(e)))?;
        }
        Ok(())
    }

    /// It would only take space, so errors are left be.
    async fn give_up(&self) {
        for end in self.held() {
            if let End::Complete(mut upload) = end {
                upload.abort().await.ok();
            }
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
    ) -> object_store::Result<PutResult> {
        if payload.content_length() == 0 {
            hold(&self.ends, End::Empty(location.clone()));
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
        hold(&self.ends, End::Complete(upload));
        Ok(HELD)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        Ok(Box::new(HeldUpload {
            inner: Some(self.inner.put_multipart_opts(location, options).await?),
            ends: Arc::clone(&self.ends),
        }))
    }

    async fn get_opts(
        &self,
        location: &Path,
        options: GetOptions,
    ) -> object_store::Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        from: &Path,
        to: &Path,
        options: CopyOptions,
    ) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// The answer to an upload that has not ended yet.
const HELD: PutResult = PutResult {
    e_tag: None,
    version: None,
};

fn hold(ends: &Mutex<Vec<End>>, end: End) {
    ends.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(end);
}

/// An upload whose end is held back.
#[derive(Debug)]
struct HeldUpload {
    /// Away when it has ended.
    inner: Option<Box<dyn MultipartUpload>>,
    ends: Arc<Mutex<Vec<End>>>,
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
        match &mut self.inner {
            Some(inner) => inner.put_part(data),
            None => Box::pin(std::future::ready(Err(Self::ended()))),
        }
    }

    async fn complete(&mut self) -> object_store::Result<PutResult> {
        let inner = self.inner.take().ok_or_else(Self::ended)?;
        hold(&self.ends, End::Complete(inner));
        Ok(HELD)
    }

    async fn abort(&mut self) -> object_store::Result<()> {
        match self.inner.take() {
            Some(mut inner) => inner.abort().await,
            None => Ok(()),
        }
    }
}
