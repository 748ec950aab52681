//! `docs_to_qa` as a plain table function, for hosts and front ends that take only that.
//!
//! Arguments are literals by position: the table's name, then `'key=value'` strings. The relation
//! planner comes first wherever both are registered.

use std::sync::Arc;

use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::TableReference;
use datafusion::datasource::provider_as_source;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder};

use super::arguments::{QaArguments, invalid};
use super::input::table_of;
use super::table::QaTable;
use crate::context::Casebook;

/// `docs_to_qa('cases', 'profile=legal', 'questions_per_chunk=2')`.
#[derive(Debug)]
pub struct DocsToQaFunction {
    casebook: Arc<Casebook>,
}

impl DocsToQaFunction {
    /// The function over the models and profiles of `casebook`.
    pub fn new(casebook: Arc<Casebook>) -> Self {
        Self { casebook }
    }
}

impl TableFunctionImpl for DocsToQaFunction {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let mut literals = args.exprs().iter().map(|expr| match expr {
            Expr::Literal(value, _) => value.try_as_str().flatten().map(str::to_owned),
            Expr::Column(column) => Some(column.flat_name()),
            _ => None,
        });
        let Some(Some(name)) = literals.next() else {
            return Err(invalid(
                "the first argument is a table name: docs_to_qa('cases')".into(),
            ));
        };
        let mut arguments = QaArguments::default();
        for literal in literals {
            let pair = literal.as_deref().and_then(|text| text.split_once('='));
            let Some((key, value)) = pair else {
                return Err(invalid(
                    "arguments after the table are 'key=value' strings, for example \
                     'profile=legal'"
                        .into(),
                ));
            };
            arguments.set(key.trim(), value.trim().to_owned())?;
        }
        let table = TableReference::parse_str(&name);
        let session = args.session();
        let catalog = &session.config_options().catalog;
        let full = table
            .clone()
            .resolve(&catalog.default_catalog, &catalog.default_schema);
        let schema = session
            .catalog_list()
            .catalog(&full.catalog)
            .and_then(|c| c.schema(&full.schema));
        let found = match schema {
            Some(schema) => table_of(&*schema, &full.table, &table)?,
            None => None,
        };
        let provider = found.ok_or_else(|| invalid(format!("unknown table '{name}'")))?;
        let short = table.table().to_owned();
        let plan = LogicalPlanBuilder::scan(table, provider_as_source(provider), None)?.build()?;
        let options = session.config_options();
        let casebook = Arc::clone(&self.casebook);
        Ok(Arc::new(QaTable::try_new(
            casebook,
            plan,
            Some(&short),
            arguments,
            options,
        )?))
    }
}
