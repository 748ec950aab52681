//! What one layer computes, for generation and for training alike: attention and a gated
//! feed-forward, each a branch that is added to the residual stream.
//!
//! A [`LayerSpec`] says which of the published variants a layer is; a norm is computed where its
//! weights are. What differs between generation and training (where keys and values are kept, what
//! a backward pass needs) is the business of a [`Recorder`].

use candle_core::Tensor;

use super::linear::Linear;
use super::rope::Angles;
use crate::Result;
use crate::kernels::{Activation, Scoring, add_into, gated, rms_norm, rms_norm_backward, rope};

/// The matrices of a layer that can have an adapter: PEFT's module name and its parent. Those of
/// [`FUSED_MODULES`] stand for several of the others.
pub const LORA_MODULES: &[(&str, &str)] = &[
    ("q_proj", "self_attn"),
    ("k_proj", "self_attn"),
    ("v_proj", "self_attn"),
    ("o_proj", "self_attn"),
    ("gate_proj", "mlp"),
    ("up_proj", "mlp"),
    ("down_proj", "mlp"),
    ("qkv_proj", "self_attn"),
    ("gate_up_proj", "mlp"),
];

/// Matrices that are stored as one, with the modules whose rows they hold.
pub const FUSED_MODULES: &[(&str, &[&str])] = &[
    ("qkv_proj", &["q_proj", "k_proj", "v_proj"]),
    ("gate_up_proj", &["gate_proj", "up_proj"]),
];

/// What a layer is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerSpec {
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; divides the query heads.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Width of the gated feed-forward.
    pub inner: usize,
    /// Added to the mean square in every norm.
    pub norm_eps: f64,
    /// Added to the weights of every norm: Gemma stores them less one.
    pub norm_offset: f64,
    /// Norm of queries and keys before their rotation.
    pub qk_norm: Option<QkNorm>,
    /// Which matrices have a bias.
    pub biases: Biases,
    /// What gates the feed-forward.
    pub activation: Activation,
    /// Which of the network's rotations turns queries and keys.
    pub rope: Option<usize>,
    /// How queries and keys make scores, window included.
    pub scoring: Scoring,
    /// Both branches are multiplied by it before they are added.
    pub branch_scale: f64,
}

/// What queries and keys are normalised over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkNorm {
    /// Each head for itself (Qwen 3, Gemma 3).
    Head,
    /// All heads together (OLMo 2).
    Whole,
}

/// Which matrices of a layer have a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Biases {
    /// Query, key and value.
    pub qkv: bool,
    /// The attention's output.
    pub output: bool,
    /// Gate, up and down.
    pub feed_forward: bool,
}

/// RMS norm with its weights.
#[derive(Debug, Clone)]
pub struct Norm {
    /// `[width]`, f32, the offset included.
    pub weight: Tensor,
    /// Added to the mean square.
    pub eps: f64,
}

impl Norm {
    /// Normalises rows of the weights' width.
    ///
    /// # Errors
    /// A failed tensor operation.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        rms_norm(x, &self.weight, self.eps)
    }

    /// The gradient by `x`, given that of the result.
    pub(crate) fn backward(&self, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
        rms_norm_backward(x, &self.weight, self.eps, dy)
    }

    /// Rows that are several times as wide, part by part: `[t, n width]`.
    fn parts(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.reshape(((), self.weight.elem_count()))?)
    }

    fn forward_parts(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.forward(&self.parts(x)?)?.reshape(x.shape())?)
    }

    pub(crate) fn backward_parts(&self, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
        let dx = self.backward(&self.parts(x)?, &self.parts(dy)?)?;
        Ok(dx.reshape(x.shape())?)
    }
}

/// Matrices that read the same rows: apart, or stored as one.
#[derive(Debug, Clone)]
pub struct Projections {
    /// PEFT's module name of each matrix.
    names: Vec<&'static str>,
    linears: Vec<Linear>,
    /// Widths of the results.
    widths: Vec<usize>,
}

impl Projections {
    /// One linear map for each width, or one for all of them; `names` are theirs.
    pub(crate) fn new(names: Vec<&'static str>, linears: Vec<Linear>, widths: Vec<usize>) -> Self {
        Self {
            names,
            linears,
            widths,
        }
    }

