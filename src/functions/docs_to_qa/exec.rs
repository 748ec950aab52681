//! `QaExec`: the plan node that turns documents into question/answer rows.
//!
//! One output partition: an engine forms its batches across documents, so more partitions would
//! not generate faster and would make the row order depend on timing. It emits small batches as
//! soon as chunks are done, counts its LIMIT itself, and dropping its stream stops the work.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, CardinalityEffect, EmissionType};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, InputDistributionRequirements,
    Partitioning, PlanProperties,
};

use super::document::InputColumns;
use super::generate;
use super::metrics::QaMetrics;
use super::rows::Output;
use super::spec::QaSpec;

/// Generates rows for the documents of its input.
#[derive(Debug)]
pub struct QaExec {
    input: Arc<dyn ExecutionPlan>,
    layout: InputColumns,
    spec: Arc<QaSpec>,
    output: Arc<Output>,
    fetch: Option<usize>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl QaExec {
    /// A node over `input`, whose columns are laid out as `layout` says. `schema` is what the
    /// call declares; `projection` and `predicate` are applied to the rows as they are made.
    pub fn try_new(
        input: Arc<dyn ExecutionPlan>,
        layout: InputColumns,
        spec: Arc<QaSpec>,
        schema: SchemaRef,
        projection: Option<Vec<usize>>,
        predicate: Option<Arc<dyn PhysicalExpr>>,
        fetch: Option<usize>,
    ) -> Result<Self> {
        let output = Arc::new(Output::try_new(
            schema,
            spec.keep_document,
            projection,
            predicate,
        )?);
        Ok(Self::build(input, layout, spec, output, fetch))
    }

    fn build(
        input: Arc<dyn ExecutionPlan>,
        layout: InputColumns,
        spec: Arc<QaSpec>,
        output: Arc<Output>,
        fetch: Option<usize>,
    ) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(output.schema()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self {
            input,
            layout,
            spec,
            output,
            fetch,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }

    fn over(&self, input: Arc<dyn ExecutionPlan>, fetch: Option<usize>) -> Self {
        let (layout, spec) = (self.layout.clone(), Arc::clone(&self.spec));
        Self::build(input, layout, spec, Arc::clone(&self.output), fetch)
    }
}

impl DisplayAs for QaExec {
    fn fmt_as(&self, t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let profile = &self.spec.profile;
        match t {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                write!(
                    f,
                    "QaExec: model={}, profile={}, questions_per_chunk={}",
                    self.spec.model.shown(),
                    profile.name,
                    profile.questions_per_chunk
                )?;
                if let Some(n) = profile.max_pairs_per_document {
                    write!(f, ", max_pairs_per_document={n}")?;
                }
                write!(f, ", max_chunk_tokens={}", profile.max_chunk_tokens)?;
                if let Some(predicate) = self.output.predicate() {
                    write!(f, ", predicate={predicate}")?;
                }
                if let Some(n) = self.fetch {
                    write!(f, ", fetch={n}")?;
                }
                Ok(())
            }
            DisplayFormatType::TreeRender => {
                writeln!(f, "model={}", self.spec.model.shown())?;
                writeln!(f, "profile={}", profile.name)?;
                writeln!(f, "questions_per_chunk={}", profile.questions_per_chunk)?;
                match self.fetch {
                    Some(n) => writeln!(f, "fetch={n}"),
                    None => Ok(()),
                }
            }
        }
    }
}

impl ExecutionPlan for QaExec {
    fn name(&self) -> &str {
        "QaExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        InputDistributionRequirements::new(vec![Distribution::SinglePartition])
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        // Rows come in the order of their documents, but the columns are others.
        vec![false]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        match self.output.predicate() {
            Some(predicate) => f(predicate),
            None => Ok(TreeNodeRecursion::Continue),
        }
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.is_empty()) {
            (Some(input), true) => Ok(Arc::new(self.over(input, self.fetch))),
            _ => Err(DataFusionError::Internal("QaExec has one input".into())),
        }
    }

    fn supports_limit_pushdown(&self) -> bool {
        // True would push the limit to the documents: one document yields many rows.
        false
    }

    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn ExecutionPlan>> {
        Some(Arc::new(self.over(Arc::clone(&self.input), limit)))
    }

    fn fetch(&self) -> Option<usize> {
        self.fetch
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::GreaterEqual
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        let metrics = QaMetrics::new(&self.metrics, partition);
        let rows = generate::stream(
            input,
            self.layout.clone(),
            Arc::clone(&self.spec),
            Arc::clone(&self.output),
            self.fetch,
            metrics,
        );
        Ok(Box::pin(RecordBatchStreamAdapter::new(
            self.output.schema(),
            rows,
        )))
    }
}
