//! How a network is put together from its configuration and its weights.

use candle_core::{DType, Device};

use super::config::DecoderConfig;
use super::decoder::Decoder;
use super::layer::{FUSED_MODULES, LORA_MODULES, Layer, LayerSpec, Norm, Projections, QkNorm};
use super::linear::Linear;
use super::matrix::Embedding;
use super::source::ModelFiles;
use super::weights::{self, WeightSource};
use crate::{Error, Result};

/// What stands before the names of a text model's tensors: alone, and inside a model that also
/// sees, as transformers 4 and 5 write it.
const PREFIXES: &[(&str, &str)] = &[
    ("model.", "lm_head.weight"),
    ("language_model.model.", "language_model.lm_head.weight"),
    ("model.language_model.", "lm_head.weight"),
];

/// Reads a model's configuration and weights.
pub(super) fn load(files: &ModelFiles, device: &Device, dtype: DType) -> Result<Decoder> {
    let config = DecoderConfig::parse(&files.name, &files.require("config.json")?)?;
    let weights = weights::open(files, &config)?;
    read(config, weights.as_ref(), device, dtype)
}

fn read(
    config: DecoderConfig,
    weights: &dyn WeightSource,
    device: &Device,
    dtype: DType,
) -> Result<Decoder> {
    let has = |(prefix, _): &&(&str, &str)| weights.has(&format!("{prefix}embed_tokens.weight"));
    let (prefix, head) = PREFIXES.iter().find(has).unwrap_or(&PREFIXES[0]);
    let reader = Reader {
        weights,
        device,
        dtype,
        prefix,
        hidden: config.hidden_size,
    };
    let c = &config;
    let shape = (c.vocab_size, c.hidden_size);
    let table = |name: &str| weights.table(name, shape, dtype, device);
    let matrix = table(&format!("{prefix}embed_tokens.weight"))?;
    let head = match c.tie_word_embeddings {
        true => matrix.clone(),
        false => table(head)?,
    };
    let layers = c.layers.iter().enumerate();
    let layers = layers.map(|(i, spec)| reader.layer(c, spec, &format!("layers.{i}.")));
    let layers = layers.collect::<Result<Vec<_>>>()?;
    let last = c.layers.first();
    let offset = last.map_or(0.0, |spec| spec.norm_offset);
    let norm = reader.norm("norm", c.hidden_size, c.rms_norm_eps, offset)?;
    Ok(Decoder {
        embed: Embedding {
            matrix,
            scale: c.embedding_scale,
        },
        layers,
        norm,
        head,
        device: device.clone(),
        dtype,
        config,
    })
}

struct Reader<'a> {
    weights: &'a dyn WeightSource,
    device: &'a Device,
    dtype: DType,
    prefix: &'a str,
    hidden: usize,
}

impl Reader<'_> {
    fn layer(&self, config: &DecoderConfig, spec: &LayerSpec, at: &str) -> Result<Layer> {
        let names = config.names;
        let (width, kv_width) = (spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim);
        let norm = |name: Option<&str>, width: usize| -> Result<Option<Norm>> {
            let read = |name| {
                let path = format!("{at}{name}");
                self.norm(&path, width, spec.norm_eps, spec.norm_offset)
            };
            name.map(read).transpose()
        };
        let (q_name, k_name) = match spec.qk_norm {
            Some(_) => (Some("self_attn.q_norm"), Some("self_attn.k_norm")),
            None => (None, None),
        };
        let (q_width, k_width) = match spec.qk_norm {
            Some(QkNorm::Whole) => (width, kv_width),
            _ => (spec.head_dim, spec.head_dim),
        };
        let (qkv, gate_up): (&[&'static str], &[&'static str]) = match names.fused {
            true => (&["qkv_proj"], &["gate_up_proj"]),
            false => (FUSED_MODULES[0].1, FUSED_MODULES[1].1),
        };
        let (heads, inner) = (vec![width, kv_width, kv_width], vec![spec.inner; 2]);
        Ok(Layer {
            input_norm: norm(names.input_norm, self.hidden)?,
            qkv: self.projections(at, qkv, heads, spec.biases.qkv)?,
            q_norm: norm(q_name, q_width)?,
            k_norm: norm(k_name, k_width)?,
            o: self.linear(at, "o_proj", (self.hidden, width), spec.biases.output)?,
            attention_norm: norm(names.attention_norm, self.hidden)?,
            feed_forward_norm: norm(names.feed_forward_norm, self.hidden)?,
            gate_up: self.projections(at, gate_up, inner, spec.biases.feed_forward)?,
            down: self.linear(
                at,
                "down_proj",
                (self.hidden, spec.inner),
                spec.biases.feed_forward,
            )?,
            output_norm: norm(names.output_norm, self.hidden)?,
        })
    }

    fn projections(
        &self,
        at: &str,
        names: &[&'static str],
        widths: Vec<usize>,
        bias: bool,
    ) -> Result<Projections> {
        let outs = match names.len() == widths.len() {
            true => widths.clone(),
            false => vec![widths.iter().sum()],
        };
        let linears = names.iter().zip(outs);
        let linears = linears.map(|(name, out)| self.linear(at, name, (out, self.hidden), bias));
        let linears = linears.collect::<Result<_>>()?;
        Ok(Projections::new(names.to_vec(), linears, widths))
    }

    fn linear(&self, at: &str, module: &str, shape: (usize, usize), bias: bool) -> Result<Linear> {
        let parent = LORA_MODULES.iter().find(|(name, _)| *name == module);
        let (_, parent) =
            parent.ok_or_else(|| Error::internal(format!("{module} has no parent")))?;
        let path = format!("{}{at}{parent}.{module}", self.prefix);
        let weights = self.weights;
        let matrix = weights.matrix(&format!("{path}.weight"), shape, self.dtype, self.device)?;
        let mut linear = Linear::new(matrix);
        if bias {
            let bias = format!("{path}.bias");
            linear.bias = Some(weights.tensor(&bias, &[shape.0], self.dtype, self.device)?);
        }
        Ok(linear)
    }

    fn norm(&self, path: &str, width: usize, eps: f64, offset: f64) -> Result<Norm> {
        let name = format!("{}{path}.weight", self.prefix);
        let weight = self
            .weights
            .tensor(&name, &[width], DType::F32, self.device)?;
        let weight = match offset == 0.0 || self.weights.norms_have_offset() {
            true => weight,
            false => (weight + offset)?,
        };
        Ok(Norm { weight, eps })
    }
}