    fn forward(&self, x: &Tensor) -> Result<Vec<Tensor>> {
        let whole = self.linears.iter().map(|linear| linear.forward(x));
        let whole = whole.collect::<Result<Vec<_>>>()?;
        match whole.as_slice() {
            [fused] if self.widths.len() > 1 => self.split(fused),
            _ => Ok(whole),
        }
    }

    fn split(&self, fused: &Tensor) -> Result<Vec<Tensor>> {
        let mut at = 0;
        let mut parts = Vec::with_capacity(self.widths.len());
        for width in &self.widths {
            parts.push(fused.narrow(1, at, *width)?.contiguous()?);
            at += width;
        }
        Ok(parts)
    }

    /// The gradients of the matrices' results, given those of the parts.
    pub(crate) fn join(&self, parts: Vec<Tensor>) -> Result<Vec<Tensor>> {
        match self.linears.len() < self.widths.len() {
            true => Ok(vec![Tensor::cat(&parts, 1)?]),
            false => Ok(parts),
        }
    }

    /// The matrices with their names.
    pub(crate) fn linears(&self) -> impl Iterator<Item = (&'static str, &Linear)> {
        self.names.iter().copied().zip(&self.linears)
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|n| *n == name)
    }
}

/// The weights of one layer. Norms are optional: each is computed where it is.
#[derive(Debug, Clone)]
pub struct Layer {
    /// `[hidden]`, before attention.
    pub input_norm: Option<Norm>,
    /// Query, key and value, `[heads * head_dim, hidden]` and twice `[kv_heads * head_dim, hidden]`.
    pub qkv: Projections,
    /// Of queries, `[head_dim]` or `[heads * head_dim]`.
    pub q_norm: Option<Norm>,
    /// Of keys, `[head_dim]` or `[kv_heads * head_dim]`.
    pub k_norm: Option<Norm>,
    /// `[hidden, heads * head_dim]`.
    pub o: Linear,
    /// `[hidden]`, of the attention's result.
    pub attention_norm: Option<Norm>,
    /// `[hidden]`, before the feed-forward.
    pub feed_forward_norm: Option<Norm>,
    /// Gate and up, `[inner, hidden]` each.
    pub gate_up: Projections,
    /// `[hidden, inner]`.
    pub down: Linear,
    /// `[hidden]`, of the feed-forward's result.
    pub output_norm: Option<Norm>,
}

impl Layer {
    /// The matrix that PEFT calls `module`, if this layer has it.
    pub fn linear(&self, module: &str) -> Option<&Linear> {
        self.linears()
            .find(|(name, _)| *name == module)
            .map(|(_, linear)| linear)
    }

    /// As [`Layer::linear`], to change it.
    pub fn linear_mut(&mut self, module: &str) -> Option<&mut Linear> {
        match module {
            "o_proj" => Some(&mut self.o),
            "down_proj" => Some(&mut self.down),
            _ => match (self.qkv.find(module), self.gate_up.find(module)) {
                (Some(at), _) => self.qkv.linears.get_mut(at),
                (None, Some(at)) => self.gate_up.linears.get_mut(at),
                (None, None) => None,
            },
        }
    }

    /// All matrices with PEFT's names.
    pub fn linears(&self) -> impl Iterator<Item = (&'static str, &Linear)> {
        let (o, down) = (("o_proj", &self.o), ("down_proj", &self.down));
        let attention = self.qkv.linears().chain([o]);
        attention.chain(self.gate_up.linears()).chain([down])
    }

    /// All norms that it has.
    pub fn norms(&self) -> impl Iterator<Item = &Norm> {
        let norms = [
            &self.input_norm,
            &self.q_norm,
            &self.k_norm,
            &self.attention_norm,
            &self.feed_forward_norm,
            &self.output_norm,
        ];
        norms.into_iter().flatten()
    }
}

/// What a backward pass needs of a layer's forward pass and cannot cheaply compute again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kept {
    /// Residual stream into the layer, `[t, hidden]`.
    Input,
    /// Queries before their norm, `[t, heads * head_dim]`; only if they have one.
    Query,
    /// Keys before their norm, `[t, kv_heads * head_dim]`; only if they have one.
    Key,
    /// The attention's result before its norm, `[t, hidden]`; only if it has one.
    Attended,
    /// Residual stream between attention and feed-forward, `[t, hidden]`.
    Middle,
    /// Gate projection, `[t, inner]`.
    Gate,
    /// Up projection, `[t, inner]`.
    Up,
    /// The feed-forward's result before its norm, `[t, hidden]`; only if it has one.
    Fed,
}

