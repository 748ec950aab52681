//! The library's format of Parquet, whose schemas, statistics and scans are guarded, and whose
//! errors name the file.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::Session;
use datafusion::common::{GetExt, Statistics};
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::file_format::parquet::ParquetFormatFactory;
use datafusion::datasource::file_format::{FileFormat, FileFormatFactory};
use datafusion::datasource::physical_plan::{
    FileScanConfig, FileScanConfigBuilder, FileSinkConfig, FileSource, ParquetSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::physical_expr::{LexOrdering, LexRequirement};
use datafusion::physical_plan::ExecutionPlan;
use datafusion_datasource::file_format::FileMeta;
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectMeta, ObjectStore};

use super::parquet::CheckedReaders;
use super::source::{GuardedSource, shown};
use super::store::GuardedStore;
use super::types::ExactTypes;
use super::{caught_while, merge, named, parquet, pruning};
use crate::stores;
use crate::whole::whole;

/// Encoded bytes of a row group: what a writer, and later a reader, has in memory.
const ROW_GROUP_BYTES: &str = "67108864";

/// Makes the Parquet format of a table; takes the place of DataFusion's factory for `parquet`.
#[derive(Debug)]
pub(crate) struct ParquetFactory {
    /// The store of the table's files, to name them.
    pub(crate) base: Option<ObjectStoreUrl>,
}

impl FileFormatFactory for ParquetFactory {
    fn create(
        &self,
        state: &dyn Session,
        format_options: &HashMap<String, String>,
    ) -> Result<Arc<dyn FileFormat>> {
        let mut options = format_options.clone();
        let mut default = |key: &str, value: &str| {
            options
                .entry(key.into())
                .or_insert_with(|| value.to_owned());
        };
        // The library's parallel writer bounds rows only, and a row can be megabytes.
        default("format.max_row_group_bytes", ROW_GROUP_BYTES);
        default("format.allow_single_file_parallelism", "false");
        // Nanoseconds, which is what the library makes of INT96, end in the year 2262.
        let set = &state.config_options().execution.parquet.coerce_int96;
        if set.is_none() {
            default("format.coerce_int96", "us");
        }
        Ok(Arc::new(GuardedFormat {
            inner: ParquetFormatFactory::new().create(state, &options)?,
            base: self.base.clone(),
        }))
    }

    fn default(&self) -> Arc<dyn FileFormat> {
        Arc::new(GuardedFormat {
            inner: ParquetFormatFactory::new().default(),
            base: self.base.clone(),
        })
    }
}

impl GetExt for ParquetFactory {
    fn get_ext(&self) -> String {
        "parquet".into()
    }
}

/// The library's format of Parquet; this one reads and writes as that does.
#[derive(Debug)]
struct GuardedFormat {
    inner: Arc<dyn FileFormat>,
    base: Option<ObjectStoreUrl>,
}

impl GuardedFormat {
    fn shown(&self, store: &dyn ObjectStore, file: &ObjectMeta) -> String {
        match &self.base {
            Some(base) => shown(base, &file.location),
            None => format!("'{}'", stores::shown_file(store, &file.location)),
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
        let at_once = state.config_options().execution.meta_fetch_concurrency;
        let (inner, store) = (&self.inner, &store);
        let found = futures::stream::iter(files)
            .map(|file| async move {
                let what = self.shown(store.as_ref(), file);
                let found = async {
                    parquet::check_file(state, store.as_ref(), file, None).await?;
                    let file = std::slice::from_ref(file);
                    inner.infer_schema(state, store, file).await
                };
                let found = caught_while(&what, found).await;
                Ok::<_, DataFusionError>((found.map_err(|e| named(&what, e))?, what))
            })
            .boxed() // or the compiler takes the lifetimes for too short
            .buffered(at_once.get())
            .try_collect::<Vec<_>>();
        Ok(merge::merged(found.await?)?)
    }

    async fn infer_stats(
        &self,
        state: &dyn Session,
        store: &Arc<dyn ObjectStore>,
        schema: SchemaRef,
        file: &ObjectMeta,
    ) -> Result<Statistics> {
        let what = self.shown(store.as_ref(), file);
        let store: Arc<dyn ObjectStore> = GuardedStore::new(Arc::clone(store), None);
        let inferred = async {
            let checked = parquet::check_file(state, store.as_ref(), file, Some(schema.as_ref()));
            let footer = checked.await?;
            let inferred = self
                .inner
                .infer_stats(state, &store, Arc::clone(&schema), file);
            Ok(pruning::trusted(inferred.await?, &footer, &schema))
        };
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
        let what = self.shown(store.as_ref(), file);
        let store: Arc<dyn ObjectStore> = GuardedStore::new(Arc::clone(store), None);
        let inferred = self
            .inner
            .infer_ordering(state, &store, Arc::clone(&schema), file);
        let inferred = caught_while(&what, inferred).await;
        let order = inferred.map_err(|e| named(&what, e))?;
        Ok(order.and_then(|order| pruning::without_float_order(order, &schema)))
    }

    async fn infer_stats_and_ordering(
        &self,
        state: &dyn Session,
        store: &Arc<dyn ObjectStore>,
        schema: SchemaRef,
        file: &ObjectMeta,
    ) -> Result<FileMeta> {
        let what = self.shown(store.as_ref(), file);
        let store: Arc<dyn ObjectStore> = GuardedStore::new(Arc::clone(store), None);
        let inferred = async {
            let checked = parquet::check_file(state, store.as_ref(), file, Some(schema.as_ref()));
            let footer = checked.await?;
            let (inner, table) = (&self.inner, Arc::clone(&schema));
            let inferred = inner.infer_stats_and_ordering(state, &store, table, file);
            let mut inferred = inferred.await?;
            inferred.statistics = pruning::trusted(inferred.statistics, &footer, &schema);
            let order = inferred.ordering.take();
            inferred.ordering = order.and_then(|o| pruning::without_float_order(o, &schema));
            Ok(inferred)
        };
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
            let readers = CheckedReaders {
                store: runtime.object_store(&config.object_store_url)?,
                cache: runtime.cache_manager.get_file_metadata_cache(),
                table: Arc::clone(parquet.table_schema().file_schema()),
            };
            let parquet = parquet.clone();
            source = Arc::new(parquet.with_parquet_file_reader_factory(Arc::new(readers)));
        }
        let guarded = FileScanConfigBuilder::from(config.clone())
            .with_source(GuardedSource::around(source))
            .with_expr_adapter(Some(ExactTypes::over(config.expr_adapter_factory.clone())))
            .build();
        Ok(DataSourceExec::from_data_source(guarded))
    }

    async fn create_writer_physical_plan(
        &self,
        input: Arc<dyn ExecutionPlan>,
        state: &dyn Session,
        config: FileSinkConfig,
        order: Option<LexRequirement>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        stores::check_written(&config.table_paths).await?;
        let inner = &self.inner;
        let plan = inner
            .create_writer_physical_plan(input, state, config.clone(), order)
            .await?;
        whole(&plan, &config)
    }

    fn file_source(&self, schema: TableSchema) -> Arc<dyn FileSource> {
        self.inner.file_source(schema)
    }
}
