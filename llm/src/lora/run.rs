//! What is in a run's directory, which run it is, and whether it may go on.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::checkpoint;
use super::example::{self, Example};
use super::log::{self, StepRecord};
use super::peft;
use super::settings::LoraSettings;
use crate::output::{self, Lock};
use crate::{Error, Result};

/// Folder of a run within the adapter directory.
pub const RUN: &str = "run";
/// Examples of a run, one JSON object per line.
pub const EXAMPLES: &str = "examples.jsonl";
/// Is locked while a run is prepared and trained.
const LOCK: &str = "lock";
const STATE: &str = "settings.json";
/// What a finished run did, as JSON; absent while it is unfinished.
const REPORT: &str = "report.json";

/// What to do with a run that is already in the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunMode {
    /// Refuse it.
    New,
    /// Go on from its last checkpoint; settings, examples and base must be the same.
    Resume,
    /// Start anew; its adapter stays until the new one is complete.
    Overwrite,
    /// Go on if it is the same run, else start anew: what a scheduled job wants.
    ResumeOrOverwrite,
}

/// An adapter directory that no other run writes to as long as this lives.
#[derive(Debug)]
pub struct RunDirectory {
    path: PathBuf,
    _lock: Lock,
}

impl RunDirectory {
    /// Makes and locks the directory.
    ///
    /// # Errors
    /// Another run in it; a path that is a link or no directory.
    pub fn lock(path: &Path) -> Result<Self> {
        let run = path.join(RUN);
        for part in [path, &run, &run.join(checkpoint::FOLDER)] {
            output::check_directory(part)?;
        }
        let doing = |e| Error::io(format!("preparing the run in {}", run.display()), e);
        fs::create_dir_all(&run).map_err(doing)?;
        Ok(Self {
            path: path.to_path_buf(),
            _lock: Lock::take(&run.join(LOCK), path)?,
        })
    }

    /// The adapter directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the caller writes the examples of a run that is to begin: they become those of the
    /// directory when the run is not refused.
    pub fn staged_examples(&self) -> PathBuf {
        self.path.join(RUN).join(format!(".{EXAMPLES}.tmp"))
    }

    /// The examples to train on: the staged ones, else those of the run that is there.
    pub(super) fn examples(&self) -> Result<Vec<Example>> {
        let staged = self.staged_examples();
        match staged.exists() {
            true => example::read(&staged),
            false => example::read(&self.path.join(RUN).join(EXAMPLES)),
        }
    }
}

/// What a finished run did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainReport {
    /// Optimiser steps.
    pub steps: u64,
    /// Examples trained on, those with their document counted again.
    pub examples: usize,
    /// Examples left out because they were longer than `max_example_tokens`.
    pub skipped_too_long: usize,
    /// Tokens of one epoch.
    pub epoch_tokens: usize,
    /// Number of examples by length: (upper bound in tokens, count).
    pub length_histogram: Vec<(usize, usize)>,
    /// Loss of the first and of the last step, nats per supervised token.
    pub first_loss: f64,
    /// See `first_loss`.
    pub last_loss: f64,
    /// Where the adapter is.
    pub adapter: PathBuf,
    /// Time of all its steps, seconds, over interruptions.
    #[serde(default)]
    pub seconds: f64,
}

/// What makes two runs the same.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) settings: LoraSettings,
    pub(super) base_digest: String,
    pub(super) examples_digest: String,
    pub(super) system: Option<String>,
    pub(super) answer: String,
}

/// The report of the finished run in `directory`; none if there is none.
///
/// # Errors
/// A report that cannot be read.
pub fn read_report(directory: &Path) -> Result<Option<TrainReport>> {
    let path = directory.join(RUN).join(REPORT);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(format!("reading {}", path.display()), e)),
    };
    let mut report: TrainReport = serde_json::from_str(&text)
        .map_err(|e| Error::corrupt(format!("{}: {e}", path.display())).with_source(e))?;
    if report.seconds == 0.0 {
        // Written before reports had it; the log has always had what it follows from.
        report.seconds = seconds(&log::read(&directory.join(RUN).join(log::FILE))?);
    }
    Ok(Some(report))
}

