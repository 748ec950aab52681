//! What a job did, as the machine-readable result file has it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use crate::compare::Report;
use crate::error::{Error, ErrorKind, Result};

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Everything was done.
    Ok,
    /// Stopped by the user; finished rows and steps are kept.
    Interrupted,
    /// A step failed; those before it are done.
    Failed,
}

/// The result of a job.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// The job's name.
    pub job: String,
    /// How it ended.
    pub status: Status,
    /// Why, if not well.
    pub error: Option<String>,
    /// What generation did.
    pub generated: Option<Generated>,
    /// What training did.
    pub trained: Option<Trained>,
    /// Base and tuned model compared.
    pub compared: Option<Report>,
}

/// Numbers of the generation step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Generated {
    /// Documents whose last row was produced.
    pub documents: u64,
    /// Accepted pairs.
    pub pairs: u64,
    /// Rows with another status than ok.
    pub rejected: u64,
    /// Rows that the target did not have before.
    pub new_rows: u64,
    /// All rows that the target has now: `ok`, or the reason of the others.
    pub target_rows: BTreeMap<String, u64>,
    /// Wall-clock time, seconds.
    pub seconds: f64,
}

/// Numbers of the training step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trained {
    /// Examples inserted.
    pub examples: u64,
    /// Optimiser steps of the run.
    pub steps: u64,
    /// Loss of the first step, nats per answer token.
    pub first_loss: f64,
    /// Loss of the last step.
    pub last_loss: f64,
    /// The adapter directory.
    pub adapter: String,
    /// Wall-clock time, seconds; next to nothing if the same run was there already.
    pub seconds: f64,
}

impl Outcome {
    pub(super) fn new(job: &str) -> Self {
        Self {
            job: job.to_owned(),
            status: Status::Ok,
            error: None,
            generated: None,
            trained: None,
            compared: None,
        }
    }

    /// Writes it to `path`: whole, or not at all.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let failed = |e: std::io::Error| {
            let message = format!("writing the result to {}: {e}", path.display());
            Error::new(ErrorKind::Unavailable, message).with_source(e)
        };
        let text = serde_json::to_vec_pretty(self).map_err(|e| failed(e.into()))?;
        if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        let staged = path.with_extension("json.tmp");
        std::fs::write(&staged, text).map_err(failed)?;
        std::fs::rename(&staged, path).map_err(failed)
    }
}

impl Generated {
    /// `36 documents, 141 pairs accepted, 161 rejected, 302 new rows`
    pub fn summary(&self) -> String {
        format!(
            "{} documents, {} pairs accepted, {} rejected, {} new rows in {:.0} s",
            self.documents, self.pairs, self.rejected, self.new_rows, self.seconds
        )
    }
}

impl Trained {
    /// `201 examples, 240 steps, loss 4.512 to 0.031 in 120 s -> adapters/cases`
    pub fn summary(&self) -> String {
        format!(
            "{} examples, {} steps, loss {:.3} to {:.3} in {:.0} s -> {}",
            self.examples, self.steps, self.first_loss, self.last_loss, self.seconds, self.adapter
        )
    }
}
