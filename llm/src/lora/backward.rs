//! The backward pass, written out: what reaches the pairs, and nothing for frozen weights.
//!
//! For `y = x Wᵀ + s (x Aᵀ) Bᵀ` with upstream gradient `dy`: `dx = dy W + s (dy B) A`,
//! `dA = s (dy B)ᵀ x`, `dB = s dyᵀ (x Aᵀ)`. Norms, rotation, attention and the gate have their
//! own functions in the kernels. It stops at the lowest layer that has a pair.

use std::collections::BTreeMap;

use candle_core::Tensor;

use super::adapter::Site;
use super::forward::{Pass, Saved};
use crate::Result;
use crate::kernels::{
    add_into, attention_backward, rms_norm, rms_norm_backward, rope, swiglu, swiglu_backward,
};
use crate::model::{Decoder, LORA_MODULES, Layer, Linear};

/// Gradients of the pairs, summed over micro-batches; f32.
#[derive(Debug, Default)]
pub(super) struct Gradients {
    /// (dA `[r, in]`, dB `[out, r]`) by site, in a fixed order.
    pub(super) pairs: BTreeMap<Site, (Tensor, Tensor)>,
}

impl Gradients {
    /// Adds all of `other`.
    pub(super) fn merge(&mut self, other: Self) -> Result<()> {
        for (site, (a, b)) in other.pairs {
            self.add(site, a, b)?;
        }
        Ok(())
    }

    fn add(&mut self, site: Site, a: Tensor, b: Tensor) -> Result<()> {
        let sum = match self.pairs.remove(&site) {
            Some((old_a, old_b)) => ((old_a + a)?, (old_b + b)?),
            None => (a, b),
        };
        self.pairs.insert(site, sum);
        Ok(())
    }
}

/// Adds the gradients of one pass; `d_hidden` `[t, hidden]` is that of the rows after the last
/// norm.
pub(super) fn backward(
    decoder: &Decoder,
    pass: &Pass,
    d_hidden: &Tensor,
    gradients: &mut Gradients,
) -> Result<()> {
    let eps = decoder.config.rms_norm_eps;
    let lowest = decoder
        .layers
        .iter()
        .position(has_pair)
        .unwrap_or(decoder.layers.len());
    let mut dx = rms_norm_backward(&pass.output, &decoder.norm, eps, d_hidden)?;
    for i in (lowest..decoder.layers.len()).rev() {
        let mut step = LayerStep {
            decoder,
            layer: &decoder.layers[i],
            index: i,
            saved: &pass.layers[i],
            pass,
            gradients,
        };
        dx = step.feed_forward(&dx)?;
        dx = step.attention(&dx, i > lowest)?;
    }
    Ok(())
}

fn has_pair(layer: &Layer) -> bool {
    LORA_MODULES
        .iter()
        .any(|(name, _)| layer.linear(name).is_some_and(|l| l.lora.is_some()))
}

struct LayerStep<'a> {
    decoder: &'a Decoder,
    layer: &'a Layer,
    index: usize,
    saved: &'a Saved,
    pass: &'a Pass,
    gradients: &'a mut Gradients,
}

impl LayerStep<'_> {
    /// From the gradient of the layer's output to that of the stream between its halves.
    fn feed_forward(&mut self, d_output: &Tensor) -> Result<Tensor> {
        let (saved, layer) = (self.saved, self.layer);
        let eps = self.decoder.config.rms_norm_eps;
        let gated = swiglu(&saved.gate, &saved.up)?;
        let d_gated = self.linear("down_proj", &layer.down, &gated, d_output)?;
        let (d_gate, d_up) = swiglu_backward(&saved.gate, &saved.up, &d_gated)?;
        let normed = rms_norm(&saved.middle, &layer.post_norm, eps)?;
        let d_normed = add_into(
            self.linear("gate_proj", &layer.gate, &normed, &d_gate)?,
            &self.linear("up_proj", &layer.up, &normed, &d_up)?,
        )?;
        let d_middle = rms_norm_backward(&saved.middle, &layer.post_norm, eps, &d_normed)?;
        add_into(d_middle, d_output)
    }

    /// From there to the gradient of the layer's input; that of the lowest layer is not needed.
    fn attention(&mut self, d_middle: &Tensor, go_on: bool) -> Result<Tensor> {
        let (saved, layer) = (self.saved, self.layer);
        let c = &self.decoder.config;
        let t = d_middle.dim(0)?;
        let d_mixed = self.linear("o_proj", &layer.o, &saved.mixed, d_middle)?;
        let heads = (t, c.num_attention_heads, c.head_dim);
        let scale = 1.0 / (c.head_dim as f64).sqrt();
        let (dq, dk, dv) = attention_backward(
            &saved.q,
            &saved.k,
            &saved.v,
            &saved.mixed.reshape(heads)?,
            &saved.lse,
            &d_mixed.reshape(heads)?,
            &self.pass.lengths,
            scale,
        )?;
        // A rotation's gradient is the rotation back.
        let back = self.pass.sin.neg()?;
        let dq = rope(&dq, &self.pass.cos, &back)?.flatten_from(1)?;
        let dk = rope(&dk, &self.pass.cos, &back)?.flatten_from(1)?;
        let dv = dv.flatten_from(1)?;
        let normed = rms_norm(&saved.input, &layer.input_norm, c.rms_norm_eps)?;
        let d_q = self.linear("q_proj", &layer.q, &normed, &dq)?;
        let d_k = self.linear("k_proj", &layer.k, &normed, &dk)?;
        let d_v = self.linear("v_proj", &layer.v, &normed, &dv)?;
        if !go_on {
            return Ok(d_middle.clone());
        }
        let d_normed = add_into(add_into(d_q, &d_k)?, &d_v)?;
        let d_input =
            rms_norm_backward(&saved.input, &layer.input_norm, c.rms_norm_eps, &d_normed)?;
        add_into(d_input, d_middle)
    }

    fn linear(&mut self, name: &str, linear: &Linear, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
        let dx = dy.matmul(&linear.weight)?;
        let Some(pair) = &linear.lora else {
            return Ok(dx);
        };
        let low = (dy.matmul(&pair.b)? * pair.scale)?; // [t, r]
        let d_a = low.t()?.matmul(x)?;
        let d_b = (dy.t()?.matmul(&x.matmul(&pair.a.t()?)?)? * pair.scale)?;
        let module = LORA_MODULES
            .iter()
            .position(|(n, _)| *n == name)
            .unwrap_or(0);
        self.gradients.add(
            Site {
                layer: self.index,
                module,
            },
            d_a,
            d_b,
        )?;
        add_into(dx, &low.matmul(&pair.a)?)
    }
}
