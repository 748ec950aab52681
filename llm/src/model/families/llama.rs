//! Llama 2 and 3.x (Touvron et al. 2023, arXiv 2307.09288; Llama team 2024, arXiv 2407.21783), and
//! what is built like them: SmolLM2, TinyLlama, Yi, R1 distills.

use serde_json::json;

use super::{Architecture, Family};
use crate::model::layer::Biases;

pub(crate) static FAMILY: Family = Family {
    model_types: &["llama"],
    architectures: &["LlamaForCausalLM"],
    defaults: |_| json!({"max_position_embeddings": 2048}),
    spec: |fields, config| {
        let attention = fields.flag("attention_bias")?;
        for layer in &mut config.layers {
            layer.biases = Biases {
                qkv: attention,
                output: attention,
                feed_forward: fields.flag("mlp_bias")?,
            };
        }
        Ok(())
    },
    gguf: &[Architecture {
        name: "llama",
        model_type: "llama",
        interleaved: true,
        keys: |_, _| Ok(()),
    }],
};
