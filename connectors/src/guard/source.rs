//! A source of files whose every open and poll is guarded, whose errors name the file, and that is
//! pruned by sound filters only.

use std::fmt::{self, Debug, Formatter};
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileOpener, FileScanConfig, FileSource};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::Result;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_expr::{EquivalenceProperties, LexOrdering, PhysicalSortExpr};
use datafusion::physical_plan::filter_pushdown::{FilterPushdownPropagation, PushedDown};
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::physical_plan::{DisplayFormatType, PhysicalExpr, SortOrderPushdownResult};
use datafusion_datasource::morsel::{Morsel, MorselPlan, MorselPlanner, Morselizer};
use futures::stream::BoxStream;
use object_store::ObjectStore;
use object_store::path::Path;
use url::Url;

use super::pruning::may_prune;
use super::{caught, caught_while, named, stream};

/// A library's source; this one reads as that does, but for filters that statistics would mislead.
#[derive(Clone)]
pub(crate) struct GuardedSource(Arc<dyn FileSource>);

impl GuardedSource {
    pub(crate) fn around(inner: Arc<dyn FileSource>) -> Arc<dyn FileSource> {
        Arc::new(Self(inner))
    }
}

/// The file at `path` of the store `base`, as an error names it: without credentials, and without
/// the mark of a store of our own.
pub(crate) fn shown(base: &ObjectStoreUrl, path: &Path) -> String {
    let url: &Url = base.as_ref();
    let scheme = url.scheme().split('+').next().unwrap_or_default();
    match (scheme, url.host_str()) {
        ("file", _) => format!("'/{path}'"),
        // A Delta table whose directory is the root of its store.
        ("delta", _) => format!("'{path}'"),
        (scheme, host) => format!("'{scheme}://{}/{path}'", host.unwrap_or_default()),
    }
}

impl FileSource for GuardedSource {
    fn create_file_opener(
        &self,
        store: Arc<dyn ObjectStore>,
        config: &FileScanConfig,
        partition: usize,
    ) -> Result<Arc<dyn FileOpener>> {
        self.0.create_file_opener(store, config, partition)
    }

    fn create_morselizer(
        &self,
        store: Arc<dyn ObjectStore>,
        config: &FileScanConfig,
        partition: usize,
    ) -> Result<Box<dyn Morselizer>> {
        Ok(Box::new(GuardedMorselizer {
            inner: self.0.create_morselizer(store, config, partition)?,
            base: config.object_store_url.clone(),
        }))
    }

    fn table_schema(&self) -> &TableSchema {
        self.0.table_schema()
    }

    fn with_batch_size(&self, batch_size: usize) -> Arc<dyn FileSource> {
        Self::around(self.0.with_batch_size(batch_size))
    }

    fn filter(&self) -> Option<Arc<dyn PhysicalExpr>> {
        self.0.filter()
    }

    fn projection(&self) -> Option<&ProjectionExprs> {
        self.0.projection()
    }

    fn metrics(&self) -> &ExecutionPlanMetricsSet {
        self.0.metrics()
    }

    fn file_type(&self) -> &str {
        self.0.file_type()
    }

    fn fmt_extra(&self, kind: DisplayFormatType, f: &mut Formatter) -> fmt::Result {
        self.0.fmt_extra(kind, f)
    }

    fn supports_repartitioning(&self) -> bool {
        self.0.supports_repartitioning()
    }

    fn repartitioned(
        &self,
        partitions: usize,
        min_size: usize,
        ordering: Option<LexOrdering>,
        config: &FileScanConfig,
    ) -> Result<Option<FileScanConfig>> {
        self.0.repartitioned(partitions, min_size, ordering, config)
    }

