//! The same batch step after step, from the pairs that a decoder has: what is compared with other
//! trainers. No examples, no schedule, no files.

use super::adapter::{Site, sites};
use super::backward::Gradients;
use super::example::Tokens;
use super::micro_batch::{MicroBatch, micro_step};
use super::optimizer::AdamW;
use super::settings::LoraSettings;
use crate::model::Decoder;
use crate::{Error, Result};

/// A sequence of token ids; those from `answer_at` on are to be predicted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// The token ids.
    pub ids: Vec<u32>,
    /// Index of the first that counts.
    pub answer_at: usize,
}

/// What a step found before it changed the pairs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RepeatedStep {
    /// Mean loss of the supervised tokens in nats.
    pub loss: f64,
    /// Norm of all gradients together.
    pub grad_norm: f64,
}

/// Trains the pairs of `decoder` on `batch`, packed into one micro-batch, for some steps at the
/// peak learning rate of `settings`.
///
/// # Errors
/// A decoder without pairs, a batch without tokens to predict, a failed tensor operation.
pub fn repeat(
    decoder: &mut Decoder,
    batch: &[Sequence],
    settings: &LoraSettings,
    steps: usize,
) -> Result<Vec<RepeatedStep>> {
    let paired = |decoder: &Decoder, site: &Site| {
        let layer = decoder.layers.get(site.layer);
        let linear = layer.and_then(|layer| layer.linear(site.module_name()));
        linear.is_some_and(|linear| linear.lora.is_some())
    };
    let all = sites(decoder, &LoraSettings::default())?;
    if !all.iter().any(|site| paired(decoder, site)) {
        return Err(Error::invalid_input(
            "the model has no adapter; attach one to train it",
        ));
    }
    let batch: Vec<Tokens> = batch
        .iter()
        .map(|sequence| Tokens {
            ids: sequence.ids.clone(),
            answer_at: sequence.answer_at,
            question: 0..0,
        })
        .collect();
    let batch = MicroBatch::new(&batch);
    let supervised = batch.targets.rows.len();
    if supervised == 0 {
        return Err(Error::invalid_input("the batch has no token to predict"));
    }
    let share = 1.0 / supervised as f64;
    let mut adam = AdamW::default();
    let mut done = Vec::with_capacity(steps);
    for _ in 0..steps {
        let mut gradients = Gradients::default();
        let loss = micro_step(decoder, &batch, share, &mut gradients)? * share;
        let grad_norm = adam.apply(decoder, &gradients, settings, settings.learning_rate)?;
        done.push(RepeatedStep { loss, grad_norm });
    }
    Ok(done)
}