/// What surrounds a layer: who keeps keys and values, and what else is kept.
pub(crate) trait Recorder {
    /// A tensor that a backward pass would need.
    fn keep(&mut self, _what: Kept, _tensor: &Tensor) {}

    /// Attention of `q` `[t, heads, d]`; `k` and `v` `[t, kv_heads, d]` belong to the same rows.
    /// All are contiguous. The result is `[t, heads, d]`.
    fn attend(&mut self, scoring: Scoring, q: Tensor, k: Tensor, v: Tensor) -> Result<Tensor>;
}

/// Runs rows `x` `[t, hidden]` through a layer; `angles` are those of the rows.
pub(crate) fn layer_forward(
    spec: &LayerSpec,
    layer: &Layer,
    x: &Tensor,
    angles: Option<&Angles>,
    recorder: &mut impl Recorder,
) -> Result<Tensor> {
    let t = x.dim(0)?;
    recorder.keep(Kept::Input, x);
    let normed = before(layer.input_norm.as_ref(), x)?;
    let [q, k, v] = three(layer.qkv.forward(&normed)?)?;
    let mut place = |norm: Option<&Norm>, what: Kept, x: Tensor, heads: usize| -> Result<Tensor> {
        let x = match norm {
            Some(norm) => {
                recorder.keep(what, &x);
                norm.forward_parts(&x)?
            }
            None => x,
        };
        let x = x.reshape((t, heads, spec.head_dim))?;
        match angles {
            Some(angles) => rope(&x, &angles.cos, &angles.sin),
            None => Ok(x),
        }
    };
    let q = place(layer.q_norm.as_ref(), Kept::Query, q, spec.heads)?;
    let k = place(layer.k_norm.as_ref(), Kept::Key, k, spec.kv_heads)?;
    let v = v.reshape((t, spec.kv_heads, spec.head_dim))?;
    let v = v.contiguous()?;
    let mixed = recorder.attend(spec.scoring, q, k, v)?;
    let mixed = mixed.reshape((t, spec.heads * spec.head_dim))?;
    let out = layer.o.forward(&mixed)?;
    let out = after(layer.attention_norm.as_ref(), out, Kept::Attended, recorder)?;
    let middle = add_into(scaled(out, spec.branch_scale)?, x)?;
    recorder.keep(Kept::Middle, &middle);

    let normed = before(layer.feed_forward_norm.as_ref(), &middle)?;
    let [gate, up] = two(layer.gate_up.forward(&normed)?)?;
    recorder.keep(Kept::Gate, &gate);
    recorder.keep(Kept::Up, &up);
    let fed = layer.down.forward(&gated(spec.activation, &gate, &up)?)?;
    let fed = after(layer.output_norm.as_ref(), fed, Kept::Fed, recorder)?;
    add_into(scaled(fed, spec.branch_scale)?, &middle)
}

/// What a branch reads.
pub(crate) fn before(norm: Option<&Norm>, x: &Tensor) -> Result<Tensor> {
    match norm {
        Some(norm) => norm.forward(x),
        None => Ok(x.clone()),
    }
}

/// What a branch gives.
fn after(
    norm: Option<&Norm>,
    x: Tensor,
    what: Kept,
    recorder: &mut impl Recorder,
) -> Result<Tensor> {
    match norm {
        Some(norm) => {
            recorder.keep(what, &x);
            norm.forward(&x)
        }
        None => Ok(x),
    }
}

/// `x`, or a new tensor.
pub(crate) fn scaled(x: Tensor, scale: f64) -> Result<Tensor> {
    match scale == 1.0 {
        true => Ok(x),
        false => Ok((x * scale)?),
    }
}

fn three(parts: Vec<Tensor>) -> Result<[Tensor; 3]> {
    parts.try_into().map_err(|_| wrong_parts())
}

fn two(parts: Vec<Tensor>) -> Result<[Tensor; 2]> {
    parts.try_into().map_err(|_| wrong_parts())
}

fn wrong_parts() -> crate::Error {
    crate::Error::internal("a layer's projections have the wrong number of parts")
}
