//! From the SQL call to a scan of [`QaTable`].
//!
//! DataFusion's own planner rejects named and table arguments of table functions, but a relation
//! planner sees the raw call.

use std::sync::{Arc, Weak};

use datafusion::common::TableReference;
use datafusion::datasource::provider_as_source;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlanBuilder;
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectName, TableAlias,
    TableFactor,
};
use parking_lot::RwLock;

use super::NAME;
use super::arguments::{QaArguments, invalid};
use super::input::InputPlanner;
use super::table::QaTable;
use crate::context::Casebook;
use crate::error::{Error, ErrorKind};

/// Plans `docs_to_qa(input, key => value, ...)` and `TABLE(docs_to_qa(...))`.
#[derive(Debug)]
pub struct DocsToQaPlanner {
    inputs: InputPlanner,
    casebook: Arc<Casebook>,
}

impl DocsToQaPlanner {
    /// A planner for the session behind `state`.
    pub fn new(state: Weak<RwLock<SessionState>>, casebook: Arc<Casebook>) -> Self {
        Self {
            inputs: InputPlanner(state),
            casebook,
        }
    }

    fn plan_call(
        &self,
        args: Vec<FunctionArg>,
        alias: Option<TableAlias>,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let mut args = args.into_iter();
        let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(input))) = args.next() else {
            return Err(invalid(
                "the first argument is the input: a table name, 'cases', or a query in double \
                 parentheses, ((SELECT ...))"
                    .into(),
            ));
        };
        let arguments = QaArguments::from_sql(args)?;
        let (plan, table) = self.inputs.plan(input, context)?;
        let options = context.context_provider().options();
        let provider = QaTable::try_new(
            Arc::clone(&self.casebook),
            plan,
            table.as_deref(),
            arguments,
            options,
        )?;
        let plan = LogicalPlanBuilder::scan(
            TableReference::bare(NAME),
            provider_as_source(Arc::new(provider)),
            None,
        )?
        .build()?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(
            plan, alias,
        ))))
    }
}

impl RelationPlanner for DocsToQaPlanner {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        match relation {
            TableFactor::Table {
                name,
                alias,
                args: Some(args),
                with_ordinality,
                sample,
                version,
                ..
            } if is_ours(&name) => {
                if with_ordinality {
                    return Err(refused("WITH ORDINALITY", "question_no numbers the rows"));
                }
                if sample.is_some() {
                    return Err(refused(
                        "TABLESAMPLE",
                        "sample the documents in the input query",
                    ));
                }
                if version.is_some() {
                    return Err(refused("a table version", "give it in the input query"));
                }
                self.plan_call(args.args, alias, context)
            }
            TableFactor::Function {
                name,
                lateral,
                args,
                alias,
                with_ordinality,
            } if is_ours(&name) => {
                if lateral {
                    return Err(refused(
                        "LATERAL",
                        "give the documents as the input: docs_to_qa((SELECT ... FROM ...))",
                    ));
                }
                if with_ordinality {
                    return Err(refused("WITH ORDINALITY", "question_no numbers the rows"));
                }
                self.plan_call(args, alias, context)
            }
            TableFactor::TableFunction {
                expr: SqlExpr::Function(function),
                alias,
            } if is_ours(&function.name) => {
                let FunctionArguments::List(list) = function.args else {
                    return Err(invalid("the input is missing".into()));
                };
                self.plan_call(list.args, alias, context)
            }
            TableFactor::Pivot { table, .. } | TableFactor::Unpivot { table, .. }
                if calls_us(&table) =>
            {
                Err(refused(
                    "PIVOT",
                    "select from it in a subquery and pivot that",
                ))
            }
            other => Ok(RelationPlanning::Original(Box::new(other))),
        }
    }
}

fn is_ours(name: &ObjectName) -> bool {
    name.0.len() == 1
        && name.0[0]
            .as_ident()
            .is_some_and(|ident| ident.value.eq_ignore_ascii_case(NAME))
}

fn calls_us(relation: &TableFactor) -> bool {
    matches!(relation, TableFactor::Table { name, args: Some(_), .. } if is_ours(name))
}

fn refused(what: &str, instead: &str) -> DataFusionError {
    Error::new(
        ErrorKind::Unsupported,
        format!("docs_to_qa: {what} is not supported; {instead}"),
    )
    .into()
}
