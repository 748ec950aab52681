//! The sequences that go through the network together, and what they are to predict.

use super::backward::{Gradients, backward};
use super::example::Tokens;
use super::forward::{Packed, forward};
use super::loss::{Targets, cross_entropy};
use crate::Result;
use crate::model::Decoder;

/// The summed loss of one micro-batch; its gradients, times `weight`, are added.
pub(super) fn micro_step(
    decoder: &Decoder,
    batch: &MicroBatch,
    weight: f64,
    gradients: &mut Gradients,
) -> Result<f64> {
    let pass = forward(decoder, &batch.packed)?;
    let hidden = decoder.norm.forward(&pass.output)?;
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
