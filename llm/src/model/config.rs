//! What shape the network has: its sizes, rotation and vocabulary, checked.

use serde_json::Value;

use super::fields::Fields;
pub(crate) use super::fields::token_ids;
use super::layer::{Biases, LayerSpec};
use super::rope::Rope;
use crate::Result;
use crate::kernels::{Activation, Scoring};

/// The shape of a decoder. Counts are of elements, heads or layers.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderConfig {
    /// As in config.json: `llama`, `qwen3`, ...
    pub model_type: String,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the gated feed-forward.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key/value heads; divides the query heads.
    pub num_key_value_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Added to the mean square in every norm.
    pub rms_norm_eps: f64,
    /// Positions a sequence may have.
    pub max_position_embeddings: usize,
    /// The output matrix is the embedding.
    pub tie_word_embeddings: bool,
    /// Token put once before every prompt, if the configuration names one.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a reply.
    pub eos_token_ids: Vec<u32>,
    /// How the weights are called.
    pub names: Names,
    /// First to last.
    pub layers: Vec<LayerSpec>,
    /// The rotations that layers use.
    pub ropes: Vec<Rope>,
    /// Rows of the embedding are multiplied by it.
    pub embedding_scale: f64,
    /// Scores of tokens are multiplied by it.
    pub logits_scale: f64,
    /// Then they are bent below this: `cap tanh(score / cap)`.
    pub logits_softcap: Option<f64>,
}

/// How a layer's weights are called. A norm without a name is not computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Names {
    /// Of the norm before attention.
    pub input_norm: Option<&'static str>,
    /// Of that behind attention.
    pub attention_norm: Option<&'static str>,
    /// Of that before the feed-forward.
    pub feed_forward_norm: Option<&'static str>,
    /// Of that behind the feed-forward.
    pub output_norm: Option<&'static str>,
    /// Query, key and value are one matrix, gate and up another.
    pub fused: bool,
}

impl Names {
    /// Norms before both branches.
    pub const BEFORE: Self = Self {
        input_norm: Some("input_layernorm"),
        attention_norm: None,
        feed_forward_norm: Some("post_attention_layernorm"),
        output_norm: None,
        fused: false,
    };
    /// The same with fused matrices.
    pub const FUSED: Self = Self {
        fused: true,
        ..Self::BEFORE
    };
    /// Norms behind both branches.
    pub const AFTER: Self = Self {
        input_norm: None,
        attention_norm: Some("post_attention_layernorm"),
        feed_forward_norm: None,
        output_norm: Some("post_feedforward_layernorm"),
        fused: false,
    };
    /// Norms before and behind both branches.
    pub const AROUND: Self = Self {
        input_norm: Some("input_layernorm"),
        attention_norm: Some("post_attention_layernorm"),
        feed_forward_norm: Some("pre_feedforward_layernorm"),
        output_norm: Some("post_feedforward_layernorm"),
        fused: false,
    };
}

/// Sizes beyond which no model is published; a file that names larger ones is damaged, and is
/// refused before memory is reserved for it.
pub(super) const LARGEST: &[(&str, usize)] = &[
    ("vocab_size", 1 << 24),
    ("hidden_size", 1 << 18),
    ("intermediate_size", 1 << 20),
    ("num_hidden_layers", 1 << 12),
    ("num_attention_heads", 1 << 12),
    ("num_key_value_heads", 1 << 12),
    ("head_dim", 1 << 12),
    ("max_position_embeddings", 1 << 30),
];

