//! The input of a call as a plan: a query as it is, a name through the statement and the catalogs.
//!
//! The statement's own names come first (CTEs, tables that it mentions elsewhere), then the
//! session's catalogs, because a name inside a string literal is not fetched in advance.

use std::sync::{Arc, Weak};

use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::common::TableReference;
use datafusion::datasource::provider_as_source;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, Ident, ObjectName, ObjectNamePart, TableFactor, Value,
};
use futures::FutureExt;
use parking_lot::RwLock;

use super::arguments::invalid;
use crate::error::Error;

/// Plans inputs with the tables of a session.
#[derive(Debug)]
pub(super) struct InputPlanner(pub(super) Weak<RwLock<SessionState>>);

impl InputPlanner {
    /// The input's plan and, if it is a named table, the last part of its name.
    pub(super) fn plan(
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
            SqlExpr::Nested(inner) => return self.plan(*inner, context),
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
        let Some(state) = self.0.upgrade() else {
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
        let Some(provider) = table_of(&*schema, &full.table, table)? else {
            return Ok(None);
        };
        let plan = LogicalPlanBuilder::scan(table.clone(), provider_as_source(provider), None)?;
        Ok(Some(plan.build()?))
    }

    fn known_tables(&self) -> Vec<String> {
        let Some(state) = self.0.upgrade() else {
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

/// The table `name` of `schema`, which was called `table`.
pub(super) fn table_of(
    schema: &dyn SchemaProvider,
    name: &str,
    table: &TableReference,
) -> Result<Option<Arc<dyn TableProvider>>> {
    match schema.table(name).now_or_never() {
        Some(found) => found,
        // The catalog needs to wait, for the network say. That can be done here only where another
        // worker keeps the runtime going.
        None => wait_for(schema.table(name), table),
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

fn not_found(table: &TableReference, known: &[String]) -> Option<DataFusionError> {
    let valid: Vec<&str> = known.iter().map(String::as_str).collect();
    let error = match valid[..] {
        [] => Error::invalid(format!("unknown table '{table}'; there are no tables yet.")),
        _ => Error::unknown("table", &table.to_string(), &valid),
    };
    Some(
        error
            .hint(
                "Create it with CREATE EXTERNAL TABLE, or list it under [tables] in casebook.toml.",
            )
            .into(),
    )
}
