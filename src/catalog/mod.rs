//! Tables that a session knows by name before it has opened them, and an `information_schema` that
//! opens none to list them.
//!
//! A casebook.toml may name twenty tables of five systems. A statement opens those that it names:
//! what is not needed is not contacted, not created, and may be down.

mod check;
mod declared;
mod information;

use std::sync::Arc;

use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::CreateExternalTable;

use crate::error::{Error, ErrorKind, Result};

pub use check::{check_insert, check_table};
pub(crate) use declared::DeclaredTables;
pub(crate) use information::InformationSchema;

/// Makes `tables` known in the default schema of `ctx`: each is opened by the first statement that
/// names it. `origin` is where they are written, for errors.
///
/// # Errors
/// A name that the schema has already; a catalog that takes no schema.
pub(crate) fn declare(
    ctx: &SessionContext,
    origin: &str,
    tables: Vec<CreateExternalTable>,
) -> Result<()> {
    let names = ctx.state().config_options().catalog.clone();
    let missing = |what: &str, name: &str| {
        let message = format!("the session has no {what} '{name}' for the tables of {origin}");
        Error::new(ErrorKind::NotFound, message)
    };
    let catalog = ctx
        .catalog(&names.default_catalog)
        .ok_or_else(|| missing("catalog", &names.default_catalog))?;
    let schema = catalog
        .schema(&names.default_schema)
        .ok_or_else(|| missing("schema", &names.default_schema))?;
    let declared = DeclaredTables::over(schema, ctx.state_weak_ref(), origin, tables)?;
    catalog.register_schema(&names.default_schema, Arc::new(declared))?;
    Ok(())
}
