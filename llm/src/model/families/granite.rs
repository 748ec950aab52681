//! Granite 3.x dense (IBM 2024): Llama with four multipliers.

use serde_json::json;

use super::{Architecture, Family};
use crate::model::layer::Biases;

pub(crate) static FAMILY: Family = Family {
    model_types: &["granite"],
    architectures: &["GraniteForCausalLM"],
    defaults: |_| json!({"max_position_embeddings": 2048}),
    spec: |fields, config| {
        config.embedding_scale = fields.number("embedding_multiplier", 1.0)?;
        config.logits_scale = 1.0 / fields.number("logits_scaling", 1.0)?;
        let attention = fields.flag("attention_bias")?;
        for layer in &mut config.layers {
            layer.branch_scale = fields.number("residual_multiplier", 1.0)?;
            layer.scoring.scale = fields.number("attention_multiplier", 1.0)?;
            layer.biases = Biases {
                qkv: attention,
                output: attention,
                feed_forward: fields.flag("mlp_bias")?,
            };
        }
        Ok(())
    },
    gguf: &[Architecture {
        name: "granite",
        model_type: "granite",
        interleaved: true,
        keys: |keys, config| {
            keys.copy(
                config,
                &[
                    ("embedding_multiplier", "embedding_scale"),
                    ("residual_multiplier", "residual_scale"),
                    ("attention_multiplier", "attention.scale"),
                    ("logits_scaling", "logit_scale"),
                ],
            )
        },
    }],
};
