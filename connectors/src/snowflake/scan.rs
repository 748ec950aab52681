//! The physical plan of one SELECT: nothing happens before its stream is polled.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
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
use futures::stream;

use super::rows::Rows;
use super::session::Session;
use super::statement::Statement;
use crate::error;

/// A SELECT that runs in Snowflake, in one partition, so that the order of its rows is kept.
#[derive(Debug)]
pub(super) struct SnowflakeScan {
    session: Arc<Session>,
    doing: String,
    sql: String,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl SnowflakeScan {
    /// `schema` is that of the rows that `sql` selects from `table`.
    pub(super) fn new(session: Arc<Session>, table: &str, sql: String, schema: SchemaRef) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self {
            session,
            doing: format!("reading {table}"),
            sql,
            schema,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }
}

impl DisplayAs for SnowflakeScan {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SnowflakeScan: sql={}", self.sql)
    }
}

impl ExecutionPlan for SnowflakeScan {
    fn name(&self) -> &'static str {
        "SnowflakeScan"
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
        let reading = Reading {
            session: Arc::clone(&self.session),
            doing: self.doing.clone(),
            sql: self.sql.clone(),
            schema: Arc::clone(&self.schema),
            batch_rows: context.session_config().batch_size(),
            rows: None,
        };
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let batches = stream::try_unfold((reading, metrics), async |(mut reading, metrics)| {
            let batch = reading.next().await.map_err(DataFusionError::from)?;
            Ok(batch.map(|batch| {
                metrics.record_output(batch.num_rows());
                (batch, (reading, metrics))
            }))
        });
        let schema = Arc::clone(&self.schema);
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// The state of a stream.
struct Reading {
    session: Arc<Session>,
    doing: String,
    sql: String,
    schema: SchemaRef,
    batch_rows: usize,
    /// None before the statement was run.
    rows: Option<Rows>,
}

impl Reading {
    async fn next(&mut self) -> error::Result<Option<RecordBatch>> {
        let rows = match &mut self.rows {
            Some(rows) => rows,
            None => {
                let statement = Statement::new(&self.doing, &self.sql);
                let data = statement.run(&self.session).await?;
                let (schema, rows) = (&self.schema, self.batch_rows);
                let opened = Rows::open(&self.session, data, schema, rows, &self.doing)?;
                self.rows.insert(opened)
            }
        };
        rows.next().await
    }
}
