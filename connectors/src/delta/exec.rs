//! The library's scan of one table, run with the table's own stores and guarded: a panic becomes
//! an error, an error names the table, and no statistics of floating columns are believed.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use datafusion::common::Statistics;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::datasource::physical_plan::{FileScanConfig, FileScanConfigBuilder};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result;
use datafusion::execution::object_store::ObjectStoreRegistry;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalSortExpr;
use datafusion::physical_plan::execution_plan::{CardinalityEffect, ReplaceChildrenOptions};
use datafusion::physical_plan::filter_pushdown::{
    ChildPushdownResult, FilterDescription, FilterPushdownPhase, FilterPushdownPropagation,
    PushedDown,
};
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, InputDistributionRequirements,
    PhysicalExpr, PlanProperties, SortOrderPushdownResult,
};

use crate::guard::{ExactTypes, GuardedSource, caught, may_prune, shown, stream, without_floats};
use crate::stores;

/// Files that an error names where it is not known which of them it is about.
const NAMED_FILES: usize = 3;

/// Stands for `inner` wherever a plan is looked at; running it is different, and what is pruned.
#[derive(Debug, Clone)]
pub(super) struct DeltaExec {
    inner: Arc<dyn ExecutionPlan>,
    /// What is read, for errors.
    what: Arc<str>,
    /// Where the scan finds its files: the session may have another store for the same bucket.
    stores: Arc<dyn ObjectStoreRegistry>,
}

impl DeltaExec {
    /// `scan` of the table `what`; of files with deletion vectors, if `deletes`.
    pub(super) fn around(
        scan: Arc<dyn ExecutionPlan>,
        what: &str,
        stores: &Arc<dyn ObjectStoreRegistry>,
        deletes: bool,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let guarded = scan.transform_up(|node| {
            let source = node.downcast_ref::<DataSourceExec>();
            let Some(config) = source.and_then(|s| s.data_source().downcast_ref()) else {
                return Ok(Transformed::no(node));
            };
            let config: &FileScanConfig = config;
            let types = ExactTypes::over(config.expr_adapter_factory.clone());
            let exact = FileScanConfigBuilder::from(config.clone()).with_expr_adapter(Some(types));
            Ok(Transformed::yes(match deletes {
                false => {
                    let source = GuardedSource::around(Arc::clone(config.file_source()));
                    DataSourceExec::from_data_source(exact.with_source(source).build())
                }
                // The library insists on its own source.
                true => Arc::new(Self {
                    what: one_of(config).into(),
                    inner: DataSourceExec::from_data_source(exact.build()),
                    stores: Arc::clone(stores),
                }),
            }))
        })?;
        Ok(Arc::new(Self {
            inner: guarded.data,
            what: what.into(),
            stores: Arc::clone(stores),
        }))
    }

    fn over(&self, inner: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
        Arc::new(Self {
            inner,
            what: Arc::clone(&self.what),
            stores: Arc::clone(&self.stores),
        })
    }
}

/// The files of `config`, or the first of them.
fn one_of(config: &FileScanConfig) -> String {
    let files = config.file_groups.iter().flat_map(|group| group.iter());
    let names = files.map(|file| shown(&config.object_store_url, &file.object_meta.location));
    let names: Vec<String> = names.collect();
    match &names[..] {
        [one] => one.clone(),
        [first @ .., _] if first.len() < NAMED_FILES => format!("one of {}", names.join(", ")),
        _ => {
            let more = names.len() - NAMED_FILES;
            format!("one of {} and {more} more", names[..NAMED_FILES].join(", "))
        }
    }
}

impl DisplayAs for DeltaExec {
    fn fmt_as(&self, kind: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        self.inner.fmt_as(kind, f)
    }
}

