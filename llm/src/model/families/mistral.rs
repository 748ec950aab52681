//! Mistral 7B, Nemo and Small (Jiang et al. 2023, arXiv 2310.06825): every layer of the first
//! release has a window, heads may be wider together than the model.

use serde_json::json;

use super::{Architecture, Family};

pub(crate) static FAMILY: Family = Family {
    model_types: &["mistral"],
    architectures: &["MistralForCausalLM", "Mistral3ForConditionalGeneration"],
    defaults: |_| json!({"num_key_value_heads": 8, "sliding_window": 4096, "max_position_embeddings": 131072}),
    spec: |fields, config| {
        let window = fields.optional_size("sliding_window")?;
        config.set_window(window, |_| true);
        Ok(())
    },
    gguf: &[Architecture {
        name: "mistral3",
        model_type: "mistral",
        interleaved: true,
        keys: |keys, config| {
            config.insert("sliding_window".into(), serde_json::Value::Null);
            keys.copy(config, &[("sliding_window", "attention.sliding_window")])
        },
    }],
};
