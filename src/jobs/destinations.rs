//! Which machines the documents and questions of a job leave for, and whether they answer.

use std::sync::Arc;

use datafusion::prelude::SessionContext;

use super::Job;
use super::plan::model;
use crate::context::Casebook;
use crate::error::Result;
use crate::functions::lookup;
use crate::models::ModelSpec;

/// A line for each model of `job` that is behind an endpoint. None is asked.
///
/// # Errors
/// A model that is not there, or that `allow_remote` forbids.
pub async fn destinations(
    ctx: &SessionContext,
    casebook: &Arc<Casebook>,
    job: &Job,
) -> Result<Vec<String>> {
    let specs = remote(ctx, casebook, job).await?;
    Ok(specs.iter().filter_map(line).collect())
}

/// [`destinations`], each of which has answered: it is asked a word, unless its revision is given.
///
/// # Errors
/// As [`destinations`]; a server that does not answer, or refuses.
pub async fn reach(
    ctx: &SessionContext,
    casebook: &Arc<Casebook>,
    job: &Job,
) -> Result<Vec<String>> {
    let specs = remote(ctx, casebook, job).await?;
    for spec in &specs {
        casebook.models.reach(spec).await?;
    }
    Ok(specs.iter().filter_map(line).collect())
}

fn line(spec: &ModelSpec) -> Option<String> {
    let remote = spec.remote.as_ref()?;
    let (model, host) = (remote.model(), remote.host());
    Some(format!("documents leave for {host}, for the model {model}"))
}

/// The models of `job` that are behind endpoints.
async fn remote(
    ctx: &SessionContext,
    casebook: &Arc<Casebook>,
    job: &Job,
) -> Result<Vec<ModelSpec>> {
    let mut names = vec![model(ctx, job)];
    if let Some(comparison) = &job.compare {
        names.extend(comparison.base.iter().cloned());
        names.push(comparison.tuned.clone());
    }
    let host = ctx.state_weak_ref();
    let mut specs: Vec<ModelSpec> = vec![];
    for name in names {
        let spec = lookup::model(&casebook.models, &host, &name).await?;
        if spec.remote.is_some() && !specs.contains(&spec) {
            specs.push(spec);
        }
    }
    Ok(specs)
}