impl DecoderConfig {
    /// A pre-norm decoder with SwiGLU and grouped-query attention, of the file's sizes.
    pub(super) fn plain(fields: &Fields, model_type: String) -> Result<Self> {
        if let Some(quantised) = fields.get("quantization_config") {
            let method = quantised.get("quant_method").and_then(Value::as_str);
            return Err(fields.refuse(
                &format!(
                    "quantization_config (weights quantised by {})",
                    method.unwrap_or("an unnamed method")
                ),
                "float32, bfloat16 and float16 in safetensors, and GGUF; take the model as it was \
                 before it was quantised, or its GGUF",
            ));
        }
        let heads = fields.size("num_attention_heads")?;
        let hidden_size = fields.size("hidden_size")?;
        let kv_heads = fields
            .optional_size("num_key_value_heads")?
            .unwrap_or(heads);
        let head_dim = fields.optional_size("head_dim")?;
        let mut config = Self {
            model_type,
            vocab_size: fields.size("vocab_size")?,
            hidden_size,
            intermediate_size: fields.size("intermediate_size")?,
            num_hidden_layers: fields.size("num_hidden_layers")?,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            head_dim: head_dim.unwrap_or(hidden_size / heads.max(1)),
            rms_norm_eps: fields.number("rms_norm_eps", 1e-6)?,
            max_position_embeddings: fields.size("max_position_embeddings")?,
            tie_word_embeddings: fields.flag("tie_word_embeddings")?,
            bos_token_id: token_ids(fields.get("bos_token_id")).first().copied(),
            eos_token_ids: token_ids(fields.get("eos_token_id")),
            names: Names::BEFORE,
            layers: Vec::new(),
            ropes: Vec::new(),
            embedding_scale: 1.0,
            logits_scale: 1.0,
            logits_softcap: None,
        };
        config.check_sizes(fields, head_dim.is_some())?;
        config.ropes.push(match fields.get("rope_parameters") {
            // One rotation for each kind of layer: the family reads them.
            Some(table) if table.get("full_attention").is_some() => {
                Rope::plain(10_000.0, config.head_dim)
            }
            _ => fields.rope(config.head_dim)?,
        });
        let activation = match config.model_type.starts_with("gemma") {
            true => Activation::GeluTanh, // under another key
            false => fields.activation("hidden_act")?,
        };
        let layer = LayerSpec {
            heads,
            kv_heads,
            head_dim: config.head_dim,
            inner: config.intermediate_size,
            norm_eps: config.rms_norm_eps,
            norm_offset: 0.0,
            qk_norm: None,
            biases: Biases::default(),
            activation,
            rope: Some(0),
            scoring: Scoring::plain(1.0 / (config.head_dim as f64).sqrt()),
            branch_scale: 1.0,
        };
        config.layers = vec![layer; config.num_hidden_layers];
        Ok(config)
    }

    fn check_sizes(&self, fields: &Fields, own_head_dim: bool) -> Result<()> {
        let sizes = [
            self.vocab_size,
            self.hidden_size,
            self.intermediate_size,
            self.num_hidden_layers,
            self.num_attention_heads,
            self.num_key_value_heads,
            self.head_dim,
            self.max_position_embeddings,
        ];
        for ((key, most), size) in LARGEST.iter().zip(sizes) {
            if size == 0 || size > *most {
                return Err(fields.impossible(format!("{key} is {size}, from 1 to {most} can be")));
            }
        }
        let (heads, kv_heads) = (self.num_attention_heads, self.num_key_value_heads);
        if !heads.is_multiple_of(kv_heads) {
            return Err(fields.impossible(format!(
                "{heads} query heads over {kv_heads} key/value heads"
            )));
        }
        if !own_head_dim && !self.hidden_size.is_multiple_of(heads) {
            return Err(fields.impossible(format!(
                "hidden_size {} over {heads} heads",
                self.hidden_size
            )));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(fields.impossible(format!("head_dim {} is not even", self.head_dim)));
        }
        if self.rms_norm_eps < 0.0 {
            return Err(fields.impossible(format!("rms_norm_eps is {}", self.rms_norm_eps)));
        }
        Ok(())
    }

    /// Gives the layers that `windowed` picks a window.
    pub(crate) fn set_window(&mut self, window: Option<usize>, windowed: impl Fn(usize) -> bool) {
        for (i, layer) in self.layers.iter_mut().enumerate() {
            layer.scoring.window = window.filter(|window| *window > 0 && windowed(i));
        }
    }

    /// Query heads that share one key/value head.
    pub fn query_groups(&self) -> usize {
        self.num_attention_heads / self.num_key_value_heads
    }

    /// Tokens a prompt and its reply may have together.
    pub fn context_tokens(&self) -> usize {
        let limits = self.ropes.iter().filter_map(Rope::context);
        limits.fold(self.max_position_embeddings, usize::min)
    }
}
