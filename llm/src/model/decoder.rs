//! What the network computes: packed rows of many sequences in, hidden rows and logits out.
//!
//! Rows of a step are not padded. Each segment of rows names the blocks that hold its past and
//! the block its own keys and values go to. Inference only: nothing here is differentiable.

use candle_core::{DType, Device, Tensor};

use super::config::DecoderConfig;
use super::kv::KvBlock;
use super::linear::Linear;
use super::rope_table::RopeTable;
use super::source::{ModelFiles, ModelSource};
use super::weights::Weights;
use crate::kernels::{Segment, add_into, attention, rms_norm, rope, swiglu};
use crate::{Error, Result};

/// A Llama-family decoder with all its weights on one device.
#[derive(Debug, Clone)]
pub struct Decoder {
    /// The shape of the network.
    pub config: DecoderConfig,
    /// `[vocab, hidden]`.
    pub embed: Tensor,
    /// First to last.
    pub layers: Vec<Layer>,
    /// Weight of the last norm, `[hidden]`.
    pub norm: Tensor,
    /// `[vocab, hidden]`; the embedding itself when tied.
    pub head: Tensor,
    /// Angles of all positions of the context.
    pub rope: RopeTable,
    /// Where the weights are.
    pub device: Device,
    /// The weights' dtype, and that of the hidden rows.
    pub dtype: DType,
}

/// One layer: attention and gated feed-forward, each behind a norm and a residual.
#[derive(Debug, Clone)]
pub struct Layer {
    /// `[hidden]`, before attention.
    pub input_norm: Tensor,
    /// `[heads * head_dim, hidden]`.
    pub q: Linear,
    /// `[kv_heads * head_dim, hidden]`.
    pub k: Linear,
    /// `[kv_heads * head_dim, hidden]`.
    pub v: Linear,
    /// `[hidden, heads * head_dim]`.
    pub o: Linear,
    /// `[hidden]`, before the feed-forward.
    pub post_norm: Tensor,
    /// `[intermediate, hidden]`.
    pub gate: Linear,
    /// `[intermediate, hidden]`.
    pub up: Linear,
    /// `[hidden, intermediate]`.
    pub down: Linear,
}

/// Consecutive tokens of one sequence within a step.
#[derive(Debug)]
pub struct StepSegment<'a> {
    /// The tokens of the rows.
    pub tokens: &'a [u32],
    /// Position of the first token in its sequence.
    pub position: usize,
    /// Blocks attended to fully, with the tokens in use. They may be written in the same step.
    pub past: Vec<(&'a KvBlock, usize)>,
    /// The block the rows' keys and values go to.
    pub block: &'a KvBlock,
    /// Tokens already in that block.
    pub filled: usize,
}

impl Decoder {
    /// Reads a model. Weights are converted to `dtype`.
    ///
    /// # Errors
    /// A missing, damaged or unsupported file, naming it.
    pub fn load(source: &ModelSource, device: &Device, dtype: DType) -> Result<Self> {
        Self::read(&source.open()?, device, dtype)
    }

    /// As [`Decoder::load`], from files that are open already.
    ///
    /// # Errors
    /// As [`Decoder::load`].
    pub fn read(files: &ModelFiles, device: &Device, dtype: DType) -> Result<Self> {
        let config = DecoderConfig::parse(&files.name, &files.require("config.json")?)?;
        let weights = Weights::open(files)?;
        let c = &config;
        let (hidden, inner) = (c.hidden_size, c.intermediate_size);
        let (width, kv_width) = (
            c.num_attention_heads * c.head_dim,
            c.num_key_value_heads * c.head_dim,
        );
        let tensor = |name: &str, shape: &[usize]| weights.tensor(name, shape, dtype, device);
        let embed = tensor("model.embed_tokens.weight", &[c.vocab_size, hidden])?;
        let head = if c.tie_word_embeddings {
            embed.clone()
        } else {
            tensor("lm_head.weight", &[c.vocab_size, hidden])?
        };
        let mut layers = Vec::with_capacity(c.num_hidden_layers);
        for i in 0..c.num_hidden_layers {
            let norm = |name: &str| tensor(&format!("model.layers.{i}.{name}.weight"), &[hidden]);
            let linear = |name: &str, shape: &[usize]| {
                Linear::arranged(tensor(&format!("model.layers.{i}.{name}.weight"), shape)?)
            };
            layers.push(Layer {
                input_norm: norm("input_layernorm")?,
                q: linear("self_attn.q_proj", &[width, hidden])?,
                k: linear("self_attn.k_proj", &[kv_width, hidden])?,
                v: linear("self_attn.v_proj", &[kv_width, hidden])?,
                o: linear("self_attn.o_proj", &[hidden, width])?,
                post_norm: norm("post_attention_layernorm")?,
                gate: linear("mlp.gate_proj", &[inner, hidden])?,
                up: linear("mlp.up_proj", &[inner, hidden])?,
                down: linear("mlp.down_proj", &[hidden, inner])?,
            });
        }
        let norm = tensor("model.norm.weight", &[hidden])?;
        let rope = RopeTable::new(&c.rope, c.head_dim, c.context_tokens(), device)?;
        Ok(Self {
            embed,
            layers,
            norm,
            head,
            rope,
            device: device.clone(),
            dtype,
            config,
        })
    }

    /// Number of weights, the tied embedding counted once.
    pub fn parameters(&self) -> usize {
        let layer = |l: &Layer| {
            let linears = [&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down];
            let weights = linears
                .iter()
                .map(|linear| linear.weight.elem_count())
                .sum::<usize>();
            weights + l.input_norm.elem_count() + l.post_norm.elem_count()
        };
        let head = if self.config.tie_word_embeddings {
            0
        } else {
            self.head.elem_count()
        };
        let layers = self.layers.iter().map(layer).sum::<usize>();
        self.embed.elem_count() + head + self.norm.elem_count() + layers
    }

