//! `QaTable`: the call as a table, so that projection, filters and LIMIT reach generation.
//!
//! It holds the input as a logical plan and plans it with the session at scan time. Predicates on
//! kept columns go into the input; every other one is applied to the rows as they are made, so no
//! filter stands between LIMIT and generation.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::{
    Expr, LogicalPlan, LogicalPlanBuilder, TableProviderFilterPushDown, TableType, cast,
    utils::conjunction,
};
use datafusion::physical_plan::ExecutionPlan;

use super::arguments::QaArguments;
use super::columns::Columns;
use super::document::InputColumns;
use super::exec::QaExec;
use super::spec::QaSpec;
use crate::context::Casebook;
use crate::settings::CasebookConfig;

/// Names of output columns that are settled by the document alone.
const DOC_ID: &str = "doc_id";

/// One call of `docs_to_qa`.
#[derive(Debug)]
pub struct QaTable {
    input: LogicalPlan,
    columns: Columns,
    schema: SchemaRef,
    spec: Arc<QaSpec>,
}

impl QaTable {
    /// Checks the call: columns, model name, profile and its overrides. Loads nothing.
    pub fn try_new(
        casebook: Arc<Casebook>,
        input: LogicalPlan,
        table: Option<&str>,
        arguments: QaArguments,
        options: &ConfigOptions,
    ) -> Result<Self> {
        let settings = table
            .map(|name| casebook.table_settings(name))
            .unwrap_or_default();
        let columns = Columns::resolve(input.schema(), &arguments, &settings)?;
        let schema = columns.output_schema(input.schema());
        let config = options
            .extensions
            .get::<CasebookConfig>()
            .cloned()
            .unwrap_or_default();
        let spec = QaSpec::resolve(casebook, &config.qa, &arguments)?;
        Ok(Self {
            input,
            columns,
            schema,
            spec: Arc::new(spec),
        })
    }

    /// The input with only the columns needed, and the predicates that it can settle itself.
    fn pruned_input(&self, filters: &[Expr]) -> Result<(LogicalPlan, InputColumns)> {
        let schema = self.input.schema();
        let column = |i: usize| Expr::Column(schema.columns()[i].clone());
        let mut builder = LogicalPlanBuilder::from(self.input.clone());
        if let Some(predicate) = conjunction(self.input_filters(filters)?) {
            builder = builder.filter(predicate)?;
        }
        let text = |i: usize| cast(column(i), DataType::Utf8View);
        let mut exprs = vec![text(self.columns.text).alias("text")];
        if let Some(id) = self.columns.id {
            exprs.push(text(id).alias("id"));
        }
        for (n, (_, i)) in self.columns.title.iter().enumerate() {
            exprs.push(text(*i).alias(format!("title_{n}")));
        }
        for (n, (_, i)) in self.columns.keep.iter().enumerate() {
            exprs.push(column(*i).alias(format!("keep_{n}")));
        }
        let layout = InputColumns {
            has_id: self.columns.id.is_some(),
            title: self
                .columns
                .title
                .iter()
                .map(|(name, _)| name.clone())
                .collect(),
            keep: self.columns.keep.len(),
        };
        Ok((builder.project(exprs)?.build()?, layout))
    }

    /// The part of `filters` that speaks only of kept columns or the document id, in terms of the
    /// input's columns. A row with a null id gets its id later, so it passes here.
    ///
    /// Documents without an id are told apart by their text, and of two with the same text one
    /// counts; which one that is depends on what is filtered here. The README says so: applied
    /// later, a predicate would cost the pairs of every document that it leaves out.
    fn input_filters(&self, filters: &[Expr]) -> Result<Vec<Expr>> {
        let schema = self.input.schema();
        let mut out = vec![];
        for filter in filters {
            let names = filter.column_refs();
            let kept = |name: &str| self.columns.keep.iter().find(|(n, _)| n == name);
            let settled =
                |name: &str| kept(name).is_some() || (name == DOC_ID && self.columns.id.is_some());
            if filter.is_volatile() || names.is_empty() || !names.iter().all(|c| settled(&c.name)) {
                continue;
            }
            let uses_id = names.iter().any(|c| c.name == DOC_ID);
            let rewritten = filter
                .clone()
                .transform(|expr| {
                    let Expr::Column(c) = &expr else {
                        return Ok(Transformed::no(expr));
                    };
                    let new = match (kept(&c.name), self.columns.id) {
                        (Some((_, i)), _) => Expr::Column(schema.columns()[*i].clone()),
                        (None, Some(id)) => cast(
                            Expr::Column(schema.columns()[id].clone()),
                            DataType::Utf8View,
                        ),
                        (None, None) => return Ok(Transformed::no(expr)),
                    };
                    Ok(Transformed::yes(new))
                })?
                .data;
            out.push(match (uses_id, self.columns.id) {
                (true, Some(id)) => {
                    rewritten.or(Expr::Column(schema.columns()[id].clone()).is_null())
                }
                _ => rewritten,
            });
        }
        Ok(out)
    }
}

#[async_trait]
impl TableProvider for QaTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Exact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (input, layout) = self.pruned_input(filters)?;
        let input = state.create_physical_plan(&input).await?;
        let predicate = match conjunction(filters.to_vec()) {
            None => None,
            Some(Expr::Literal(ScalarValue::Boolean(Some(true)), _)) => None,
            Some(predicate) => {
                let schema = DFSchema::try_from(Arc::clone(&self.schema))?;
                Some(state.create_physical_expr(predicate, &schema)?)
            }
        };
        let exec = QaExec::try_new(
            input,
            layout,
            Arc::clone(&self.spec),
            Arc::clone(&self.schema),
            projection.cloned(),
            predicate,
            limit,
        )?;
        Ok(Arc::new(exec))
    }
}
