//! Qwen 2, 2.5 (Yang et al. 2024, arXiv 2412.15115) and 3 (arXiv 2505.09388): biases on queries,
//! keys and values in the former, norms of queries and keys in the latter.

use serde_json::json;

use super::{Architecture, Family};
use crate::model::layer::{Biases, QkNorm};

pub(crate) static FAMILY: Family = Family {
    model_types: &["qwen2", "qwen3"],
    architectures: &["Qwen2ForCausalLM", "Qwen3ForCausalLM"],
    defaults: |model_type| match model_type {
        "qwen3" => json!({"num_key_value_heads": 32, "head_dim": 128, "sliding_window": 4096,
            "max_window_layers": 28, "max_position_embeddings": 32768}),
        _ => json!({"num_key_value_heads": 32, "sliding_window": 4096, "max_window_layers": 28,
            "max_position_embeddings": 32768}),
    },
    spec: |fields, config| {
        let third = config.model_type == "qwen3";
        let attention = fields.flag("attention_bias")?;
        for layer in &mut config.layers {
            layer.biases = Biases {
                qkv: if third { attention } else { true },
                output: third && attention,
                feed_forward: false,
            };
            layer.qk_norm = third.then_some(QkNorm::Head);
        }
        if fields.flag("use_sliding_window")? {
            let first = fields.size("max_window_layers")?;
            let listed = fields.windowed_layers(config.layers.len())?;
            let window = fields.optional_size("sliding_window")?;
            config.set_window(window, |i| listed.as_ref().map_or(i >= first, |l| l[i]));
        }
        Ok(())
    },
    gguf: &[
        Architecture {
            name: "qwen2",
            model_type: "qwen2",
            interleaved: false,
            keys: |_, _| Ok(()),
        },
        Architecture {
            name: "qwen3",
            model_type: "qwen3",
            interleaved: false,
            keys: |_, _| Ok(()),
        },
    ],
};
