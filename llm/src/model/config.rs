//! What shape the network has: config.json of transformers 4 and 5, checked.
//!
//! Supported are the Llama family as published (`llama`, `mistral`): pre-norm decoder, SwiGLU,
//! grouped-query attention, half-rotation rotary positions, no biases. Anything that would be
//! computed differently is refused here and not silently ignored.

use serde::Deserialize;
use serde_json::Value;

use super::limits::{self, Sizes};
use crate::{Error, Result};

/// Values of `model_type` this crate computes.
const SUPPORTED: &[&str] = &["llama", "mistral"];

/// The shape of a decoder. Counts are of elements, heads or layers.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderConfig {
    /// `llama` or `mistral`.
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
    /// Rotary positions.
    pub rope: Rope,
    /// Positions the model was trained for.
    pub max_position_embeddings: usize,
    /// The output matrix is the embedding.
    pub tie_word_embeddings: bool,
    /// Attention window in tokens, if the model has one. The engine keeps contexts within it.
    pub sliding_window: Option<usize>,
    /// Token put once before every prompt, if the configuration names one.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a reply.
    pub eos_token_ids: Vec<u32>,
}

/// Rotary position parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f64,
    /// How the frequencies are stretched for longer contexts.
    pub scaling: RopeScaling,
}

/// Frequency scaling; names as in transformers' `modeling_rope_utils`.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// Frequencies as they are.
    None,
    /// All frequencies divided by the factor.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Llama 3.1: only low frequencies are divided, with a smooth transition.
    Llama3 {
        /// The divisor of low frequencies.
        factor: f64,
        /// Wavelengths above `original / low_freq_factor` are divided.
        low_freq_factor: f64,
        /// Wavelengths below `original / high_freq_factor` stay.
        high_freq_factor: f64,
        /// Context of the unscaled model in tokens.
        original_max_position_embeddings: f64,
    },
}

#[derive(Deserialize)]
struct Raw {
    model_type: Option<String>,
    architectures: Option<Vec<String>>,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    #[serde(default = "default_eps")]
    rms_norm_eps: f64,
    rope_theta: Option<f64>,
    rope_scaling: Option<Value>,
    rope_parameters: Option<Value>,
    #[serde(default = "default_positions")]
    max_position_embeddings: usize,
    #[serde(default)]
    tie_word_embeddings: bool,
    sliding_window: Option<usize>,
    bos_token_id: Option<Value>,
    eos_token_id: Option<Value>,
    hidden_act: Option<String>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    partial_rotary_factor: Option<f64>,
    quantization_config: Option<Value>,
}

fn default_eps() -> f64 {
    1e-6
}

fn default_positions() -> usize {
    2048
}

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
        let found = value
            .get("model_type")
            .and_then(Value::as_str)
            .map(str::to_string);
        let found = found.or_else(|| {
            let first = value.get("architectures")?.as_array()?.first()?.as_str()?;
            Some(first.trim_end_matches("ForCausalLM").to_lowercase())
        });
        match found.as_deref() {
            Some(t) if SUPPORTED.contains(&t) => {}
            Some(t) => {
                return Err(Error::unsupported(format!(
                    "model {name}: model_type \"{t}\" is not supported; supported are {}",
                    SUPPORTED.join(", ")
                )));
            }
            None => {
                return Err(Error::corrupt(format!(
                    "model {name}: config.json has no model_type; supported are {}. Is this the \
                     config.json of a language model?",
                    SUPPORTED.join(", ")
                )));
            }
        }
        let raw: Raw = serde_json::from_value(value).map_err(|e| {
            Error::corrupt(format!(
                "model {name}: config.json does not describe a decoder ({e}); fetch the file again"
            ))
            .with_source(e)
        })?;
        raw.check(name)
    }

    /// Query heads that share one key/value head.
    pub fn query_groups(&self) -> usize {
        self.num_attention_heads / self.num_key_value_heads
    }

    /// Tokens a prompt and its reply may have together: the trained positions, and within the
    /// sliding window if there is one, where windowed and full attention are the same.
    pub fn context_tokens(&self) -> usize {
        self.sliding_window
            .map_or(self.max_position_embeddings, |window| {
                window.min(self.max_position_embeddings)
            })
    }
}

/// `architectures` names the network that was saved. It can differ from `model_type`: a classifier
/// on a Llama has no output layer for tokens.
fn check_architectures(name: &str, config: &Value) -> Result<()> {
    const KNOWN: &[&str] = &["LlamaForCausalLM", "MistralForCausalLM"];
    let Some(listed) = config.get("architectures").and_then(Value::as_array) else {
        return Ok(());
    };
    let listed: Vec<&str> = listed.iter().filter_map(Value::as_str).collect();
    let known = |found: &&str| KNOWN.iter().any(|k| k.eq_ignore_ascii_case(found));
    if listed.is_empty() || listed.iter().any(known) {
        return Ok(());
    }
    Err(Error::unsupported(format!(
        "model {name}: architecture {} is not supported; supported are {}",
        listed.join(", "),
        KNOWN.join(", ")
    )))
}

