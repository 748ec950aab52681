//! The training run: a loop straight down the page. Progress is the observer's business.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::DType;
use serde::{Deserialize, Serialize};

use super::adapter::{initialise, sites};
use super::backward::{Gradients, backward};
use super::example::{self, Example, PromptForm, Tokens};
use super::forward::{Packed, forward};
use super::log::{Log, StepRecord};
use super::loss::{Targets, cross_entropy};
use super::optimizer::AdamW;
use super::packing::pack;
use super::random::Random;
use super::settings::LoraSettings;
use super::{checkpoint, peft};
use crate::engine::DeviceChoice;
use crate::kernels::rms_norm;
use crate::model::{Decoder, ModelSource, Prompter};
use crate::{Error, ErrorKind, Result};

/// Folder of a run within the adapter directory.
pub const RUN: &str = "run";
/// Examples of a run, one JSON object per line; the caller writes them.
pub const EXAMPLES: &str = "examples.jsonl";
const STATE: &str = "settings.json";

/// What to do with a run that is already in the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunMode {
    /// Refuse it.
    New,
    /// Go on from its last checkpoint; settings, examples and base must be the same.
    Resume,
    /// Start anew; its adapter stays until the new one is complete.
    Overwrite,
}

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

/// What a finished run did.
#[derive(Debug, Clone, PartialEq)]
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
}

/// What makes two runs the same.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Identity {
    settings: LoraSettings,
    base_digest: String,
    examples_digest: String,
    system: Option<String>,
    answer: String,
}

/// Trains an adapter on `directory/run/examples.jsonl` and writes it into `directory`.
///
/// # Errors
/// No examples, all of them too long, another run in the directory, a base that cannot be read;
/// [`ErrorKind::Interrupted`] when the observer cancels, after a checkpoint.
pub fn train(
    base: &ModelSource,
    device: DeviceChoice,
    directory: &Path,
    settings: &LoraSettings,
    mode: RunMode,
    form: &PromptForm,
    observer: &mut dyn TrainObserver,
) -> Result<TrainReport> {
    settings.validate()?;
    let run = directory.join(RUN);
    let files = base.open()?;
    let examples = example::read(&run.join(EXAMPLES))?;
    let identity = Identity {
        settings: settings.clone(),
        base_digest: files.digest()?,
        examples_digest: digest(&examples)?,
        system: form.system.clone(),
        answer: form.answer.clone(),
    };
    prepare(directory, &run, &identity, mode)?;

    let mut decoder = Decoder::read(&files, &device.open()?, DType::F32)?;
    let prompter = Prompter::load(&files, &decoder.config)?;
    let data = Data::new(&prompter, form, &examples, settings, &decoder)?;
    let sites = sites(&decoder, settings);
    initialise(&mut decoder, &sites, settings)?;
    let mut adam = AdamW::default();
    if mode == RunMode::Resume {
        checkpoint::restore(&run, &mut decoder, &sites, &mut adam)?;
    }
    let mut log = Log::open(&run, adam.step as u64)?;
    let steps = data.steps(settings);
    observer.begin(steps as u64);
    let mut losses = (f64::NAN, f64::NAN);
    let mut at = 0;
    'epochs: for epoch in 0..settings.epochs {
        let micro_batches = data.epoch(settings, epoch as u64);
        let count = micro_batches.chunks(settings.accumulation_steps).len();
        for (i, window) in micro_batches
            .chunks(settings.accumulation_steps)
            .enumerate()
        {
            if at == steps {
                break 'epochs;
            }
            at += 1;
            if at <= adam.step {
                continue; // done before the run was resumed
            }
            let started = Instant::now();
            let (gradients, loss, tokens, supervised) = window_gradients(&decoder, window)?;
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
            losses = (if losses.0.is_nan() { loss } else { losses.0 }, loss);
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
    peft::write(directory, &decoder, &sites, settings, &files.name)?;
    Ok(data.report(steps, losses, directory))
}

/// Loss and gradients of one optimiser step: the mean over the supervised tokens of the whole
/// window, not the mean of its micro-batches' means.
fn window_gradients(
    decoder: &Decoder,
    window: &[MicroBatch],
) -> Result<(Gradients, f64, usize, usize)> {
    let supervised: usize = window.iter().map(|m| m.targets.rows.len()).sum();
    let tokens = window.iter().map(|m| m.packed.ids.len()).sum();
    let mut gradients = Gradients::default();
    let mut loss = 0.0;
    for batch in window {
        loss += micro_step(
            decoder,
            batch,
            1.0 / supervised.max(1) as f64,
            &mut gradients,
        )?;
    }
    Ok((
        gradients,
        loss / supervised.max(1) as f64,
        tokens,
        supervised,
    ))
}

/// The summed loss of one micro-batch; its gradients, times `weight`, are added.
pub(super) fn micro_step(
    decoder: &Decoder,
    batch: &MicroBatch,
    weight: f64,
    gradients: &mut Gradients,
) -> Result<f64> {
    let pass = forward(decoder, &batch.packed)?;
    let hidden = rms_norm(&pass.output, &decoder.norm, decoder.config.rms_norm_eps)?;
    let (loss, d_hidden) = cross_entropy(decoder, &hidden, &batch.targets, weight)?;
    backward(decoder, &pass, &d_hidden, gradients)?;
    Ok(loss)
}

/// Packed sequences with what they should predict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MicroBatch {
    pub(super) packed: Packed,
    pub(super) targets: Targets,
}