    /// Room for `capacity` more tokens of a sequence.
    ///
    /// # Errors
    /// A device without enough memory.
    pub fn block(&self, capacity: usize) -> Result<KvBlock> {
        KvBlock::new(&self.config, capacity, self.dtype, &self.device)
    }

    /// Runs the rows of all segments through the network, writing their keys and values to their
    /// blocks. Returns the normed hidden rows `[t, hidden]` in the order of the segments.
    ///
    /// # Errors
    /// A failed tensor operation; `InvalidInput` for a token outside the vocabulary or a position
    /// outside the context.
    pub fn forward(&self, segments: &[StepSegment<'_>]) -> Result<Tensor> {
        let c = &self.config;
        let tokens: Vec<u32> = segments.iter().flat_map(|s| s.tokens).copied().collect();
        if let Some(id) = tokens.iter().find(|id| **id as usize >= c.vocab_size) {
            return Err(Error::invalid_input(format!(
                "token id {id} is outside the model's vocabulary of {} tokens; tokenizer.json and \
                 the weights are of different models",
                c.vocab_size
            )));
        }
        let end = segments
            .iter()
            .map(|s| s.position + s.tokens.len())
            .max()
            .unwrap_or(0);
        if end > c.context_tokens() {
            return Err(Error::invalid_input(format!(
                "a sequence of {end} tokens does not fit the model's context of {} tokens",
                c.context_tokens()
            )));
        }
        let positions: Vec<u32> = segments
            .iter()
            .flat_map(|s| (0..s.tokens.len()).map(|i| (s.position + i) as u32))
            .collect();
        let t = tokens.len();
        let (cos, sin) = self.rope.rows(&positions)?;
        let scale = 1.0 / (c.head_dim as f64).sqrt();
        let mut x = self
            .embed
            .index_select(&Tensor::new(tokens, &self.device)?, 0)?;
        for (i, layer) in self.layers.iter().enumerate() {
            let normed = rms_norm(&x, &layer.input_norm, c.rms_norm_eps)?;
            let heads = (t, c.num_attention_heads, c.head_dim);
            let kv_heads = (t, c.num_key_value_heads, c.head_dim);
            let q = rope(&layer.q.forward(&normed)?.reshape(heads)?, &cos, &sin)?;
            let k = rope(&layer.k.forward(&normed)?.reshape(kv_heads)?, &cos, &sin)?;
            let v = layer.v.forward(&normed)?.reshape(kv_heads)?;
            let spans = self.write_and_span(i, segments, &k, &v)?;
            let mixed = attention(&q, &spans, scale)?;
            let mixed = mixed.reshape((t, c.num_attention_heads * c.head_dim))?;
            x = add_into(layer.o.forward(&mixed)?, &x)?;
            let normed = rms_norm(&x, &layer.post_norm, c.rms_norm_eps)?;
            let gated = swiglu(&layer.gate.forward(&normed)?, &layer.up.forward(&normed)?)?;
            x = add_into(layer.down.forward(&gated)?, &x)?;
        }
        rms_norm(&x, &self.norm, c.rms_norm_eps)
    }

    /// Writes the rows' keys and values first, so that segments may attend to each other.
    fn write_and_span(
        &self,
        layer: usize,
        segments: &[StepSegment<'_>],
        k: &Tensor,
        v: &Tensor,
    ) -> Result<Vec<Segment>> {
        let mut row = 0;
        for s in segments {
            let n = s.tokens.len();
            s.block.write(
                layer,
                s.filled,
                &k.narrow(0, row, n)?,
                &v.narrow(0, row, n)?,
            )?;
            row += n;
        }
        let mut spans = Vec::with_capacity(segments.len());
        for s in segments {
            let past = s.past.iter().map(|(block, len)| block.span(layer, *len));
            spans.push(Segment {
                rows: s.tokens.len(),
                past: past.collect::<Result<_>>()?,
                own: s.block.span(layer, s.filled + s.tokens.len())?,
            });
        }
        Ok(spans)
    }

    /// The scores of every token of the vocabulary, `[n, vocab]`, for hidden rows `[n, hidden]`.
    ///
    /// # Errors
    /// A failed tensor operation.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        Ok(hidden.matmul(&self.head.t()?)?)
    }

    /// The logits of every position of several prompts, `[tokens, vocab]` f32 each, computed in
    /// one packed batch.
    ///
    /// # Errors
    /// As [`Decoder::forward`]; `InvalidInput` for an empty prompt.
    pub fn score(&self, prompts: &[Vec<u32>]) -> Result<Vec<Tensor>> {
        if prompts.iter().any(Vec::is_empty) {
            return Err(Error::invalid_input(
                "a prompt has no tokens; give it at least one",
            ));
        }
        let blocks = prompts
            .iter()
            .map(|p| self.block(p.len()))
            .collect::<Result<Vec<KvBlock>>>()?;
        let segments: Vec<StepSegment<'_>> = prompts
            .iter()
            .zip(&blocks)
            .map(|(tokens, block)| StepSegment {
                tokens,
                position: 0,
                past: Vec::new(),
                block,
                filled: 0,
            })
            .collect();
        let hidden = self.forward(&segments)?;
        let mut row = 0;
        let mut logits = Vec::with_capacity(prompts.len());
        for prompt in prompts {
            let rows = hidden.narrow(0, row, prompt.len())?;
            logits.push(self.logits(&rows)?.to_dtype(DType::F32)?);
            row += prompt.len();
        }
        Ok(logits)
    }
}
