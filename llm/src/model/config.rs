//! What shape the network has: config.json of transformers 4 and 5, checked.
//!
//! Sizes, rotation and vocabulary are read here; what a family of models makes of the rest is in
//! `families`. Anything that would be computed differently is refused and not silently ignored.

use serde_json::Value;

use super::families;
use super::fields::Fields;
pub(crate) use super::fields::token_ids;
use super::layer::{Biases, LayerSpec};
use super::rope::Rope;
use crate::kernels::{Activation, Scoring};
use crate::{Error, Result};

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
const LARGEST: &[(&str, usize)] = &[
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
    /// Reads config.json. `name` is the model's name for messages.
    ///
    /// # Errors
    /// `Corrupt` if the text is not the JSON of a model configuration, `Unsupported` if the model
    /// would need arithmetic this crate does not have.
    pub fn parse(name: &str, json: &[u8]) -> Result<Self> {
        let value: Value = serde_json::from_slice(json).map_err(|e| {
            Error::corrupt(format!(
                "model {name}: config.json is not valid JSON ({e}); fetch the file again"
            ))
            .with_source(e)
        })?;
        check_architectures(name, &value)?;
        let value = text_part(value);
        let model_type = model_type(name, &value)?;
        let Some(family) = families::find(&model_type) else {
            return Err(Error::unsupported(format!(
                "model {name}: model_type \"{model_type}\" is not supported; supported are {}",
                families::model_types()
            )));
        };
        let fields = Fields::new(name, value, (family.defaults)(&model_type));
        let mut config = Self::plain(&fields, model_type)?;
        (family.spec)(&fields, &mut config)?;
        Ok(config)
    }

    /// A pre-norm decoder with SwiGLU and grouped-query attention, of the file's sizes.
    fn plain(fields: &Fields, model_type: String) -> Result<Self> {
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

/// The text model of a model that also sees: its own keys, and those around it that it lacks.
fn text_part(mut config: Value) -> Value {
    let Some(mut text) = config.get_mut("text_config").map(Value::take) else {
        return config;
    };
    if let (Some(text), Some(around)) = (text.as_object_mut(), config.as_object()) {
        for key in [
            "bos_token_id",
            "eos_token_id",
            "tie_word_embeddings",
            "quantization_config",
        ] {
            if let Some(value) = around.get(key).filter(|_| !text.contains_key(key)) {
                text.insert(key.to_string(), value.clone());
            }
        }
    }
    text
}

fn model_type(name: &str, config: &Value) -> Result<String> {
    let named = config.get("model_type").and_then(Value::as_str);
    if let Some(named) = named {
        return Ok(named.to_string());
    }
    let listed = config.get("architectures").and_then(Value::as_array);
    let listed = listed.and_then(|listed| listed.first()?.as_str());
    if let Some(listed) = listed {
        return Ok(listed.trim_end_matches("ForCausalLM").to_lowercase());
    }
    Err(Error::corrupt(format!(
        "model {name}: config.json has no model_type; supported are {}. Is this the config.json \
         of a language model?",
        families::model_types()
    )))
}

/// `architectures` names the network that was saved. It can differ from `model_type`: a classifier
/// on a Llama has no output layer for tokens.
fn check_architectures(name: &str, config: &Value) -> Result<()> {
    let Some(listed) = config.get("architectures").and_then(Value::as_array) else {
        return Ok(());
    };
    let listed: Vec<&str> = listed.iter().filter_map(Value::as_str).collect();
    let mut all = families::FAMILIES.iter().flat_map(|f| f.architectures);
    let known = |found: &&str| all.any(|k| k.eq_ignore_ascii_case(found));
    if listed.is_empty() || listed.iter().any(known) {
        return Ok(());
    }
    let types = config.get("model_type").and_then(Value::as_str);
    if types.is_some_and(|found| families::find(found).is_none())
        && config.get("text_config").is_none()
    {
        return Ok(()); // the message about model_type says more
    }
    Err(Error::unsupported(format!(
        "model {name}: architecture {} is not supported; supported are {}",
        listed.join(", "),
        families::architectures()
    )))
}

#[cfg(test)]
mod tests {
    use super::super::rope::RopeScaling;
    use super::*;
    use crate::ErrorKind;
    use serde_json::json;

    fn base() -> Value {
        json!({
            "model_type": "llama", "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "max_position_embeddings": 128,
            "eos_token_id": [2, 7], "bos_token_id": 1, "hidden_act": "silu"
        })
    }

    fn parse(changes: Value) -> Result<DecoderConfig> {
        let mut config = base();
        for (key, value) in changes.as_object().unwrap() {
            config[key] = value.clone();
        }
        DecoderConfig::parse("m", config.to_string().as_bytes())
    }

    #[test]
    fn reads_both_generations_of_transformers() {
        let four = parse(json!({"rope_scaling": {"type": "linear", "factor": 2.0}})).unwrap();
        assert_eq!(four.ropes[0].theta, 500_000.0);
        assert_eq!(four.ropes[0].scaling, RopeScaling::Linear { factor: 2.0 });
        assert_eq!((four.head_dim, four.eos_token_ids), (8, vec![2, 7]));
        let five = parse(
            json!({"rope_theta": null, "head_dim": 16, "rope_parameters": {
            "rope_type": "llama3", "rope_theta": 1e6, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 64}}),
        )
        .unwrap();
        assert_eq!((five.ropes[0].theta, five.head_dim), (1e6, 16));
        assert!(matches!(five.ropes[0].scaling, RopeScaling::Llama3 { .. }));
    }

    #[test]
    fn a_window_belongs_to_layers() {
        let windows = |changes: Value| -> Vec<Option<usize>> {
            let config = parse(changes).unwrap();
            assert_eq!(config.context_tokens(), 128);
            config.layers.iter().map(|l| l.scoring.window).collect()
        };
        let mistral = |window: Value| json!({"model_type": "mistral", "sliding_window": window});
        assert_eq!(windows(mistral(json!(100))), [Some(100), Some(100)]);
        assert_eq!(windows(mistral(Value::Null)), [None, None]);
        assert_eq!(
            windows(json!({"model_type": "mistral"})),
            [Some(4096), Some(4096)]
        );
        assert_eq!(
            windows(json!({"model_type": "llama", "sliding_window": 9})),
            [None, None]
        );
        let qwen = |on: bool| {
            json!({"model_type": "qwen2", "sliding_window": 10, "max_window_layers": 1,
                "use_sliding_window": on})
        };
        assert_eq!(windows(qwen(false)), [None, None]);
        assert_eq!(windows(qwen(true)), [None, Some(10)]);
        let gemma = json!({"model_type": "gemma2", "sliding_window": 10});
        assert_eq!(windows(gemma), [Some(10), None]);
    }

    #[test]
    fn the_text_part_of_a_seeing_model_is_read() {
        let mut text = base();
        text["model_type"] = json!("gemma3_text");
        let config = json!({"model_type": "gemma3", "text_config": text, "eos_token_id": [1, 106],
            "architectures": ["Gemma3ForConditionalGeneration"]});
        let config = DecoderConfig::parse("m", config.to_string().as_bytes()).unwrap();
        assert_eq!((config.head_dim, config.eos_token_ids), (256, vec![2, 7]));
        assert_eq!((config.ropes.len(), config.layers[0].rope), (2, Some(1)));
    }

    #[test]
    fn absurd_sizes_are_refused_before_memory_is_reserved() {
        for key in LARGEST.iter().map(|(key, _)| key) {
            let error = parse(json!({*key: 1u64 << 31})).unwrap_err();
            assert!(error.message.contains(key), "{error}");
        }
    }

    #[test]
    fn refuses_what_it_would_compute_wrongly() {
        for (change, word) in [
            (json!({"model_type": "gpt2"}), "llama, mistral"),
            (
                json!({"layer_types": ["full_attention", "linear_attention"], "model_type": "gemma2"}),
                "linear_attention",
            ),
            (
                json!({"architectures": ["LlamaForSequenceClassification"]}),
                "LlamaForCausalLM",
            ),
            (json!({"hidden_act": "gelu"}), "gelu"),
            (
                json!({"quantization_config": {"bits": 4, "quant_method": "gptq"}}),
                "quantised by gptq",
            ),
            (
                json!({"rope_scaling": {"rope_type": "spiral", "factor": 2.0}}),
                "spiral",
            ),
        ] {
            let error = parse(change).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Unsupported, "{error}");
            assert!(error.message.contains(word), "{error}");
        }
        for change in [
            json!({"num_key_value_heads": 3}),
            json!({"hidden_size": 0}),
            json!({"rope_scaling": {"rope_type": "linear"}}),
            json!({"vocab_size": "many"}),
        ] {
            assert_eq!(parse(change).unwrap_err().kind, ErrorKind::Corrupt);
        }
        assert_eq!(
            DecoderConfig::parse("m", b"{").unwrap_err().kind,
            ErrorKind::Corrupt
        );
    }
}
