//! How config.json of transformers 4 and 5 is read: which family of models it is of, and what that makes
//! of the keys. Anything that would be computed differently is refused and not silently ignored.

use serde_json::Value;

use super::config::DecoderConfig;
use super::families;
use super::fields::Fields;
use crate::{Error, Result};

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
    use super::super::config::LARGEST;
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
