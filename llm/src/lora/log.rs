//! The run log: one JSON object per optimiser step.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// File name of the log within a run directory.
pub const FILE: &str = "train_log.jsonl";

/// One optimiser step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// From 1.
    pub step: u64,
    /// Epochs done, with the fraction of the current one.
    pub epoch: f64,
    /// Mean loss of the supervised tokens, nats.
    pub loss: f64,
    /// Rate used.
    pub learning_rate: f64,
    /// Norm of all gradients before clipping.
    pub grad_norm: f64,
    /// Tokens of the step.
    pub tokens: u64,
    /// Tokens of the step that the loss counted.
    pub supervised_tokens: u64,
    /// Speed of the step.
    pub tokens_per_second: f64,
}

/// Appends records; each is on disk when the next step begins.
#[derive(Debug)]
pub(super) struct Log {
    file: File,
}

impl Log {
    /// Opens the log of a run, keeping the first `keep` records.
    pub(super) fn open(run: &Path, keep: u64) -> Result<Self> {
        let path = run.join(FILE);
        crate::output::check_file(&path)?;
        let doing = |e| Error::io(format!("writing {}", path.display()), e);
        let old = match keep {
            0 => vec![],
            _ => read(&path)?,
        };
        let mut file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .open(&path)
            .map_err(doing)?;
        for record in old.iter().filter(|r| r.step <= keep) {
            writeln!(file, "{}", line(record)?).map_err(doing)?;
        }
        Ok(Self { file })
    }

    pub(super) fn append(&mut self, record: &StepRecord) -> Result<()> {
        writeln!(self.file, "{}", line(record)?)
            .map_err(|e| Error::io(format!("writing {FILE}"), e))
    }
}

fn line(record: &StepRecord) -> Result<String> {
    serde_json::to_string(record)
        .map_err(|e| Error::internal(format!("a step record cannot be written: {e}")))
}

/// The records of a log file; a half-written last line is left out.
///
/// # Errors
/// A file that cannot be read.
pub fn read(path: &Path) -> Result<Vec<StepRecord>> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| Error::io(format!("reading {}", path.display()), e))?;
    Ok(text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect())
}
