//! The files of a table as a scan: pruned by their folders, with their statistics, in groups.

use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::Session;
use datafusion::common::TableReference;
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, Constraints, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::listing::helpers::expr_applicable_for_cols;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder};
use datafusion::error::Result;
use datafusion::execution::cache::TableScopedPath;
use datafusion::execution::cache::cache_manager::{CachedFileMetadata, SchemaFingerprint};
use datafusion::logical_expr::{Expr, SortExpr};
use datafusion::physical_expr::{LexOrdering, create_lex_ordering};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion_datasource::compute_all_files_statistics;
use datafusion_datasource::file_format::FileFormat;
use datafusion_datasource::table_schema::TableSchema;
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectMeta, ObjectStore};

use super::locate::Located;
use super::partitions::{self, Filter, Partitions};

/// How the files of a table are read.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub(super) table: TableReference,
    pub(super) format: Arc<dyn FileFormat>,
    /// Columns that the files have.
    pub(super) file_schema: SchemaRef,
    pub(super) partitions: Partitions,
    /// As WITH ORDER says.
    pub(super) order: Vec<Vec<SortExpr>>,
    pub(super) constraints: Constraints,
}

impl Reading {
    /// Columns of the files, then those of the folders.
    pub(super) fn table_schema(&self) -> TableSchema {
        TableSchema::builder(Arc::clone(&self.file_schema))
            .with_table_partition_cols(partitions::fields(&self.partitions))
            .build()
    }

    /// True if the folders alone answer `filter`.
    pub(super) fn prunes(&self, filter: &Expr) -> bool {
        let names: Vec<&str> = self.partitions.iter().map(|(n, _)| n.as_str()).collect();
        !names.is_empty() && expr_applicable_for_cols(&names, filter)
    }

    /// Reads `files`, each with the place that it was found at; all are in one store.
    pub(super) async fn scan(
        &self,
        state: &dyn Session,
        files: Vec<(&Located, ObjectMeta)>,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = self.table_schema();
        let (by_folder, others): (Vec<Expr>, Vec<Expr>) =
            filters.iter().cloned().partition(|f| self.prunes(f));
        let properties = state.execution_props();
        let wanted = Filter::new(&self.partitions, &by_folder, properties)?;
        let first = files.first().map(|(place, _)| *place);
        let mut read = vec![];
        for (place, meta) in files {
            let values = partitions::values(place, &meta.location, &self.partitions)?;
            if let Some(wanted) = &wanted
                && !wanted.passes(&values)?
            {
                continue;
            }
            let mut file = PartitionedFile::from(meta);
            file.partition_values = values;
            file.table_reference = Some(self.table.clone());
            read.push(file);
        }
        let (Some(place), false) = (first, read.is_empty()) else {
            let all = schema.table_schema();
            let empty = match projection {
                Some(projection) => Arc::new(all.project(projection)?),
                None => Arc::clone(all),
            };
            return Ok(Arc::new(EmptyExec::new(empty)));
        };
        let store = place.store(state)?;
        let enough = if others.is_empty() { limit } else { None };
        let (group, cut) = self.with_statistics(state, &store, read, enough).await?;
        let groups = group.split_files(state.config().target_partitions());
        let (groups, statistics) = compute_all_files_statistics(
            groups,
            Arc::clone(schema.table_schema()),
            state.config().collect_statistics(),
            cut,
        )?;
        let order = self.ordering(state, &schema, &groups)?;
        let source = self.format.file_source(schema);
        let config = FileScanConfigBuilder::new(place.store.clone(), source)
            .with_file_groups(groups)
            .with_constraints(self.constraints.clone())
            .with_statistics(statistics)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .with_output_ordering(order)
            .build();
        self.format.create_physical_plan(state, config).await
    }