impl MicroBatch {
    pub(super) fn new<'a>(examples: impl IntoIterator<Item = &'a Tokens>) -> Self {
        let mut packed = Packed {
            ids: vec![],
            lengths: vec![],
        };
        let mut targets = Targets::default();
        for tokens in examples {
            let start = packed.ids.len();
            for at in tokens.answer_at.max(1)..tokens.ids.len() {
                targets.rows.push((start + at - 1) as u32);
                targets.tokens.push(tokens.ids[at]);
            }
            packed.ids.extend(&tokens.ids);
            packed.lengths.push(tokens.ids.len());
        }
        Self { packed, targets }
    }
}

/// The examples as tokens.
struct Data {
    tokens: Vec<Tokens>,
    skipped: usize,
}

impl Data {
    fn new(
        prompter: &Prompter,
        form: &PromptForm,
        examples: &[Example],
        settings: &LoraSettings,
        decoder: &Decoder,
    ) -> Result<Self> {
        if examples.is_empty() {
            return Err(Error::invalid_input(
                "there are no training examples; insert rows with a question and an answer",
            ));
        }
        let limit = settings
            .max_example_tokens
            .min(decoder.config.context_tokens());
        let (mut tokens, mut skipped) = (vec![], 0);
        let mut keep = |new: Tokens| match new.ids.len() > limit {
            true => skipped += 1,
            false => tokens.push(new),
        };
        for (i, example) in examples.iter().enumerate() {
            keep(example::closed_book(prompter, example)?);
            let mut random = Random::new(settings.seed, &[2, i as u64]);
            if random.unit() < settings.with_document_share
                && let Some(open) = example::open_book(prompter, form, example)?
            {
                keep(open);
            }
        }
        if tokens.is_empty() {
            return Err(Error::invalid_input(format!(
                "all {skipped} training examples are longer than {limit} tokens; raise \
                 max_example_tokens or insert shorter ones"
            )));
        }
        Ok(Self { tokens, skipped })
    }

    /// Micro-batches of one epoch, in an order of its own.
    fn epoch(&self, settings: &LoraSettings, epoch: u64) -> Vec<MicroBatch> {
        let mut random = Random::new(settings.seed, &[3, epoch]);
        let mut order: Vec<usize> = (0..self.tokens.len()).collect();
        random.shuffle(&mut order);
        // Lengths before noise decide the packs, so that every epoch has as many steps.
        let lengths: Vec<usize> = order.iter().map(|i| self.tokens[*i].ids.len()).collect();
        let mut packs = pack(&lengths, settings.batch_tokens);
        random.shuffle(&mut packs);
        packs
            .into_iter()
            .map(|pack| {
                let noisy: Vec<Tokens> = pack
                    .into_iter()
                    .map(|i| self.tokens[order[i]].with_noise(settings.question_noise, &mut random))
                    .collect();
                MicroBatch::new(&noisy)
            })
            .collect()
    }

