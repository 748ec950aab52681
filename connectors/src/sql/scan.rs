//! The physical plan of one SELECT: one statement, one partition, so that the order of its rows is
//! kept; nothing happens before its stream is polled.

use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions,
};
use futures::StreamExt;

use super::exchange::{Described, Query, Statement};
use super::spool::{SpoolLimits, spooled};
use super::system::SqlSystem;

/// A SELECT that runs in a SQL system.
#[derive(Debug)]
pub(crate) struct SqlScan {
    system: Arc<dyn SqlSystem>,
    /// For EXPLAIN: the way, and what is worth knowing of it.
    way: &'static str,
    detail: String,
    query: Query,
    spool: SpoolLimits,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl SqlScan {
    /// Will run `query` on the table that was `described`; rows that wait are kept as `spool` says.
    pub(crate) fn new(
        system: Arc<dyn SqlSystem>,
        described: &Described,
        query: Query,
        spool: SpoolLimits,
    ) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(query.columns.schema())),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self {
            system,
            way: described.way,
            detail: described.detail.clone(),
            query,
            spool,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }
}

impl DisplayAs for SqlScan {
    fn fmt_as(&self, t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if t == DisplayFormatType::TreeRender {
            return write!(f, "{}", self.detail);
        }
        // Where texts of filters are parameters, no data shows here.
        let Statement { sql, .. } = &self.query.statement;
        write!(f, "{}Scan: ", self.way)?;
        if !self.detail.is_empty() {
            write!(f, "{}, ", self.detail)?;
        }
        write!(f, "sql={sql}")?;
        self.query
            .limit
            .map_or(Ok(()), |rows| write!(f, ", rows={rows}"))
    }
}

impl ExecutionPlan for SqlScan {
    fn name(&self) -> &'static str {
        "SqlScan"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let mut query = self.query.clone();
        query.batch_rows = context.session_config().batch_size();
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let doing = query.doing.clone();
        let rows = spooled(self.system.rows(query), &doing, self.spool);
        let rows = rows.map(move |batch| {
            let batch = batch?;
            metrics.record_output(batch.num_rows());
            Ok::<_, DataFusionError>(batch)
        });
        let schema = Arc::clone(self.query.columns.schema());
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}
