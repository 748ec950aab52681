//! Would statements on a table of casebook.toml be refused? Found out without a token or a row; with
//! `write` a scratch file is written where a training table has its directory, and removed again.

use std::path::Path;
use std::sync::Arc;

use casebook_connectors::ScratchDirectories;
use casebook_llm::output;
use datafusion::common::TableReference;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::prelude::SessionContext;

use crate::context::{Casebook, TableSettings};
use crate::error::{Error, ErrorKind, Result};
use crate::sinks::lora::LoraTable;

/// Opens the table `name` as the first statement that names it does; what was found, in words.
///
/// # Errors
/// What that statement would fail with; columns of its settings that it does not have.
pub async fn check_table(
    ctx: &SessionContext,
    casebook: &Arc<Casebook>,
    name: &str,
    write: bool,
) -> Result<String> {
    let table = ctx.table_provider(TableReference::bare(name)).await?;
    if let Some(lora) = table.downcast_ref::<LoraTable>() {
        let options = lora.options();
        casebook.models.check(&options.base).await?;
        options.check(casebook).await?;
        if write {
            write_scratch(&options.directory)?;
        }
        return Ok(format!("trains {}", options.base.source));
    }
    if casebook.table_settings(name) != TableSettings::default() {
        let name = name.replace('"', "\"\"");
        let sql = format!("SELECT * FROM docs_to_qa(\"{name}\")");
        ctx.state().create_logical_plan(&sql).await?;
    }
    Ok(format!("{} columns", table.schema().fields().len()))
}

/// Plans an INSERT into the table `name` down to its sink, which says whether it takes rows at all.
///
/// # Errors
/// What any INSERT would fail with before it asks for a row.
pub async fn check_insert(ctx: &SessionContext, name: &str) -> Result<()> {
    let table = ctx.table_provider(TableReference::bare(name)).await?;
    let rows = Arc::new(EmptyExec::new(table.schema()));
    table
        .insert_into(&ctx.state(), rows, InsertOp::Append)
        .await?;
    Ok(())
}

/// Writes a file into `directory` and removes it again, and what had to be made for it.
fn write_scratch(directory: &Path) -> Result<()> {
    let _made = ScratchDirectories::missing(directory);
    output::check_directory(directory)?;
    std::fs::create_dir_all(directory).map_err(|e| {
        let message = format!("making the directory {}: {e}", directory.display());
        Error::new(ErrorKind::Denied, message).with_source(e)
    })?;
    let scratch = directory.join(format!(".casebook-check-{}.tmp", std::process::id()));
    output::create(&scratch)?;
    std::fs::remove_file(&scratch).map_err(|e| {
        let message = format!("removing {}: {e}", scratch.display());
        Error::new(ErrorKind::Unavailable, message).with_source(e)
    })
}
