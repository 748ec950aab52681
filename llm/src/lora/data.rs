//! Which tokens a step sees: examples, packed anew in every epoch, with noise in their questions.

use std::path::Path;

use super::example::{self, Example, PromptForm, Tokens};
use super::log::StepRecord;
use super::micro_batch::MicroBatch;
use super::packing::pack;
use super::random::Random;
use super::run::{TrainReport, seconds};
use super::settings::LoraSettings;
use super::shards::split;
use crate::model::Prompter;
use crate::{Error, Result};

/// The examples of a run.
pub(super) struct Data<'a> {
    prompter: &'a Prompter,
    prepared: Vec<Prepared<'a>>,
    skipped: usize,
}

/// An example as it is without noise.
struct Prepared<'a> {
    tokens: Tokens,
    /// Closed-book examples can be asked in another order of words.
    closed_book: Option<&'a Example>,
}

impl<'a> Data<'a> {
    /// Tokenises the examples; those of more than `limit` tokens are skipped and counted.
    pub(super) fn new(
        prompter: &'a Prompter,
        form: &PromptForm,
        examples: &'a [Example],
        settings: &LoraSettings,
        limit: usize,
    ) -> Result<Self> {
        if examples.is_empty() {
            return Err(Error::invalid_input(
                "there are no training examples; insert rows with a question and an answer",
            ));
        }
        let (mut prepared, mut skipped) = (vec![], 0);
        let mut keep = |tokens: Tokens, closed_book| match tokens.ids.len() > limit {
            true => skipped += 1,
            false => prepared.push(Prepared {
                tokens,
                closed_book,
            }),
        };
        for (i, example) in examples.iter().enumerate() {
            keep(example::closed_book(prompter, example)?, Some(example));
            let mut random = Random::new(settings.seed, &[2, i as u64]);
            if random.unit() < settings.with_document_share
                && let Some(open) = example::open_book(prompter, form, example)?
            {
                keep(open, None);
            }
        }
        if prepared.is_empty() {
            return Err(Error::invalid_input(format!(
                "all {skipped} training examples are longer than {limit} tokens; raise \
                 max_example_tokens or insert shorter ones"
            )));
        }
        Ok(Self {
            prompter,
            prepared,
            skipped,
        })
    }

    /// Optimiser steps of the run.
    pub(super) fn steps(&self, settings: &LoraSettings) -> usize {
        let per_epoch = |epoch| {
            let packs = self.packs(settings, &mut Random::new(settings.seed, &[3, epoch]));
            packs.len().div_ceil(settings.accumulation_steps)
        };
        let all = (0..settings.epochs as u64).map(per_epoch).sum();
        match settings.max_steps {
            0 => all,
            most => all.min(most),
        }
    }

    /// Steps of one epoch, in an order of its own. Each is a list of micro-batches, and those are
    /// split into `shards`.
    pub(super) fn epoch(
        &self,
        settings: &LoraSettings,
        epoch: u64,
        shards: usize,
    ) -> Result<Vec<Vec<MicroBatch>>> {
        let mut random = Random::new(settings.seed, &[3, epoch]);
        let packs = self.packs(settings, &mut random);
        let mut steps = Vec::with_capacity(packs.len().div_ceil(settings.accumulation_steps));
        for window in packs.chunks(settings.accumulation_steps) {
            let mut step = vec![];
            for pack in window {
                let noisy: Vec<Tokens> = pack
                    .iter()
                    .map(|i| self.noisy(&self.prepared[*i], settings, &mut random))
                    .collect::<Result<_>>()?;
                let lengths: Vec<usize> = noisy.iter().map(|tokens| tokens.ids.len()).collect();
                for group in split(&lengths, shards) {
                    step.push(MicroBatch::new(group.into_iter().map(|i| &noisy[i])));
                }
            }
            steps.push(step);
        }
        Ok(steps)
    }

    /// Indices of the examples per micro-batch. Lengths before noise decide, so that the number of
    /// steps is known.
    fn packs(&self, settings: &LoraSettings, random: &mut Random) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..self.prepared.len()).collect();
        random.shuffle(&mut order);
        let length = |i: &usize| self.prepared[*i].tokens.ids.len();
        let lengths: Vec<usize> = order.iter().map(length).collect();
        let mut packs = pack(&lengths, settings.batch_tokens);
        random.shuffle(&mut packs);
        let named = |pack: Vec<usize>| pack.into_iter().map(|i| order[i]).collect();
        packs.into_iter().map(named).collect()
    }

    fn noisy(
        &self,
        prepared: &Prepared<'_>,
        settings: &LoraSettings,
        random: &mut Random,
    ) -> Result<Tokens> {
        let share = settings.question_noise;
        if let Some(example) = prepared.closed_book
            && random.unit() < settings.question_shuffle
        {
            let question = example::reordered(&example.question, random);
            let tokens = example::closed_book(
                self.prompter,
                &Example {
                    question,
                    ..example.clone()
                },
            )?;
            return Ok(tokens.with_noise(share, random));
        }
        Ok(prepared.tokens.with_noise(share, random))
    }

    /// What the run did, by its log.
    pub(super) fn report(&self, log: &[StepRecord], directory: &Path) -> TrainReport {
        let mut histogram: Vec<(usize, usize)> = [32, 64, 128, 256, 512, 1024, 2048, usize::MAX]
            .map(|bound| (bound, 0))
            .into();
        let lengths = || self.prepared.iter().map(|p| p.tokens.ids.len());
        for length in lengths() {
            if let Some(bucket) = histogram.iter_mut().find(|(bound, _)| length <= *bound) {
                bucket.1 += 1;
            }
        }
        histogram.retain(|(_, count)| *count > 0);
        TrainReport {
            steps: log.last().map_or(0, |record| record.step),
            examples: self.prepared.len(),
            skipped_too_long: self.skipped,
            epoch_tokens: lengths().sum(),
            length_histogram: histogram,
            first_loss: log.first().map_or(0.0, |record| record.loss),
            last_loss: log.last().map_or(0.0, |record| record.loss),
            adapter: directory.to_path_buf(),
            seconds: seconds(log),
        }
    }
}
