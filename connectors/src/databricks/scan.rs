//! Reading through a warehouse: one SELECT, streamed.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{
    BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet, RecordOutput,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PhysicalExpr, PlanProperties,
};
use futures::{StreamExt, TryStreamExt, stream};

use super::chunks;
use super::statement::{Statement, Warehouse};
use super::types;
use crate::error::Error;

/// Runs a statement on a warehouse and streams its rows. Dropping the stream cancels the
/// statement or stops the download.
#[derive(Debug)]
pub(super) struct WarehouseScan {
    warehouse: Warehouse,
    table: String,
    statement: Statement,
    /// Why the table is not read as files.
    because: Arc<str>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl WarehouseScan {
    pub(super) fn new(
        warehouse: Warehouse,
        table: String,
        statement: Statement,
        because: Arc<str>,
        schema: SchemaRef,
    ) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self {
            warehouse,
            table,
            statement,
            because,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }
}

impl DisplayAs for WarehouseScan {
    fn fmt_as(&self, t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            warehouse,
            table,
            statement,
            because,
            ..
        } = self;
        // Texts of filters are parameters, so data does not show here.
        match t {
            DisplayFormatType::Default | DisplayFormatType::Verbose => write!(
                f,
                "WarehouseScan: table={table}, warehouse={}, because it {because}, sql={}",
                warehouse.id, statement.sql
            ),
            DisplayFormatType::TreeRender => {
                writeln!(f, "table={table}")?;
                writeln!(f, "warehouse={}", warehouse.id)
            }
        }
    }
}

impl ExecutionPlan for WarehouseScan {
    fn name(&self) -> &str {
        "WarehouseScan"
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

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match children.is_empty() {
            true => Ok(self),
            false => Err(DataFusionError::Internal(
                "WarehouseScan has no input".into(),
            )),
        }
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let schema = self.schema();
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let (warehouse, statement) = (self.warehouse.clone(), self.statement.clone());
        let what = format!("reading {}", self.table);
        let to = Arc::clone(&schema);
        let started = async move {
            let finished = warehouse.run(&what, &statement).await?;
            let rows = chunks::stream(warehouse, what.clone(), finished);
            Ok::<_, Error>(rows.map(move |batch| types::convert(&batch?, &to, &what)))
        };
        let rows = stream::once(started)
            .try_flatten()
            .map(move |batch| -> Result<_> { Ok(batch?.record_output(&metrics)) });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }
}
