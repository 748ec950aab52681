//! The forward pass of training: the decoder's own layers over whole packed sequences, keeping what
//! the backward pass needs and cannot cheaply compute again.

use std::collections::BTreeMap;

use candle_core::Tensor;

use crate::kernels::{Scoring, Segment, Span, attention_with_lse};
use crate::model::{Angles, Decoder, Kept, Recorder, layer_forward};
use crate::{Error, Result};

/// Packed sequences: `lengths` sum to the number of tokens; positions restart with each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packed {
    pub(super) ids: Vec<u32>,
    pub(super) lengths: Vec<usize>,
}

impl Packed {
    pub(super) fn positions(&self) -> Vec<u32> {
        self.lengths.iter().flat_map(|n| 0..*n as u32).collect()
    }
}

/// What a layer keeps of its forward pass; `t` packed rows.
#[derive(Debug)]
pub(super) struct Saved {
    kept: BTreeMap<Kept, Tensor>,
    pub(super) attended: Attended,
}

/// Attention with its inputs.
#[derive(Debug)]
pub(super) struct Attended {
    /// After rotation, `[t, heads, d]` and `[t, kv_heads, d]`.
    pub(super) q: Tensor,
    pub(super) k: Tensor,
    pub(super) v: Tensor,
    /// The result, `[t, heads, d]`, and its log-sum-exp, `[t, heads]`.
    pub(super) mixed: Tensor,
    pub(super) lse: Tensor,
}

impl Saved {
    /// What the forward pass kept.
    pub(super) fn get(&self, what: Kept) -> Result<&Tensor> {
        let kept = self.kept.get(&what);
        kept.ok_or_else(|| Error::internal(format!("the forward pass did not keep {what:?}")))
    }
}

/// A forward pass with all it saved.
#[derive(Debug)]
pub(super) struct Pass {
    pub(super) layers: Vec<Saved>,
    /// Residual stream after the last layer, before the last norm, `[t, hidden]`.
    pub(super) output: Tensor,
    /// For each of the network's rotations.
    pub(super) angles: Vec<Angles>,
    pub(super) lengths: Vec<usize>,
}

/// Runs `packed` through `decoder`, adapters included.
pub(super) fn forward(decoder: &Decoder, packed: &Packed) -> Result<Pass> {
    let angles = decoder.angles(&packed.positions())?;
    let mut x = decoder.embed.rows(&packed.ids, decoder.dtype)?;
    let mut layers = Vec::with_capacity(decoder.layers.len());
    for (spec, layer) in decoder.layers() {
        let mut recording = Recording {
            lengths: &packed.lengths,
            kept: BTreeMap::new(),
            attended: None,
        };
        let angles = spec.rope.and_then(|rope| angles.get(rope));
        x = layer_forward(spec, layer, &x, angles, &mut recording)?;
        let attended = recording.attended;
        layers.push(Saved {
            kept: recording.kept,
            attended: attended.ok_or_else(|| Error::internal("a layer did not attend"))?,
        });
    }
    Ok(Pass {
        layers,
        output: x,
        angles,
        lengths: packed.lengths.clone(),
    })
}

/// Keeps everything; each sequence attends to its own keys only.
struct Recording<'a> {
    lengths: &'a [usize],
    kept: BTreeMap<Kept, Tensor>,
    attended: Option<Attended>,
}

impl Recorder for Recording<'_> {
    fn keep(&mut self, what: Kept, tensor: &Tensor) {
        self.kept.insert(what, tensor.clone());
    }

    fn attend(&mut self, scoring: Scoring, q: Tensor, k: Tensor, v: Tensor) -> Result<Tensor> {
        let mut at = 0;
        let mut segments = Vec::with_capacity(self.lengths.len());
        for rows in self.lengths {
            segments.push(Segment {
                rows: *rows,
                past: vec![],
                own: Span {
                    keys: k.narrow(0, at, *rows)?,
                    values: v.narrow(0, at, *rows)?,
                },
            });
            at += rows;
        }
        let (mixed, lse) = attention_with_lse(&q, &segments, scoring)?;
        let kept = mixed.clone();
        self.attended = Some(Attended {
            q,
            k,
            v,
            mixed,
            lse,
        });
        Ok(kept)
    }
}
