//! OLMo 2 (OLMo team 2024, arXiv 2501.00656): norms behind the branches and none before them,
//! queries and keys normalised over all heads.

use serde_json::json;

use super::{Architecture, Family};
use crate::model::config::Names;
use crate::model::layer::{Biases, QkNorm};

pub(crate) static FAMILY: Family = Family {
    model_types: &["olmo2"],
    architectures: &["Olmo2ForCausalLM"],
    defaults: |_| json!({"rms_norm_eps": 1e-5, "max_position_embeddings": 2048}),
    spec: |fields, config| {
        config.names = Names::AFTER;
        let attention = fields.flag("attention_bias")?;
        for layer in &mut config.layers {
            layer.qk_norm = Some(QkNorm::Whole);
            layer.biases = Biases {
                qkv: attention,
                output: attention,
                feed_forward: false,
            };
        }
        Ok(())
    },
    gguf: &[Architecture {
        name: "olmo2",
        model_type: "olmo2",
        interleaved: false,
        keys: |_, _| Ok(()),
    }],
};