    fn try_pushdown_filters(
        &self,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn FileSource>>> {
        let table = self.0.table_schema().table_schema();
        let sound: Vec<bool> = filters.iter().map(|f| may_prune(f, table)).collect();
        let given = filters.into_iter().zip(&sound).filter(|(_, sound)| **sound);
        let pushed = self
            .0
            .try_pushdown_filters(given.map(|(f, _)| f).collect(), config)?;
        let mut answers = pushed.filters.into_iter();
        let answer = |sound| match sound {
            true => answers.next().unwrap_or(PushedDown::No),
            false => PushedDown::No,
        };
        Ok(FilterPushdownPropagation {
            filters: sound.into_iter().map(answer).collect(),
            updated_node: pushed.updated_node.map(Self::around),
        })
    }

    fn try_pushdown_sort(
        &self,
        order: &[PhysicalSortExpr],
        properties: &EquivalenceProperties,
    ) -> Result<SortOrderPushdownResult<Arc<dyn FileSource>>> {
        let pushed = self.0.try_pushdown_sort(order, properties)?;
        Ok(pushed.map(Self::around))
    }

    fn reorder_files(&self, files: Vec<PartitionedFile>) -> Vec<PartitionedFile> {
        self.0.reorder_files(files)
    }

    fn try_pushdown_projection(
        &self,
        projection: &ProjectionExprs,
    ) -> Result<Option<Arc<dyn FileSource>>> {
        let pushed = self.0.try_pushdown_projection(projection)?;
        Ok(pushed.map(Self::around))
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.0.apply_expressions(f)
    }
}

#[derive(Debug)]
struct GuardedMorselizer {
    inner: Box<dyn Morselizer>,
    base: ObjectStoreUrl,
}

impl Morselizer for GuardedMorselizer {
    fn plan_file(&self, file: PartitionedFile) -> Result<Box<dyn MorselPlanner>> {
        let what: Arc<str> = shown(&self.base, &file.object_meta.location).into();
        let planner = caught(&what, || self.inner.plan_file(file))?;
        let inner = planner.map_err(|e| named(&what, e))?;
        Ok(Box::new(GuardedPlanner { inner, what }))
    }
}

/// The library's reading of one file, step by step.
#[derive(Debug)]
struct GuardedPlanner {
    inner: Box<dyn MorselPlanner>,
    what: Arc<str>,
}

impl MorselPlanner for GuardedPlanner {
    fn plan(self: Box<Self>) -> Result<Option<MorselPlan>> {
        let Self { inner, what } = *self;
        let planned = caught(&what, || inner.plan())?;
        let Some(mut plan) = planned.map_err(|e| named(&what, e))? else {
            return Ok(None);
        };
        let guarded = |inner: Box<dyn MorselPlanner>, what: &Arc<str>| {
            let what = Arc::clone(what);
            Box::new(GuardedPlanner { inner, what }) as Box<dyn MorselPlanner>
        };
        let morsels = plan.take_morsels().into_iter().map(|inner| {
            let what = Arc::clone(&what);
            Box::new(GuardedMorsel { inner, what }) as Box<dyn Morsel>
        });
        let morsels = morsels.collect();
        let planners = plan.take_ready_planners().into_iter();
        let planners = planners.map(|inner| guarded(inner, &what)).collect();
        let out = MorselPlan::new()
            .with_morsels(morsels)
            .with_planners(planners);
        Ok(Some(match plan.take_pending_planner() {
            None => out,
            Some(pending) => out.with_pending_planner(async move {
                let pending = caught_while(&what, pending.into_future()).await;
                let next = pending.map_err(|e| named(&what, e))?;
                Ok(guarded(next, &what))
            }),
        }))
    }
}

struct GuardedMorsel {
    inner: Box<dyn Morsel>,
    what: Arc<str>,
}

impl Debug for GuardedMorsel {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl Morsel for GuardedMorsel {
    fn into_stream(self: Box<Self>) -> BoxStream<'static, Result<RecordBatch>> {
        let Self { inner, what } = *self;
        match caught(&what, || inner.into_stream()) {
            Ok(batches) => stream(what, batches),
            Err(error) => Box::pin(futures::stream::iter([Err(error.into())])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_as_a_user_would() {
        for (base, expected) in [
            ("file:///", "'/data/a b.parquet'"),
            ("s3://bucket/", "'s3://bucket/data/a b.parquet'"),
            ("delta://main.cases.7/", "'data/a b.parquet'"),
            ("s3+5f3a://bucket/", "'s3://bucket/data/a b.parquet'"),
        ] {
            let base = ObjectStoreUrl::parse(base).unwrap();
            let path = Path::from("data/a b.parquet");
            assert_eq!(shown(&base, &path), expected);
        }
    }
}
