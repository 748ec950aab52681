//! A format of files whose schemas, statistics and scans are guarded, and whose errors name the
//! file.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::Session;
use datafusion::common::Statistics;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{
    FileScanConfig, FileScanConfigBuilder, FileSinkConfig, FileSource, ParquetSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::Result;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::physical_expr::{LexOrdering, LexRequirement};
use datafusion::physical_plan::ExecutionPlan;
use datafusion_datasource::file_format::FileMeta;
use object_store::{ObjectMeta, ObjectStore};

use super::source::{GuardedSource, shown};
use super::store::GuardedStore;
use super::{caught_while, named};

/// A library's format; this one reads and writes as that does.
#[derive(Debug)]
pub(crate) struct GuardedFormat {
    inner: Arc<dyn FileFormat>,
    /// The store of the table's files, to name them.
    base: Option<ObjectStoreUrl>,
}

impl GuardedFormat {
    pub(crate) fn around(
        inner: Arc<dyn FileFormat>,
        base: Option<ObjectStoreUrl>,
    ) -> Arc<dyn FileFormat> {
        Arc::new(Self { inner, base })
    }

    fn shown(&self, file: &ObjectMeta) -> String {
        match &self.base {
            Some(base) => shown(base, &file.location),
            None => format!("'{}'", file.location),
        }
    }
}

#[async_trait]
impl FileFormat for GuardedFormat {
    fn get_ext(&self) -> String {
        self.inner.get_ext()
    }

    fn get_ext_with_compression(&self, compression: &FileCompressionType) -> Result<String> {
        self.inner.get_ext_with_compression(compression)
    }

    fn compression_type(&self) -> Option<FileCompressionType> {
        self.inner.compression_type()
    }

    async fn infer_schema(
        &self,
        state: &dyn Session,
        store: &Arc<dyn ObjectStore>,
        files: &[ObjectMeta],
    ) -> Result<SchemaRef> {
        let store: Arc<dyn ObjectStore> = GuardedStore::new(Arc::clone(store), None);
        let together = self.inner.infer_schema(state, &store, files);
        let error = match caught_while("the files", together).await {
            Ok(schema) => return Ok(schema),
            Err(error) => error,
        };
        // Which file it is: the first that cannot be read by itself.
        for file in files {
            let what = self.shown(file);
            let alone = self
                .inner
                .infer_schema(state, &store, std::slice::from_ref(file));
            let alone = caught_while(&what, alone).await;
            alone.map_err(|e| named(&what, e))?;
        }
        Err(error)
    }

    async fn infer_stats(
        &self,
        state: &dyn Session,
        store: &Arc<dyn ObjectStore>,
        schema: SchemaRef,
        file: &ObjectMeta,
    ) -> Result<Statistics> {
        let what = self.shown(file);
        let store: Arc<dyn ObjectStore> = GuardedStore::new(Arc::clone(store), None);
        let inferred = self.inner.infer_stats(state, &store, schema, file);
        let inferred = caught_while(&what, inferred).await;
        inferred.map_err(|e| named(&what, e))
    }

    async fn infer_ordering(
        &self,
        state: &dyn Session,
        store: &Arc<dyn ObjectStore>,
        schema: SchemaRef,
        file: &ObjectMeta,
    ) -> Result<Option<LexOrdering>> {
        let what = self.shown(file);
        let store: Arc<dyn ObjectStore> = GuardedStore::new(Arc::clone(store), None);
        let inferred = self.inner.infer_ordering(state, &store, schema, file);
        let inferred = caught_while(&what, inferred).await;
        inferred.map_err(|e| named(&what, e))
    }

    async fn infer_stats_and_ordering(
        &self,
        state: &dyn Session,
        store: &Arc<dyn ObjectStore>,
        schema: SchemaRef,
        file: &ObjectMeta,
    ) -> Result<FileMeta> {
        let what = self.shown(file);
        let store: Arc<dyn ObjectStore> = GuardedStore::new(Arc::clone(store), None);
        let inferred = self
            .inner
            .infer_stats_and_ordering(state, &store, schema, file);
        let inferred = caught_while(&what, inferred).await;
        inferred.map_err(|e| named(&what, e))
    }

    async fn create_physical_plan(
        &self,
        state: &dyn Session,
        config: FileScanConfig,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let plan = self.inner.create_physical_plan(state, config).await?;
        let source = plan.downcast_ref::<DataSourceExec>();
        let Some(config) = source.and_then(|s| s.data_source().downcast_ref::<FileScanConfig>())
        else {
            return Ok(plan);
        };
        let mut source = Arc::clone(config.file_source());
        if let Some(parquet) = source.downcast_ref::<ParquetSource>() {
            let runtime = state.runtime_env();
            let store = runtime.object_store(&config.object_store_url)?;
            let readers = CachedParquetFileReaderFactory::new(
                GuardedStore::new(store, None),
                runtime.cache_manager.get_file_metadata_cache(),
            );
            source = Arc::new(
                parquet
                    .clone()
                    .with_parquet_file_reader_factory(Arc::new(readers)),
            );
        }
        let guarded = FileScanConfigBuilder::from(config.clone());
        let guarded = guarded.with_source(GuardedSource::around(source)).build();
        Ok(DataSourceExec::from_data_source(guarded))
    }

    async fn create_writer_physical_plan(
        &self,
        input: Arc<dyn ExecutionPlan>,
        state: &dyn Session,
        config: FileSinkConfig,
        order: Option<LexRequirement>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let inner = &self.inner;
        inner
            .create_writer_physical_plan(input, state, config, order)
            .await
    }

    fn file_source(&self, schema: TableSchema) -> Arc<dyn FileSource> {
        self.inner.file_source(schema)
    }
}