    /// Optimiser steps of the run.
    fn steps(&self, settings: &LoraSettings) -> usize {
        let per_epoch = |epoch| {
            self.epoch(settings, epoch)
                .chunks(settings.accumulation_steps)
                .len()
        };
        let all = (0..settings.epochs as u64).map(per_epoch).sum();
        match settings.max_steps {
            0 => all,
            most => all.min(most),
        }
    }

    fn report(&self, steps: usize, losses: (f64, f64), directory: &Path) -> TrainReport {
        let mut histogram: Vec<(usize, usize)> = [32, 64, 128, 256, 512, 1024, 2048, usize::MAX]
            .map(|bound| (bound, 0))
            .into();
        for tokens in &self.tokens {
            if let Some(bucket) = histogram.iter_mut().find(|(b, _)| tokens.ids.len() <= *b) {
                bucket.1 += 1;
            }
        }
        histogram.retain(|(_, count)| *count > 0);
        TrainReport {
            steps: steps as u64,
            examples: self.tokens.len(),
            skipped_too_long: self.skipped,
            epoch_tokens: self.tokens.iter().map(|t| t.ids.len()).sum(),
            length_histogram: histogram,
            first_loss: losses.0,
            last_loss: losses.1,
            adapter: directory.to_path_buf(),
        }
    }
}

/// Refuses a directory that holds another run, and writes down which run this is.
fn prepare(directory: &Path, run: &Path, identity: &Identity, mode: RunMode) -> Result<()> {
    let state = run.join(STATE);
    let doing = |e| Error::io(format!("preparing the run in {}", run.display()), e);
    let exists = state.exists() || directory.join(peft::CONFIG).exists();
    match mode {
        RunMode::New if exists => {
            return Err(Error::invalid_input(format!(
                "{} holds another training run; resume it, overwrite it, or choose another \
                 directory",
                directory.display()
            )));
        }
        RunMode::Resume if state.exists() => {
            let text = fs::read_to_string(&state).map_err(doing)?;
            let old: Identity = serde_json::from_str(&text)
                .map_err(|e| Error::corrupt(format!("{}: {e}", state.display())))?;
            return differences(&old, identity, directory);
        }
        RunMode::Overwrite => {
            let checkpoints = run.join("checkpoints");
            if checkpoints.exists() {
                fs::remove_dir_all(checkpoints).map_err(doing)?;
            }
        }
        _ => {}
    }
    let text = serde_json::to_string_pretty(identity)
        .map_err(|e| Error::internal(format!("the settings cannot be written: {e}")))?;
    let staged = peft::stage(run, STATE, text.as_bytes())?;
    fs::rename(staged, state).map_err(doing)
}

fn differences(old: &Identity, new: &Identity, directory: &Path) -> Result<()> {
    let mut changed = vec![];
    if old.settings != new.settings {
        changed.push("settings");
    }
    if old.base_digest != new.base_digest {
        changed.push("base model");
    }
    if old.examples_digest != new.examples_digest {
        changed.push("examples");
    }
    if (&old.system, &old.answer) != (&new.system, &new.answer) {
        changed.push("prompts");
    }
    match changed.is_empty() {
        true => Ok(()),
        false => Err(Error::invalid_input(format!(
            "the run in {} cannot be resumed: it has other {}; overwrite it or choose another \
             directory",
            directory.display(),
            changed.join(" and ")
        ))),
    }
}

fn digest(examples: &[Example]) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    for example in examples {
        let line = serde_json::to_vec(example)
            .map_err(|e| Error::internal(format!("an example cannot be written: {e}")))?;
        hasher.update(&(line.len() as u64).to_le_bytes());
        hasher.update(&line);
    }
    Ok(hasher.finalize().to_hex().to_string())
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
    sites(decoder, settings)
}
