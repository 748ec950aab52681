//! What the network computes: packed rows of many sequences in, hidden rows and logits out.
//!
//! Rows of a step are not padded. Each segment of rows names the blocks that hold its past and
//! the block its own keys and values go to. What a layer computes is in `layer`.

use candle_core::{DType, Device, Tensor};

use super::config::DecoderConfig;
use super::kv::KvBlock;
use super::layer::{Layer, LayerSpec, Norm, Recorder, layer_forward};
use super::load::load;
use super::matrix::{Embedding, Matrix};
use super::rope::Angles;
use super::source::{ModelFiles, ModelSource};
use crate::kernels::{Scoring, Segment, attention};
use crate::{Error, Result};

/// A decoder with all its weights on one device.
#[derive(Debug, Clone)]
pub struct Decoder {
    /// The shape of the network.
    pub config: DecoderConfig,
    /// `[vocab, hidden]`.
    pub embed: Embedding,
    /// First to last.
    pub layers: Vec<Layer>,
    /// The last norm, `[hidden]`.
    pub norm: Norm,
    /// `[vocab, hidden]`; shares the embedding's memory when tied.
    pub head: Matrix,
    /// Where the weights are.
    pub device: Device,
    /// The type of hidden rows, and of weights that are not quantised.
    pub dtype: DType,
}

/// Consecutive tokens of one sequence within a step.
#[derive(Debug)]
pub struct StepSegment<'a> {
    /// The tokens of the rows.
    pub tokens: &'a [u32],
    /// Position of the first token in its sequence.
    pub position: usize,
    /// Blocks before, first to last, with the tokens in use. They may be written in the same step.
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
        load(files, device, dtype)
    }

    /// The layers with what they are made of, first to last.
    pub(crate) fn layers(&self) -> impl DoubleEndedIterator<Item = (&LayerSpec, &Layer)> {
        self.config.layers.iter().zip(&self.layers)
    }

    /// Number of weights, the tied embedding counted once.
    ///
    /// # Errors
    /// A tensor that is no matrix.
    pub fn parameters(&self) -> Result<usize> {
        let mut count = self.norm.weight.elem_count();
        for layer in &self.layers {
            count += layer.norms().map(|n| n.weight.elem_count()).sum::<usize>();
            for (_, linear) in layer.linears() {
                let (out, input) = linear.dims()?;
                count += out * input + linear.bias.as_ref().map_or(0, Tensor::elem_count);
            }
        }
        for matrix in self.tables() {
            let (out, input) = matrix.dims()?;
            count += out * input;
        }
        Ok(count)
    }

    /// Bytes that the weights take, a tied embedding counted once.
    pub fn weight_bytes(&self) -> usize {
        let bytes = |t: &Tensor| t.elem_count() * t.dtype().size_in_bytes();
        let mut sum = bytes(&self.norm.weight) + self.tables().map(Matrix::bytes).sum::<usize>();
        for layer in &self.layers {
            sum += layer.norms().map(|norm| bytes(&norm.weight)).sum::<usize>();
            for (_, linear) in layer.linears() {
                sum += linear.matrix.bytes() + linear.bias.as_ref().map_or(0, bytes);
            }
        }
        sum
    }

    /// Embedding and head, once if they are the same.
    fn tables(&self) -> impl Iterator<Item = &Matrix> {
        let head = (!self.config.tie_word_embeddings).then_some(&self.head);
        std::iter::once(&self.embed.matrix).chain(head)
    }

    /// Room for `capacity` more tokens of a sequence.
    ///
    /// # Errors
    /// A device without enough memory.
    pub fn block(&self, capacity: usize) -> Result<KvBlock> {
        KvBlock::new(&self.config, capacity, self.dtype, &self.device)
    }

    /// The angles of rows at the given positions, for each of the network's rotations.
    pub(crate) fn angles(&self, positions: &[u32]) -> Result<Vec<Angles>> {
        let ropes = self.config.ropes.iter();
        ropes
            .map(|rope| rope.angles(positions, &self.device))
            .collect()
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
        let angles = self.angles(&positions)?;
        let mut x = self.embed.rows(&tokens, self.dtype)?;
        for (i, (spec, layer)) in self.layers().enumerate() {
            let angles = spec.rope.and_then(|rope| angles.get(rope));
            x = layer_forward(spec, layer, &x, angles, &mut Cache { layer: i, segments })?;
        }
        self.norm.forward(&x)
    }

    /// The scores of every token of the vocabulary, `[n, vocab]`, for hidden rows `[n, hidden]`.
    ///
    /// # Errors
    /// A failed tensor operation.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let mut logits = self.head.forward(hidden)?;
        if self.config.logits_scale != 1.0 {
            logits = (logits * self.config.logits_scale)?;
        }
        match self.config.logits_softcap {
            Some(cap) => Ok(((logits / cap)?.tanh()? * cap)?),
            None => Ok(logits),
        }
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

/// Keys and values of a step go to the blocks of its segments.
struct Cache<'a> {
    layer: usize,
    segments: &'a [StepSegment<'a>],
}

impl Recorder for Cache<'_> {
    /// Writes the rows' keys and values first, so that segments may attend to each other.
    fn attend(&mut self, scoring: Scoring, q: Tensor, k: Tensor, v: Tensor) -> Result<Tensor> {
        let mut row = 0;
        for s in self.segments {
            let n = s.tokens.len();
            let (k, v) = (k.narrow(0, row, n)?, v.narrow(0, row, n)?);
            s.block.write(self.layer, s.filled, &k, &v)?;
            row += n;
        }
        let mut spans = Vec::with_capacity(self.segments.len());
        for s in self.segments {
            let past = s.past.iter();
            let past = past.map(|(block, len)| block.span(self.layer, *len));
            spans.push(Segment {
                rows: s.tokens.len(),
                past: past.collect::<Result<_>>()?,
                own: s.block.span(self.layer, s.filled + s.tokens.len())?,
            });
        }
        attention(&q, &spans, scoring)
    }
}
