//! Phi-3, 3.5 and 4, mini and larger (Abdin et al. 2024, arXiv 2404.14219): Llama with fused
//! matrices, LongRoPE and, in Phi-4-mini, rotation of a part of each head.

use serde_json::json;

use super::{Architecture, Family};
use crate::model::config::Names;

pub(crate) static FAMILY: Family = Family {
    model_types: &["phi3"],
    architectures: &["Phi3ForCausalLM"],
    defaults: |_| {
        json!({"rms_norm_eps": 1e-5, "max_position_embeddings": 4096,
            "original_max_position_embeddings": 4096})
    },
    spec: |fields, config| {
        config.names = Names::FUSED;
        config.set_window(fields.optional_size("sliding_window")?, |_| true);
        Ok(())
    },
    gguf: &[Architecture {
        name: "phi3",
        model_type: "phi3",
        interleaved: false,
        keys: |keys, config| {
            keys.copy(
                config,
                &[
                    ("sliding_window", "attention.sliding_window"),
                    (
                        "original_max_position_embeddings",
                        "rope.scaling.original_context_length",
                    ),
                ],
            )
        },
    }],
};