/// Time of the steps of a run.
pub(super) fn seconds(log: &[StepRecord]) -> f64 {
    log.iter()
        .filter(|record| record.tokens_per_second > 0.0)
        .map(|record| record.tokens as f64 / record.tokens_per_second)
        .sum()
}

/// True if `directory` holds a run, finished or not, or an adapter.
pub fn holds_run(directory: &Path) -> bool {
    directory.join(RUN).join(STATE).exists() || directory.join(peft::CONFIG).exists()
}

/// Refuses a directory that holds another run, else writes down which run this is and makes the
/// staged examples its own. True if the run that is there goes on. A refusal changes nothing.
pub(super) fn prepare(
    directory: &RunDirectory,
    identity: &Identity,
    mode: RunMode,
) -> Result<bool> {
    let staged = directory.staged_examples();
    let directory = directory.path();
    let run = &directory.join(RUN);
    let state = run.join(STATE);
    let doing = |e| Error::io(format!("preparing the run in {}", run.display()), e);
    if mode == RunMode::New && holds_run(directory) {
        return Err(Error::invalid_input(format!(
            "{} holds another training run; resume it, overwrite it, or choose another directory",
            directory.display()
        )));
    }
    if matches!(mode, RunMode::Resume | RunMode::ResumeOrOverwrite) && state.exists() {
        let text = fs::read_to_string(&state).map_err(doing)?;
        let changed = match serde_json::from_str::<Identity>(&text) {
            Ok(old) => old.differences(identity),
            Err(_) => vec!["settings"],
        };
        if changed.is_empty() {
            if staged.exists() {
                fs::remove_file(&staged).map_err(doing)?;
            }
            return Ok(true);
        }
        if mode == RunMode::Resume {
            return Err(Error::invalid_input(format!(
                "the run in {} cannot be resumed: it has other {}; overwrite it or choose another \
                 directory",
                directory.display(),
                changed.join(" and ")
            )));
        }
    }
    // Order matters for a crash in between: first what marks the old run finished or goes on with
    // it, then the new examples, then the identity that names them.
    let report = run.join(REPORT);
    if report.exists() {
        fs::remove_file(report).map_err(doing)?;
    }
    let checkpoints = run.join(checkpoint::FOLDER);
    if checkpoints.exists() {
        fs::remove_dir_all(checkpoints).map_err(doing)?;
    }
    if staged.exists() {
        fs::rename(&staged, run.join(EXAMPLES)).map_err(doing)?;
    }
    write_json(run, STATE, identity)?;
    Ok(false)
}

impl Identity {
    /// What of it is different in `new`.
    fn differences(&self, new: &Self) -> Vec<&'static str> {
        let mut changed = vec![];
        if self.settings != new.settings {
            changed.push("settings");
        }
        if self.base_digest != new.base_digest {
            changed.push("base model");
        }
        if self.examples_digest != new.examples_digest {
            changed.push("examples");
        }
        if (&self.system, &self.answer) != (&new.system, &new.answer) {
            changed.push("prompts");
        }
        changed
    }
}

/// Writes a file of the run: whole, or not at all.
fn write_json(run: &Path, name: &str, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|e| Error::internal(format!("{name} cannot be written: {e}")))?;
    output::write(&run.join(name), text.as_bytes())
}

/// Records that the run is finished.
pub(super) fn finish(directory: &Path, report: &TrainReport) -> Result<()> {
    write_json(&directory.join(RUN), REPORT, report)
}

/// Hash of the examples, in their order.
pub(super) fn digest(examples: &[Example]) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    for example in examples {
        let line = serde_json::to_vec(example)
            .map_err(|e| Error::internal(format!("an example cannot be written: {e}")))?;
        hasher.update(&(line.len() as u64).to_le_bytes());
        hasher.update(&line);
    }
    Ok(hasher.finalize().to_hex().to_string())
}