    /// The files that are needed for `limit` rows, and whether there are others.
    async fn with_statistics(
        &self,
        state: &dyn Session,
        store: &Arc<dyn ObjectStore>,
        files: Vec<PartitionedFile>,
        limit: Option<usize>,
    ) -> Result<(FileGroup, bool)> {
        let at_once = state
            .config_options()
            .execution
            .meta_fetch_concurrency
            .get();
        let collect = state.config().collect_statistics();
        let fingerprint = Arc::new(SchemaFingerprint::from_schema(&self.file_schema));
        let mut files = futures::stream::iter(files)
            .map(|file| {
                let fingerprint = Arc::clone(&fingerprint);
                async move {
                    if !collect {
                        let unknown = Arc::new(Statistics::new_unknown(&self.file_schema));
                        return Ok(file.with_statistics(unknown));
                    }
                    let meta = &file.object_meta;
                    let (statistics, order) =
                        self.statistics(state, store, meta, &fingerprint).await?;
                    Ok::<_, datafusion::error::DataFusionError>(
                        with_nulls(file.with_statistics(statistics)).with_ordering(order),
                    )
                }
            })
            .boxed()
            .buffered(at_once);
        let mut group = FileGroup::default();
        let mut rows = Some(0);
        while let Some(file) = files.try_next().await? {
            let here = file.statistics.as_ref().map(|s| s.num_rows);
            rows = match (rows, here) {
                (Some(rows), Some(Precision::Exact(here))) => Some(rows + here),
                _ => None,
            };
            group.push(file);
            if let (Some(limit), Some(rows)) = (limit, rows)
                && rows > limit
            {
                break;
            }
        }
        let cut = files.next().await.is_some();
        Ok((group, cut))
    }

    async fn statistics(
        &self,
        state: &dyn Session,
        store: &Arc<dyn ObjectStore>,
        meta: &ObjectMeta,
        fingerprint: &Arc<SchemaFingerprint>,
    ) -> Result<(Arc<Statistics>, Option<LexOrdering>)> {
        let key = TableScopedPath {
            table: Some(self.table.clone()),
            path: meta.location.clone(),
        };
        let cache = state.runtime_env().cache_manager.get_file_statistic_cache();
        if let Some(cache) = &cache
            && let Some(known) = cache.get(&key)
            && known.is_valid_for(meta, fingerprint)
        {
            return Ok((Arc::clone(&known.statistics), known.ordering.clone()));
        }
        let schema = Arc::clone(&self.file_schema);
        let found = self
            .format
            .infer_stats_and_ordering(state, store, schema, meta);
        let found = found.await?;
        let statistics = Arc::new(found.statistics);
        if let Some(cache) = &cache {
            let known = CachedFileMetadata::new(
                meta.clone(),
                Arc::clone(fingerprint),
                Arc::clone(&statistics),
                found.ordering.clone(),
            );
            cache.put(&key, known);
        }
        Ok((statistics, found.ordering))
    }

    /// The order that WITH ORDER promises, or that all files say they have.
    fn ordering(
        &self,
        state: &dyn Session,
        schema: &TableSchema,
        groups: &[FileGroup],
    ) -> Result<Vec<LexOrdering>> {
        if !self.order.is_empty() {
            return create_lex_ordering(
                schema.table_schema(),
                &self.order,
                state.execution_props(),
            );
        }
        let mut orders = groups
            .iter()
            .flat_map(|g| g.iter())
            .map(|f| f.ordering.clone());
        let first = orders.next().flatten();
        let same = first.filter(|first| orders.all(|order| order.as_ref() == Some(first)));
        Ok(same.into_iter().collect())
    }
}

/// The library takes it that no folder stands for null, and counts by that.
fn with_nulls(mut file: PartitionedFile) -> PartitionedFile {
    let Some(statistics) = file.statistics.take() else {
        return file;
    };
    let mut statistics = Arc::unwrap_or_clone(statistics);
    let rows = statistics.num_rows;
    let values = file.partition_values.iter().rev();
    for (value, column) in values.zip(statistics.column_statistics.iter_mut().rev()) {
        if value.is_null() {
            *column = ColumnStatistics::new_unknown().with_null_count(rows);
        }
    }
    file.statistics = Some(Arc::new(statistics));
    file
}
