//! What would [`super::run`] refuse? Found out without a token, a row or a file.

use std::path::Path;
use std::sync::Arc;

use casebook_llm::output;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;

use super::outcome::RESULT;
use super::{Job, plan};
use crate::compare;
use crate::context::Casebook;
use crate::error::{Error, ErrorKind, Result};
use crate::settings::CasebookConfig;

/// Plans every statement of `job` down to its sinks, looks into its models without loading them, and
/// at the places of its files; what was found, in words.
///
/// # Errors
/// The first thing that [`super::run`] would fail with.
pub async fn check(ctx: &SessionContext, casebook: &Arc<Casebook>, job: &Job) -> Result<String> {
    let plan = plan(ctx, casebook, job).await?;
    let mut held_out = false;
    for step in &plan.steps {
        let statement = ctx.state().create_logical_plan(&step.sql).await?;
        match &statement {
            // Down to the sink, which refuses columns that do not fit; nothing runs.
            LogicalPlan::Dml(_) => drop(ctx.state().create_physical_plan(&statement).await?),
            _ => held_out |= matches!(statement, LogicalPlan::Ddl(_)),
        }
    }
    let model = model(ctx, job);
    casebook
        .models
        .check(&casebook.models.spec(&model)?)
        .await?;
    if let Some(comparison) = &job.compare {
        compare::check(ctx, comparison, held_out).await?;
    }
    check_place(&job.output)?;
    output::check_file(&job.output.join(RESULT))?;
    Ok(format!("{} statements, model {model}", plan.steps.len()))
}

/// The model that generates.
fn model(ctx: &SessionContext, job: &Job) -> String {
    let named = job.model.clone();
    let state = ctx.state();
    let settings = state.config_options().extensions.get::<CasebookConfig>();
    named.unwrap_or_else(|| settings.map(|s| s.qa.model.clone()).unwrap_or_default())
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