impl ExecutionPlan for DeltaExec {
    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let context = stores::with_stores(&context, Arc::clone(&self.stores));
        let batches = caught(&self.what, || self.inner.execute(partition, context))??;
        let schema = batches.schema();
        let batches = stream(Arc::clone(&self.what), batches);
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let inner = Arc::clone(&self.inner).replace_children(children, options)?;
        Ok(self.over(inner))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        #[allow(deprecated)] // the trait still asks for it
        let inner = Arc::clone(&self.inner).with_new_children(children)?;
        Ok(self.over(inner))
    }

    fn reset_state(self: Arc<Self>) -> Result<Arc<dyn ExecutionPlan>> {
        let inner = Arc::clone(&self.inner).reset_state()?;
        Ok(self.over(inner))
    }

    fn repartitioned(
        &self,
        partitions: usize,
        config: &ConfigOptions,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let inner = self.inner.repartitioned(partitions, config)?;
        Ok(inner.map(|inner| self.over(inner)))
    }

    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn ExecutionPlan>> {
        self.inner.with_fetch(limit).map(|inner| self.over(inner))
    }

    fn with_new_state(&self, state: Arc<dyn Any + Send + Sync>) -> Option<Arc<dyn ExecutionPlan>> {
        let inner = self.inner.with_new_state(state);
        inner.map(|inner| self.over(inner))
    }

    fn with_preserve_order(&self, preserve: bool) -> Option<Arc<dyn ExecutionPlan>> {
        let inner = self.inner.with_preserve_order(preserve);
        inner.map(|inner| self.over(inner))
    }

    fn try_swapping_with_projection(
        &self,
        projection: &ProjectionExec,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let inner = self.inner.try_swapping_with_projection(projection)?;
        Ok(inner.map(|inner| self.over(inner)))
    }

    fn try_pushdown_sort(
        &self,
        order: &[PhysicalSortExpr],
    ) -> Result<SortOrderPushdownResult<Arc<dyn ExecutionPlan>>> {
        let pushed = self.inner.try_pushdown_sort(order)?;
        Ok(pushed.map(|inner| self.over(inner)))
    }

    fn handle_child_pushdown_result(
        &self,
        phase: FilterPushdownPhase,
        result: ChildPushdownResult,
        config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        let sound: Vec<bool> = match self.inner.children().is_empty() {
            true => {
                let filters = result.parent_filters.iter();
                let schema = self.schema();
                filters.map(|f| may_prune(&f.filter, &schema)).collect()
            }
            // Those below have their own say.
            false => vec![true; result.parent_filters.len()],
        };
        let given = result.parent_filters.into_iter().zip(&sound);
        let given = given.filter(|(_, sound)| **sound).map(|(f, _)| f).collect();
        let given = ChildPushdownResult {
            parent_filters: given,
            self_filters: result.self_filters,
        };
        let pushed = self
            .inner
            .handle_child_pushdown_result(phase, given, config)?;
        let mut answers = pushed.filters.into_iter();
        let answer = |sound| match sound {
            true => answers.next().unwrap_or(PushedDown::No),
            false => PushedDown::No,
        };
        Ok(FilterPushdownPropagation {
            filters: sound.into_iter().map(answer).collect(),
            updated_node: pushed.updated_node.map(|inner| self.over(inner)),
        })
    }

    // The rest is as the library says.

    fn name(&self) -> &str {
        self.inner.name()
    }

    fn downcast_delegate(&self) -> Option<&dyn ExecutionPlan> {
        Some(self.inner.as_ref())
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.inner.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.inner.children()
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        #[allow(deprecated)] // the trait still has it
        self.inner.required_input_distribution()
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        self.inner.input_distribution_requirements()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        self.inner.maintains_input_order()
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        self.inner.benefits_from_input_partitioning()
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.inner.apply_expressions(f)
    }

    fn metrics(&self) -> Option<MetricsSet> {
        self.inner.metrics()
    }

    fn statistics_from_inputs(
        &self,
        inputs: &[Arc<Statistics>],
        args: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        let statistics = self.inner.statistics_from_inputs(inputs, args)?;
        let statistics = Arc::unwrap_or_clone(statistics);
        Ok(Arc::new(without_floats(statistics, &self.schema())))
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        self.inner.child_stats_requests(partition)
    }

    fn supports_limit_pushdown(&self) -> bool {
        self.inner.supports_limit_pushdown()
    }

    fn fetch(&self) -> Option<usize> {
        self.inner.fetch()
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        self.inner.cardinality_effect()
    }

    fn gather_filters_for_pushdown(
        &self,
        phase: FilterPushdownPhase,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        config: &ConfigOptions,
    ) -> Result<FilterDescription> {
        self.inner
            .gather_filters_for_pushdown(phase, filters, config)
    }
}
