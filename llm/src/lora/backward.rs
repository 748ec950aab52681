//! The backward pass, written out: what reaches the pairs, and nothing for frozen weights.
//!
//! For `y = x Wᵀ + s (x Aᵀ) Bᵀ` with upstream gradient `dy`: `dx = dy W + s (dy B) A`,
//! `dA = s (dy B)ᵀ x`, `dB = s dyᵀ (x Aᵀ)`. Norms, rotation, attention and the gate have their
//! own functions in the kernels; the order is that of `layer_forward`, backwards. It stops at the
//! lowest layer that has a pair.

use std::collections::BTreeMap;

use candle_core::Tensor;

use super::adapter::Site;
use super::forward::{Pass, Saved};
use crate::Result;
use crate::kernels::{add_into, attention_backward, gated, gated_backward, rope};
use crate::model::{
    Decoder, Kept, LORA_MODULES, Layer, LayerSpec, Linear, Norm, Projections, before, scaled,
};

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
    let lowest = decoder
        .layers
        .iter()
        .position(has_pair)
        .unwrap_or(decoder.layers.len());
    let mut dx = decoder.norm.backward(&pass.output, d_hidden)?;
    let layers: Vec<_> = decoder.layers().enumerate().skip(lowest).collect();
    for (i, (spec, layer)) in layers.into_iter().rev() {
        let mut step = LayerStep {
            spec,
            layer,
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
    layer.linears().any(|(_, linear)| linear.lora.is_some())
}

struct LayerStep<'a> {
    spec: &'a LayerSpec,
    layer: &'a Layer,
    index: usize,
    saved: &'a Saved,
    pass: &'a Pass,
    gradients: &'a mut Gradients,
}

impl LayerStep<'_> {
    /// From the gradient of the layer's output to that of the stream between its halves.
    fn feed_forward(&mut self, d_output: &Tensor) -> Result<Tensor> {
        let (saved, layer, spec) = (self.saved, self.layer, self.spec);
        let d_fed = self.branch(layer.output_norm.as_ref(), Kept::Fed, d_output)?;
        let (gate, up) = (saved.get(Kept::Gate)?, saved.get(Kept::Up)?);
        let mixed = gated(spec.activation, gate, up)?;
        let d_mixed = self.linear("down_proj", &layer.down, &mixed, &d_fed)?;
        let (d_gate, d_up) = gated_backward(spec.activation, gate, up, &d_mixed)?;
        let middle = saved.get(Kept::Middle)?;
        let norm = layer.feed_forward_norm.as_ref();
        let normed = before(norm, middle)?;
        let d_normed = self.projections(&layer.gate_up, &normed, vec![d_gate, d_up])?;
        add_into(through(norm, middle, d_normed)?, d_output)
    }

    /// From there to the gradient of the layer's input; that of the lowest layer is not needed.
    fn attention(&mut self, d_middle: &Tensor, go_on: bool) -> Result<Tensor> {
        let (saved, layer, spec) = (self.saved, self.layer, self.spec);
        let t = d_middle.dim(0)?;
        let d_out = self.branch(layer.attention_norm.as_ref(), Kept::Attended, d_middle)?;
        let attended = &saved.attended;
        let mixed = attended.mixed.flatten_from(1)?;
        let d_mixed = self.linear("o_proj", &layer.o, &mixed, &d_out)?;
        let (dq, dk, dv) = attention_backward(
            &attended.q,
            &attended.k,
            &attended.v,
            &attended.mixed,
            &attended.lse,
            &d_mixed.reshape((t, spec.heads, spec.head_dim))?,
            &self.pass.lengths,
            spec.scoring,
        )?;
        let dq = self.placed(layer.q_norm.as_ref(), Kept::Query, &dq)?;
        let dk = self.placed(layer.k_norm.as_ref(), Kept::Key, &dk)?;
        let input = saved.get(Kept::Input)?;
        let norm = layer.input_norm.as_ref();
        let normed = before(norm, input)?;
        let d_normed = self.projections(&layer.qkv, &normed, vec![dq, dk, dv.flatten_from(1)?])?;
        if !go_on {
            return Ok(d_middle.clone());
        }
        add_into(through(norm, input, d_normed)?, d_middle)
    }

    /// From the gradient of the stream behind a branch to that of the branch's last matrix.
    fn branch(&self, norm: Option<&Norm>, what: Kept, dy: &Tensor) -> Result<Tensor> {
        let dy = scaled(dy.clone(), self.spec.branch_scale)?;
        match norm {
            Some(norm) => norm.backward(self.saved.get(what)?, &dy),
            None => Ok(dy),
        }
    }

    /// From the gradient of rotated heads to that of their projection.
    fn placed(&self, norm: Option<&Norm>, what: Kept, dy: &Tensor) -> Result<Tensor> {
        let angles = self.spec.rope.and_then(|rope| self.pass.angles.get(rope));
        let dy = match angles {
            Some(angles) => {
                // A rotation's gradient is the rotation back.
                let back = angles.back()?;
                rope(dy, &back.cos, &back.sin)?
            }
            None => dy.clone(),
        };
        let dy = dy.flatten_from(1)?;
        match norm {
            Some(norm) => norm.backward_parts(self.saved.get(what)?, &dy),
            None => Ok(dy),
        }
    }

    /// The gradient of what the matrices read, given those of their parts' results.
    fn projections(&mut self, of: &Projections, x: &Tensor, dy: Vec<Tensor>) -> Result<Tensor> {
        let mut sum: Option<Tensor> = None;
        for ((name, linear), dy) in of.linears().zip(of.join(dy)?) {
            let dx = self.linear(name, linear, x, &dy)?;
            sum = Some(match sum {
                Some(sum) => add_into(sum, &dx)?,
                None => dx,
            });
        }
        sum.ok_or_else(|| crate::Error::internal("a layer without projections"))
    }

    fn linear(&mut self, name: &str, linear: &Linear, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
        let dx = linear.matrix.forward_t(dy)?;
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

/// The gradient of what a branch's norm reads.
fn through(norm: Option<&Norm>, x: &Tensor, dy: Tensor) -> Result<Tensor> {
    match norm {
        Some(norm) => norm.backward(x, &dy),
        None => Ok(dy),
    }
}
