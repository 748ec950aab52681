//! A table of files: the library's listing table, whose statements each see the files that are
//! there, and whose INSERT is ours.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Constraints;
use datafusion::datasource::listing::{ListingTable, ListingTableUrl};
use datafusion::datasource::physical_plan::{FileGroup, FileSinkConfig};
use datafusion::datasource::sink::DataSinkExec;
use datafusion::error::Result;
use datafusion::execution::cache::TableScopedPath;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion_datasource::file_sink_config::FileOutputMode;

use super::batches;
use super::commit::Target;
use super::locate::Located;
use super::options::WriteOptions;
use super::sink::FilesSink;
use crate::declared::fitted;
use crate::error::{Error, ErrorKind};

/// The files of one or several places.
#[derive(Debug)]
pub(super) struct FilesTable {
    inner: ListingTable,
    places: Vec<Located>,
    write: WriteOptions,
}

impl FilesTable {
    pub(super) fn try_new(
        inner: ListingTable,
        places: Vec<Located>,
        write: WriteOptions,
    ) -> Result<Self, Error> {
        if let Some(key) = &write.key {
            let schema = inner.schema();
            let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
            if !names.contains(&key.as_str()) {
                return Err(Error::unknown("column in write.key", key, &names));
            }
        }
        Ok(Self {
            inner,
            places,
            write,
        })
    }

    /// The directory that an INSERT adds a file to.
    fn target(&self, state: &dyn Session) -> Result<Target, Error> {
        let [place] = &self.places[..] else {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "a table with several locations cannot be written to; make a table of one directory",
            ));
        };
        if !place.url.is_collection() || place.url.get_glob().is_some() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "'{}' names the files of a table; an INSERT adds a file to a directory: end \
                     the location with /",
                    place.shown
                ),
            ));
        }
        let store = state.runtime_env().object_store(&place.url);
        Ok(Target {
            store: store.map_err(|e| Error::while_doing(format!("reaching {}", place.shown), e))?,
            directory: place.url.clone(),
            shown: place.shown.clone(),
            extension: place.extension.clone(),
        })
    }

    /// The library's writer of the file `hidden`, which will be shown with `extension`.
    async fn writer(
        &self,
        state: &dyn Session,
        hidden: &ListingTableUrl,
        extension: &str,
    ) -> Result<Arc<DataSinkExec>> {
        let format = &self.inner.options().format;
        let config = FileSinkConfig {
            original_url: String::new(),
            object_store_url: hidden.object_store(),
            file_group: FileGroup::new(vec![]),
            table_paths: vec![hidden.clone()],
            output_schema: self.schema(),
            table_partition_cols: vec![],
            insert_op: InsertOp::Append,
            keep_partition_by_columns: false,
            file_extension: extension.trim_start_matches('.').to_owned(),
            file_output_mode: FileOutputMode::SingleFile,
        };
        let nothing = Arc::new(EmptyExec::new(self.schema()));
        let plan = format
            .create_writer_physical_plan(nothing, state, config, None)
            .await?;
        match plan.downcast_ref::<DataSinkExec>() {
            Some(writer) => Ok(Arc::new(writer.clone())),
            None => Err(Error::new(
                ErrorKind::Internal,
                format!("the writer of {} files is no sink", format.get_ext()),
            )
            .into()),
        }
    }
}

/// Makes the next statement list the files of `table` again: others may have added some.
pub(super) fn forget_listing(table: &ListingTable, runtime: &RuntimeEnv) {
    if let Some(cache) = runtime.cache_manager.get_list_files_cache() {
        for url in table.table_paths() {
            cache.remove(&TableScopedPath {
                table: url.get_table_ref().clone(),
                path: url.prefix().clone(),
            });
        }
    }
}

#[async_trait]
impl TableProvider for FilesTable {
    fn schema(&self) -> SchemaRef {
        self.inner.schema()
    }

    fn constraints(&self) -> Option<&Constraints> {
        self.inner.constraints()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn get_table_definition(&self) -> Option<&str> {
        self.inner.get_table_definition()
    }

    fn get_column_default(&self, column: &str) -> Option<&Expr> {
        self.inner.get_column_default(column)
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        self.inner.supports_filters_pushdown(filters)
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        forget_listing(&self.inner, state.runtime_env());
        let scan = self.inner.scan(state, projection, filters, limit).await?;
        Ok(batches::bounded(
            scan,
            projection,
            state.config().batch_size(),
        ))
    }

    async fn insert_into(
        &self,
        state: &dyn Session,
        input: Arc<dyn ExecutionPlan>,
        insert_op: InsertOp,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let target = self.target(state)?;
        if insert_op != InsertOp::Append {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "the files at '{}' cannot be replaced in one step; INSERT INTO a table at \
                     another location, or use STORED AS DELTA",
                    target.shown
                ),
            )
            .into());
        }
        let input = fitted(input, &self.schema())?;
        if !self.inner.options().table_partition_cols.is_empty() {
            if self.write.once() {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!(
                        "the table at '{}' is partitioned: an INSERT writes several files, which \
                         cannot be made visible at once; leave out PARTITIONED BY or the options \
                         write.*, or use STORED AS DELTA",
                        target.shown
                    ),
                )
                .into());
            }
            return self.inner.insert_into(state, input, insert_op).await;
        }
        let hidden = target.hidden_file();
        let sink = FilesSink {
            table: self.inner.clone(),
            schema: self.schema(),
            writer: self.writer(state, &hidden, &target.extension).await?,
            hidden: hidden.prefix().clone(),
            write: self.write.clone(),
            target,
        };
        Ok(Arc::new(DataSinkExec::new(input, Arc::new(sink), None)))
    }
}
