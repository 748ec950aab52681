//! The training run: a loop straight down the page. Progress is the observer's business.

use std::path::Path;
use std::time::Instant;

use super::adapter::{initialise, sites};
use super::data::Data;
use super::example::PromptForm;
use super::log::{self, Log, StepRecord};
use super::optimizer::AdamW;
use super::run::{
    Identity, RUN, RunDirectory, RunMode, TrainReport, digest, finish, prepare, read_report,
};
use super::settings::LoraSettings;
use super::shards::Workers;
use super::{checkpoint, peft};
use crate::engine::DeviceChoice;
use crate::model::{Decoder, ModelSource, Prompter};
use crate::{Error, ErrorKind, Result};
use candle_core::DType;

/// Is told what happens.
pub trait TrainObserver {
    /// The run will take this many optimiser steps.
    fn begin(&mut self, _steps: u64) {}
    /// A step is done and logged.
    fn step(&mut self, _record: &StepRecord) {}
    /// True to stop after the current step, with a checkpoint.
    fn cancelled(&self) -> bool {
        false
    }
}

impl TrainObserver for () {}

/// Trains an adapter on the examples staged in `place`, else on those of the run in it, and writes
/// it there. Resuming a run that is finished does nothing and returns its report.
///
/// # Errors
/// No examples, all of them too long, another run in the directory, a base that cannot be read;
/// [`ErrorKind::Interrupted`] when the observer cancels, after a checkpoint.
pub fn train(
    base: &ModelSource,
    device: DeviceChoice,
    place: &RunDirectory,
    settings: &LoraSettings,
    mode: RunMode,
    form: &PromptForm,
    observer: &mut dyn TrainObserver,
) -> Result<TrainReport> {
    settings.validate()?;
    let directory = place.path();
    let run = directory.join(RUN);
    let files = base.open()?;
    let examples = place.examples()?;
    let identity = Identity {
        settings: settings.clone(),
        base_digest: form.chat.identity(&files.digest()?),
        examples_digest: digest(&examples)?,
        system: form.system.clone(),
        answer: form.answer.clone(),
    };
    let resume = prepare(place, &identity, mode)?;
    if resume && let Some(report) = read_report(directory)? {
        observer.begin(report.steps);
        return Ok(report);
    }

    let mut decoder = Decoder::read(&files, &device.open()?, DType::F32)?;
    let prompter = Prompter::load_with(&files, &decoder.config, &form.chat)?;
    let limit = settings
        .max_example_tokens
        .min(decoder.config.context_tokens());
    let data = Data::new(&prompter, form, &examples, settings, limit)?;
    let sites = sites(&decoder, settings)?;
    initialise(&mut decoder, &sites, settings)?;
    let step_tokens = settings.batch_tokens * settings.accumulation_steps;
    let workers = Workers::new(&decoder.device, step_tokens)?;
    let mut adam = AdamW::default();
    if resume {
        checkpoint::restore(&run, &mut decoder, &sites, &mut adam)?;
    }
    let mut log = Log::open(&run, adam.step as u64)?;
    let steps = data.steps(settings);
    observer.begin(steps as u64);
    let mut at = 0;
    'epochs: for epoch in 0..settings.epochs {
        let shards = workers.shards(settings.accumulation_steps);
        let windows = data.epoch(settings, epoch as u64, shards)?;
        let count = windows.len();
        for (i, window) in windows.iter().enumerate() {
            if at == steps {
                break 'epochs;
            }
            at += 1;
            if at <= adam.step {
                continue; // done before the run was resumed
            }
            let started = Instant::now();
            let tokens: usize = window.iter().map(|m| m.packed.ids.len()).sum();
            let supervised: usize = window.iter().map(|m| m.targets.rows.len()).sum();
            // The mean over the supervised tokens of the whole step, not of its parts' means.
            let share = 1.0 / supervised.max(1) as f64;
            let (loss, gradients) = workers.gradients(&decoder, window, share)?;
            let loss = loss * share;
            let rate = settings.rate(at - 1, steps);
            let grad_norm = adam.apply(&mut decoder, &gradients, settings, rate)?;
            let record = StepRecord {
                step: at as u64,
                epoch: epoch as f64 + (i + 1) as f64 / count as f64,
                loss,
                learning_rate: rate,
                grad_norm,
                tokens: tokens as u64,
                supervised_tokens: supervised as u64,
                tokens_per_second: tokens as f64 / started.elapsed().as_secs_f64().max(1e-9),
            };
            log.append(&record)?;
            observer.step(&record);
            let due = settings.checkpoint_steps > 0 && at % settings.checkpoint_steps == 0;
            let cancelled = observer.cancelled();
            if cancelled || (due && at < steps) {
                checkpoint::save(&run, &decoder, &sites, &adam)?;
            }
            if cancelled && at < steps {
                return Err(interrupted(directory, at, steps));
            }
        }
    }
    peft::write(directory, &decoder, &sites, settings, base)?;
    let report = data.report(&log::read(&run.join(log::FILE))?, directory);
    finish(directory, &report)?;
    Ok(report)
}

fn interrupted(directory: &Path, step: usize, steps: usize) -> Error {
    Error::new(
        ErrorKind::Interrupted,
        format!(
            "training in {} was stopped after step {step} of {steps}; a checkpoint is written: \
             resume to go on",
            directory.display()
        ),
    )
}

#[cfg(test)]
pub(super) fn test_sites(decoder: &Decoder, settings: &LoraSettings) -> Vec<super::adapter::Site> {
    sites(decoder, settings).unwrap()
}
