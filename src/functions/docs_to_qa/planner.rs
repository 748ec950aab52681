//! From the SQL call to a scan of [`QaTable`].
//!
//! DataFusion's own planner rejects named and table arguments of table functions, but a relation
//! planner sees the raw call. The input is found through the statement's own names first (CTEs,
//! tables that it mentions elsewhere), then through the session's catalogs, because a name inside
//! a string literal is not fetched in advance.

use std::sync::{Arc, Weak};

use datafusion::common::TableReference;
use datafusion::datasource::provider_as_source;
use datafusion::error::Result;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName,
    ObjectNamePart, TableAlias, TableFactor, Value,
};
use futures::FutureExt;
use parking_lot::RwLock;

use super::NAME;
use super::arguments::{QaArguments, invalid};
use super::table::QaTable;
use crate::context::Casebook;

/// Plans `docs_to_qa(input, key => value, ...)` and `TABLE(docs_to_qa(...))`.
#[derive(Debug)]
pub struct DocsToQaPlanner {
    state: Weak<RwLock<SessionState>>,
    casebook: Arc<Casebook>,
}

impl DocsToQaPlanner {
    /// A planner for the session behind `state`.
    pub fn new(state: Weak<RwLock<SessionState>>, casebook: Arc<Casebook>) -> Self {
        Self { state, casebook }
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
        let (plan, table) = self.plan_input(input, context)?;
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

    /// The input's plan and, if it is a named table, the last part of its name.
    fn plan_input(
        &self,
        input: SqlExpr,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<(LogicalPlan, Option<String>)> {
        let name = match input {
            SqlExpr::Subquery(subquery) => {
                let derived = TableFactor::Derived {
                    lateral: false,
                    subquery,
                    alias: None,
                    sample: None,
                };
                return Ok((context.plan(derived)?, None));
            }
            SqlExpr::Nested(inner) => return self.plan_input(*inner, context),
            SqlExpr::Identifier(ident) => ObjectName(vec![ObjectNamePart::Identifier(ident)]),
            SqlExpr::CompoundIdentifier(parts) => {
                ObjectName(parts.into_iter().map(ObjectNamePart::Identifier).collect())
            }
            SqlExpr::Value(value) => match value.value {
                Value::SingleQuotedString(name) | Value::DoubleQuotedString(name) => {
                    object_name(&name)?
                }
                other => return Err(invalid(format!("the input is {other}, not a table name"))),
            },
            other => {
                return Err(invalid(format!(
                    "the input is {other}; give a table name, 'cases', or a query in double \
                     parentheses, ((SELECT ...))"
                )));
            }
        };
        let table = context.object_name_to_table_reference(name.clone())?;
        let short = table.table().to_owned();
        let planned = context.plan(table_factor(name));
        let plan = match planned {
            Ok(plan) => plan,
            Err(first) => match self.look_up(&table)? {
                Some(plan) => plan,
                None => return Err(not_found(&table, &self.known_tables()).unwrap_or(first)),
            },
        };
        Ok((plan, Some(short)))
    }

    /// Looks `table` up in the session's catalogs.
    fn look_up(&self, table: &TableReference) -> Result<Option<LogicalPlan>> {
        let Some(state) = self.state.upgrade() else {
            return Ok(None);
        };
        let state = state.read().clone();
        let resolved = state.config_options().catalog.clone();
        let full = table
            .clone()
            .resolve(&resolved.default_catalog, &resolved.default_schema);
        let schema = state
            .catalog_list()
            .catalog(&full.catalog)
            .and_then(|catalog| catalog.schema(&full.schema));
        let Some(schema) = schema else {
            return Ok(None);
        };
        let found = match schema.table(&full.table).now_or_never() {
            Some(found) => found?,
            // The catalog needs to wait, for the network say. That can be done here only where
            // another worker keeps the runtime going.
            None => wait_for(schema.table(&full.table), table)?,
        };
        let Some(provider) = found else {
            return Ok(None);
        };
        let plan = LogicalPlanBuilder::scan(table.clone(), provider_as_source(provider), None)?;
        Ok(Some(plan.build()?))
    }

    fn known_tables(&self) -> Vec<String> {
        let Some(state) = self.state.upgrade() else {
            return vec![];
        };
        let state = state.read().clone();
        let names = &state.config_options().catalog;
        state
            .catalog_list()
            .catalog(&names.default_catalog)
            .and_then(|catalog| catalog.schema(&names.default_schema))
            .map(|schema| schema.table_names())
            .unwrap_or_default()
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

/// Awaits a catalog look-up from this synchronous place.
fn wait_for<T>(look_up: impl Future<Output = Result<T>>, table: &TableReference) -> Result<T> {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::try_current() {
        Ok(handle) if handle.runtime_flavor() == RuntimeFlavor::MultiThread => {
            tokio::task::block_in_place(|| handle.block_on(look_up))
        }
        _ => Err(invalid(format!(
            "the catalog of {table} must be waited for, which this runtime cannot do while \
             planning; write docs_to_qa((SELECT * FROM {table}))"
        ))),
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

/// The parts of `'a.b.c'`, each plain or in double quotes.
fn object_name(text: &str) -> Result<ObjectName> {
    let reference = TableReference::parse_str(text);
    let parts = [
        reference.catalog(),
        reference.schema(),
        Some(reference.table()),
    ];
    if reference.table().trim().is_empty() {
        return Err(invalid("the input name is empty".into()));
    }
    let quoted = |part: &str| ObjectNamePart::Identifier(Ident::with_quote('"', part));
    Ok(ObjectName(
        parts.into_iter().flatten().map(quoted).collect(),
    ))
}

fn table_factor(name: ObjectName) -> TableFactor {
    TableFactor::Table {
        name,
        alias: None,
        args: None,
        with_hints: vec![],
        version: None,
        with_ordinality: false,
        partitions: vec![],
        json_path: None,
        sample: None,
        index_hints: vec![],
    }
}

fn refused(what: &str, instead: &str) -> datafusion::error::DataFusionError {
    crate::error::Error::new(
        crate::error::ErrorKind::Unsupported,
        format!("docs_to_qa: {what} is not supported; {instead}"),
    )
    .into()
}

fn not_found(
    table: &TableReference,
    known: &[String],
) -> Option<datafusion::error::DataFusionError> {
    let valid: Vec<&str> = known.iter().map(String::as_str).collect();
    let error = match valid[..] {
        [] => crate::error::Error::invalid(format!(
            "unknown table '{table}'; there are no tables yet."
        )),
        _ => crate::error::Error::unknown("table", &table.to_string(), &valid),
    };
    Some(
        error
            .hint(
                "Create it with CREATE EXTERNAL TABLE, or list it under [tables] in casebook.toml.",
            )
            .into(),
    )
}
