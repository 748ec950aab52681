//! The scan of an ODBC table as a plan node: one statement, one partition, rows as they come.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{
    Boundedness, EmissionType, ReplaceChildrenOptions,
};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
};
use futures::stream;

use super::reader::{self, Query};

/// One statement on an ODBC source.
#[derive(Debug)]
pub(super) struct OdbcExec {
    query: Query,
    system: &'static str,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl OdbcExec {
    /// Will run `query` on `system`.
    pub(super) fn new(query: Query, system: &'static str) -> Self {
        let schema: SchemaRef = Arc::clone(&query.columns.schema);
        Self {
            query,
            system,
            properties: Arc::new(PlanProperties::new(
                EquivalenceProperties::new(schema),
                Partitioning::UnknownPartitioning(1),
                EmissionType::Incremental,
                Boundedness::Bounded,
            )),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }
}

impl DisplayAs for OdbcExec {
    fn fmt_as(&self, t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Query { sql, limit, .. } = &self.query;
        match t {
            DisplayFormatType::TreeRender => write!(f, "system={}", self.system),
            _ => {
                write!(f, "OdbcExec: system={}, sql={sql}", self.system)?;
                limit.map_or(Ok(()), |limit| write!(f, ", rows={limit}"))
            }
        }
    }
}

impl ExecutionPlan for OdbcExec {
    fn name(&self) -> &'static str {
        "OdbcExec"
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
        let table = query.table.clone();
        let counted = BaselineMetrics::new(&self.metrics, partition);
        let state = Next::Start(Box::new(query));
        let batches = stream::unfold(
            (state, counted, table),
            |(state, counted, table)| async move {
                // The statement is sent when the first batch is wanted, not when the plan is made.
                let mut receiver = match state {
                    Next::End => return None,
                    Next::Receive(receiver) => receiver,
                    Next::Start(query) => match reader::start(*query) {
                        Ok(receiver) => receiver,
                        Err(error) => {
                            return Some((Err(error.into()), (Next::End, counted, table)));
                        }
                    },
                };
                let item: Result<_, DataFusionError> = match receiver.recv().await {
                    Some(Ok(None)) => return None,
                    Some(Ok(Some(batch))) => {
                        counted.record_output(batch.num_rows());
                        return Some((Ok(batch), (Next::Receive(receiver), counted, table)));
                    }
                    Some(Err(error)) => Err(error.into()),
                    None => Err(reader::broken_off(&table).into()),
                };
                Some((item, (Next::End, counted, table)))
            },
        );
        let schema = Arc::clone(&self.query.columns.schema);
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// What a stream does next.
enum Next {
    Start(Box<Query>),
    Receive(
        tokio::sync::mpsc::Receiver<
            crate::error::Result<Option<datafusion::arrow::array::RecordBatch>>,
        >,
    ),
    End,
}
