//! The forward pass of training: as the decoder's, over whole packed sequences, keeping what the
//! backward pass needs and cannot cheaply compute again.

use candle_core::Tensor;

use crate::Result;
use crate::kernels::{Segment, Span, add_into, attention_with_lse, rms_norm, rope, swiglu};
use crate::model::Decoder;

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
    /// Residual stream into the layer, `[t, hidden]`.
    pub(super) input: Tensor,
    /// After rotation, `[t, heads, d]` and `[t, kv_heads, d]`.
    pub(super) q: Tensor,
    pub(super) k: Tensor,
    pub(super) v: Tensor,
    /// Attention's result, `[t, heads * d]`, and its log-sum-exp, `[t, heads]`.
    pub(super) mixed: Tensor,
    pub(super) lse: Tensor,
    /// Residual stream between attention and feed-forward, `[t, hidden]`.
    pub(super) middle: Tensor,
    /// Gate and up projections, `[t, intermediate]`.
    pub(super) gate: Tensor,
    pub(super) up: Tensor,
}

/// A forward pass with all it saved.
#[derive(Debug)]
pub(super) struct Pass {
    pub(super) layers: Vec<Saved>,
    /// Residual stream after the last layer, before the last norm, `[t, hidden]`.
    pub(super) output: Tensor,
    pub(super) cos: Tensor,
    pub(super) sin: Tensor,
    pub(super) lengths: Vec<usize>,
}

/// Runs `packed` through `decoder`, adapters included.
pub(super) fn forward(decoder: &Decoder, packed: &Packed) -> Result<Pass> {
    let c = &decoder.config;
    let t = packed.ids.len();
    let (cos, sin) = decoder.rope.rows(&packed.positions())?;
    let ids = Tensor::new(packed.ids.as_slice(), &decoder.device)?;
    let mut x = decoder.embed.index_select(&ids, 0)?;
    let mut layers = Vec::with_capacity(decoder.layers.len());
    for layer in &decoder.layers {
        let normed = rms_norm(&x, &layer.input_norm, c.rms_norm_eps)?;
        let heads = (t, c.num_attention_heads, c.head_dim);
        let kv_heads = (t, c.num_key_value_heads, c.head_dim);
        let q = rope(&layer.q.forward(&normed)?.reshape(heads)?, &cos, &sin)?;
        let k = rope(&layer.k.forward(&normed)?.reshape(kv_heads)?, &cos, &sin)?;
        let v = layer.v.forward(&normed)?.reshape(kv_heads)?.contiguous()?;
        let scale = 1.0 / (c.head_dim as f64).sqrt();
        let (mixed, lse) = attention_with_lse(&q, &segments(&packed.lengths, &k, &v)?, scale)?;
        let mixed = mixed.reshape((t, c.num_attention_heads * c.head_dim))?;
        let middle = add_into(layer.o.forward(&mixed)?, &x)?;
        let normed = rms_norm(&middle, &layer.post_norm, c.rms_norm_eps)?;
        let (gate, up) = (layer.gate.forward(&normed)?, layer.up.forward(&normed)?);
        let output = add_into(layer.down.forward(&swiglu(&gate, &up)?)?, &middle)?;
        layers.push(Saved {
            input: x,
            q,
            k,
            v,
            mixed,
            lse,
            middle,
            gate,
            up,
        });
        x = output;
    }
    Ok(Pass {
        layers,
        output: x,
        cos,
        sin,
        lengths: packed.lengths.clone(),
    })
}

/// Each sequence attends to its own keys only.
fn segments(lengths: &[usize], k: &Tensor, v: &Tensor) -> Result<Vec<Segment>> {
    let mut at = 0;
    lengths
        .iter()
        .map(|rows| {
            let own = Span {
                keys: k.narrow(0, at, *rows)?,
                values: v.narrow(0, at, *rows)?,
            };
            at += rows;
            Ok(Segment {
                rows: *rows,
                past: vec![],
                own,
            })
        })
        .collect()
}