impl Raw {
    fn check(self, name: &str) -> Result<DecoderConfig> {
        let refuse = |what: &str, supported: &str| {
            Err(Error::unsupported(format!(
                "model {name}: config.json asks for {what}, supported is {supported}; use another \
                 model"
            )))
        };
        if let Some(act) = self
            .hidden_act
            .as_deref()
            .filter(|a| !["silu", "swish"].contains(a))
        {
            return refuse(&format!("hidden_act \"{act}\""), "silu");
        }
        if self.attention_bias == Some(true) {
            return refuse("attention_bias", "attention without biases");
        }
        if self.mlp_bias == Some(true) {
            return refuse("mlp_bias", "a feed-forward without biases");
        }
        if self
            .partial_rotary_factor
            .is_some_and(|f| (f - 1.0).abs() > 1e-9)
        {
            return refuse("partial_rotary_factor", "1.0");
        }
        if self.quantization_config.is_some() {
            return refuse(
                "quantization_config",
                "float32, bfloat16 and float16 weights",
            );
        }
        let impossible = |what: String| {
            Err(Error::corrupt(format!(
                "model {name}: config.json is impossible: {what}; fetch the file again"
            )))
        };
        let heads = self.num_attention_heads;
        let kv_heads = self.num_key_value_heads.unwrap_or(heads);
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", heads),
            ("num_key_value_heads", kv_heads),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        if let Some((key, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return impossible(format!("{key} is 0"));
        }
        if !heads.is_multiple_of(kv_heads) {
            return impossible(format!(
                "{heads} query heads over {kv_heads} key/value heads"
            ));
        }
        if self.head_dim.is_none() && !self.hidden_size.is_multiple_of(heads) {
            return impossible(format!(
                "hidden_size {} over {heads} heads",
                self.hidden_size
            ));
        }
        let head_dim = self.head_dim.unwrap_or(self.hidden_size / heads);
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            return impossible(format!("head_dim {head_dim} is not a positive even number"));
        }
        let rope = rope(
            name,
            self.rope_theta,
            self.rope_scaling,
            self.rope_parameters,
        )?;
        let sizes = Sizes {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: heads,
            head_dim,
            max_position_embeddings: self.max_position_embeddings,
        };
        limits::check(name, sizes, self.rms_norm_eps, rope.theta)?;
        Ok(DecoderConfig {
            model_type: self
                .model_type
                .or_else(|| {
                    let first = self.architectures?.into_iter().next()?;
                    Some(first.trim_end_matches("ForCausalLM").to_lowercase())
                })
                .unwrap_or_default(),
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            head_dim,
            rms_norm_eps: self.rms_norm_eps,
            rope,
            max_position_embeddings: self.max_position_embeddings,
            tie_word_embeddings: self.tie_word_embeddings,
            sliding_window: self.sliding_window,
            bos_token_id: token_ids(self.bos_token_id.as_ref()).first().copied(),
            eos_token_ids: token_ids(self.eos_token_id.as_ref()),
        })
    }
}

/// One id or a list of ids; absent and null are no ids.
pub(crate) fn token_ids(value: Option<&Value>) -> Vec<u32> {
    let one = |v: &Value| v.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Some(Value::Array(ids)) => ids.iter().filter_map(one).collect(),
        Some(v) => one(v).into_iter().collect(),
        None => Vec::new(),
    }
}

/// transformers 5 writes `rope_parameters`, 4 wrote `rope_theta` and `rope_scaling`.
fn rope(
    name: &str,
    theta: Option<f64>,
    scaling: Option<Value>,
    parameters: Option<Value>,
) -> Result<Rope> {
    let table = parameters
        .or(scaling)
        .filter(|v| !v.is_null())
        .unwrap_or(Value::Null);
    let number = |key: &str| table.get(key).and_then(Value::as_f64);
    let need = |key: &str| {
        number(key).filter(|v| *v > 0.0).ok_or_else(|| {
            Error::corrupt(format!(
                "model {name}: config.json has rope scaling without a positive \"{key}\"; fetch \
                 the file again"
            ))
        })
    };
    let kind = table
        .get("rope_type")
        .or_else(|| table.get("type"))
        .and_then(Value::as_str);
    let scaling = match kind {
        None | Some("default") => RopeScaling::None,
        Some("linear") => RopeScaling::Linear {
            factor: need("factor")?,
        },
        Some("llama3") => RopeScaling::Llama3 {
            factor: need("factor")?,
            low_freq_factor: need("low_freq_factor")?,
            high_freq_factor: need("high_freq_factor")?,
            original_max_position_embeddings: need("original_max_position_embeddings")?,
        },
        Some(other) => {
            return Err(Error::unsupported(format!(
                "model {name}: rope_type \"{other}\" is not supported; supported are default, \
                 linear, llama3"
            )));
        }
    };
    Ok(Rope {
        theta: number("rope_theta").or(theta).unwrap_or(10_000.0),
        scaling,
    })
}

#[cfg(test)]
mod tests {
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
        assert_eq!(four.rope.theta, 500_000.0);
        assert_eq!(four.rope.scaling, RopeScaling::Linear { factor: 2.0 });
        assert_eq!((four.head_dim, four.eos_token_ids), (8, vec![2, 7]));
        let five = parse(
            json!({"rope_theta": null, "head_dim": 16, "rope_parameters": {
            "rope_type": "llama3", "rope_theta": 1e6, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 64}}),
        )
        .unwrap();
        assert_eq!((five.rope.theta, five.head_dim), (1e6, 16));
        assert!(matches!(five.rope.scaling, RopeScaling::Llama3 { .. }));
    }

    #[test]
    fn sliding_window_bounds_the_context() {
        let config = parse(json!({"model_type": "mistral", "sliding_window": 100})).unwrap();
        assert_eq!(config.context_tokens(), 100);
    }

    #[test]
    fn refuses_what_it_would_compute_wrongly() {
        for (change, word) in [
            (json!({"model_type": "gpt2"}), "llama, mistral"),
            (
                json!({"architectures": ["LlamaForSequenceClassification"]}),
                "LlamaForCausalLM",
            ),
            (json!({"hidden_act": "gelu"}), "gelu"),
            (json!({"attention_bias": true}), "attention_bias"),
            (json!({"mlp_bias": true}), "mlp_bias"),
            (
                json!({"quantization_config": {"bits": 4}}),
                "quantization_config",
            ),
            (
                json!({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}),
                "yarn",
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
