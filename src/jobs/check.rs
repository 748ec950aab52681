//! What would [`super::run`] refuse? Found out without a token, a row or a file.

use std::path::Path;
use std::sync::Arc;

use casebook_llm::output;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;

use super::outcome::RESULT;
use super::plan::statements;
use super::{Job, Plan, Step};
use crate::compare;
use crate::context::Casebook;
use crate::error::{Error, ErrorKind, Result};

/// Plans `job` and changes nothing: its statements down to their sinks, its models looked into without
/// loading them, the places of its files looked at. What this finds is what a dry run, `casebook check`
/// and [`super::run()`] refuse.
///
/// # Errors
/// The first thing that [`super::run()`] would fail with.
pub async fn plan(ctx: &SessionContext, casebook: &Arc<Casebook>, job: &Job) -> Result<Plan> {
    check_place(&job.output)?;
    output::check_file(&job.output.join(RESULT))?;
    let plan = statements(ctx, casebook, job).await?;
    let mut held_out = false;
    for step in &plan.steps {
        let statement = statement(ctx, step).await.map_err(|error| {
            let error = Error::from_datafusion(error);
            let message = format!("job {}, {}: {error}", job.name, step.phase.name());
            let named = Error::new(error.kind(), message).with_source(error);
            match named.to_string().contains("Column count") {
                true => named.hint(&format!(
                    "{} needs the columns of qa_pairs and, behind them, those that keep names.",
                    job.target
                )),
                false => named,
            }
        })?;
        held_out |= matches!(statement, LogicalPlan::Ddl(_));
    }
    let spec = casebook.models.spec(&plan.model)?;
    casebook.models.check(&spec).await?;
    if let Some(comparison) = &job.compare {
        compare::check(ctx, comparison, held_out).await?;
    }
    Ok(plan)
}

/// Plans a statement: an INSERT down to its sink, which refuses columns that do not fit. Nothing runs.
async fn statement(ctx: &SessionContext, step: &Step) -> DataFusionResult<LogicalPlan> {
    let planned = ctx.state().create_logical_plan(&step.sql).await?;
    if matches!(planned, LogicalPlan::Dml(_)) {
        ctx.state().create_physical_plan(&planned).await?;
    }
    Ok(planned)
}

/// Refuses a directory that cannot be made, because something else is in its way.
fn check_place(directory: &Path) -> Result<()> {
    let there = directory.ancestors().find_map(|path| {
        let path = match path.as_os_str().is_empty() {
            true => Path::new("."),
            false => path,
        };
        Some((path, std::fs::metadata(path).ok()?))
    });
    let Some((path, found)) = there else {
        return Ok(());
    };
    let wrong = |what: &str| {
        let message = format!("output {}: {} {what}", directory.display(), path.display());
        Err(Error::new(ErrorKind::InvalidInput, message))
    };
    match (found.is_dir(), found.permissions().readonly()) {
        (false, _) => wrong("is no directory; choose another"),
        (true, true) => wrong("cannot be written; choose another"),
        (true, false) => Ok(()),
    }
}
