//! What is in a run's directory, which run it is, and whether it may go on.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::checkpoint;
use super::example::{self, Example, PromptForm};
use super::log::{self, StepRecord};
use super::peft;
use super::settings::{LoraSettings, SETTINGS};
use crate::model::ModelSource;
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
    /// Refuse it, and any adapter.
    New,
    /// Go on from its last checkpoint, or leave it if it is done; settings, examples, prompts and
    /// base must be the same.
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
        check_directories(path)?;
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

/// Refuses, before examples are made, what [`super::train`] would refuse with any examples: a
/// directory that `mode` does not touch, or whose run has other settings, prompts or another base.
///
/// # Errors
/// What is there, and what of it is another.
pub fn check(
    directory: &Path,
    base: &ModelSource,
    settings: &LoraSettings,
    form: &PromptForm,
    mode: RunMode,
) -> Result<()> {
    check_directories(directory)?;
    let Some(old) = found(directory, mode)? else {
        return Ok(());
    };
    let new = Identity {
        settings: settings.clone(),
        base_digest: form.chat.identity(&base.open()?.digest()?),
        examples_digest: old.examples_digest.clone(),
        system: form.system.clone(),
        answer: form.answer.clone(),
    };
    match old.differences(&new) {
        changed if changed.is_empty() || mode != RunMode::Resume => Ok(()),
        changed => Err(other_run(directory, &changed)),
    }
}

/// Refuses links, and files where directories of a run would be.
fn check_directories(path: &Path) -> Result<()> {
    let run = path.join(RUN);
    for part in [path, &run, &run.join(checkpoint::FOLDER)] {
        output::check_directory(part)?;
    }
    Ok(())
}

/// The run in `directory` that may go on in this `mode`.
fn found(directory: &Path, mode: RunMode) -> Result<Option<Identity>> {
    let state = directory.join(RUN).join(STATE);
    let is_run = state.exists();
    let holds = is_run || directory.join(peft::CONFIG).exists();
    match mode {
        RunMode::Overwrite => Ok(None),
        RunMode::New if holds => Err(Error::invalid_input(format!(
            "{} holds a training run or an adapter, which 'lora.mode' 'new' does not touch; say \
             'resume' to go on with it, 'resume_or_overwrite' to start anew if anything changed, \
             or choose another directory",
            directory.display()
        ))),
        RunMode::Resume if holds && !is_run => Err(Error::invalid_input(format!(
            "{} holds an adapter that no training run beside it made; 'lora.mode' \
             'resume_or_overwrite' or INSERT OVERWRITE replaces it, or choose another directory",
            directory.display()
        ))),
        _ if !is_run => Ok(None),
        _ => {
            let text = fs::read_to_string(&state)
                .map_err(|e| Error::io(format!("reading {}", state.display()), e))?;
            match serde_json::from_str(&text) {
                Ok(identity) => Ok(Some(identity)),
                Err(_) if mode == RunMode::ResumeOrOverwrite => Ok(None),
                Err(e) => Err(Error::corrupt(format!(
                    "{}: {e}; 'lora.mode' 'resume_or_overwrite' or INSERT OVERWRITE starts anew, \
                     or choose another directory",
                    state.display()
                ))
                .with_source(e)),
            }
        }
    }
}

fn other_run(directory: &Path, changed: &[String]) -> Error {
    Error::invalid_input(format!(
        "the training run in {} had other {}, and is left as it is; 'lora.mode' \
         'resume_or_overwrite' or INSERT OVERWRITE starts anew in its place, or choose another \
         directory",
        directory.display(),
        changed.join(" and ")
    ))
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
    let doing = |e| Error::io(format!("preparing the run in {}", run.display()), e);
    if let Some(old) = found(directory, mode)? {
        let changed = old.differences(identity);
        if changed.is_empty() {
            if staged.exists() {
                fs::remove_file(&staged).map_err(doing)?;
            }
            return Ok(true);
        }
        if mode == RunMode::Resume {
            return Err(other_run(directory, &changed));
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
    /// What of it is different in `new`, in words; settings with both values.
    pub(super) fn differences(&self, new: &Self) -> Vec<String> {
        let mut changed = vec![];
        // As a file would give them back: reading a fraction can change its last digit.
        let text = serde_json::to_string(&new.settings).unwrap_or_default();
        let settings = serde_json::from_str(&text).unwrap_or_else(|_| new.settings.clone());
        for spec in SETTINGS {
            let (old, new) = (self.settings.get(spec.key), settings.get(spec.key));
            if old != new {
                changed.push(format!("settings ({} was {old}, is {new})", spec.key));
            }
        }
        let same_prompts = (&self.system, &self.answer) == (&new.system, &new.answer);
        for (what, same) in [
            ("base model", self.base_digest == new.base_digest),
            ("examples", self.examples_digest == new.examples_digest),
            ("prompts", same_prompts),
        ] {
            if !same {
                changed.push(what.to_owned());
            }
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
