//! Gemma 2 (Gemma team 2024, arXiv 2408.00118) and the text of Gemma 3 (arXiv 2503.19786): norms
//! around both branches whose weights are stored less one, scaled embeddings, GELU, layers with a
//! window between layers without; bent scores in the former, norms of queries and keys and a
//! rotation of their own for windowed layers in the latter.

use serde_json::{Map, Value, json};

use super::{Architecture, Family, GgufKeys};
use crate::Result;
use crate::model::config::{DecoderConfig, Names};
use crate::model::fields::Fields;
use crate::model::layer::{Biases, QkNorm};

pub(crate) static FAMILY: Family = Family {
    model_types: &["gemma2", "gemma3_text"],
    architectures: &[
        "Gemma2ForCausalLM",
        "Gemma3ForCausalLM",
        "Gemma3ForConditionalGeneration",
    ],
    defaults: |model_type| match model_type {
        "gemma2" => json!({"vocab_size": 256000, "num_attention_heads": 8,
            "num_key_value_heads": 4, "head_dim": 256, "max_position_embeddings": 8192,
            "hidden_activation": "gelu_pytorch_tanh", "tie_word_embeddings": true,
            "query_pre_attn_scalar": 256, "sliding_window": 4096,
            "final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0}),
        _ => json!({"vocab_size": 262208, "num_attention_heads": 8, "num_key_value_heads": 4,
            "head_dim": 256, "max_position_embeddings": 131072,
            "hidden_activation": "gelu_pytorch_tanh", "tie_word_embeddings": true,
            "query_pre_attn_scalar": 256, "sliding_window": 4096,
            "sliding_window_pattern": 6}),
    },
    spec,
    gguf: &[
        Architecture {
            name: "gemma2",
            model_type: "gemma2",
            interleaved: false,
            keys: |keys, config| gguf(keys, config, 46),
        },
        Architecture {
            name: "gemma3",
            model_type: "gemma3_text",
            interleaved: false,
            keys: |keys, config| gguf(keys, config, 62),
        },
    ],
};

/// Scores are scaled by the width of a head, in the largest of each release (which has `layers`
/// layers) by the model's width over its heads.
fn gguf(keys: &GgufKeys<'_>, config: &mut Map<String, Value>, layers: u64) -> Result<()> {
    let size = |key: &str| config.get(key).and_then(Value::as_u64).unwrap_or(0);
    let scalar = match size("num_hidden_layers") == layers {
        true => size("hidden_size") / size("num_attention_heads").max(1),
        false => size("head_dim"),
    };
    if scalar > 0 {
        config.insert("query_pre_attn_scalar".into(), json!(scalar));
    }
    keys.copy(
        config,
        &[
            ("sliding_window", "attention.sliding_window"),
            ("final_logit_softcapping", "final_logit_softcapping"),
            ("attn_logit_softcapping", "attn_logit_softcapping"),
            ("rope_local_base_freq", "rope.freq_base_swa"),
        ],
    )
}

fn spec(fields: &Fields, config: &mut DecoderConfig) -> Result<()> {
    let third = config.model_type != "gemma2";
    if fields.flag("use_bidirectional_attention")? {
        return Err(fields.refuse("use_bidirectional_attention", "causal attention"));
    }
    config.names = Names::AROUND;
    config.embedding_scale = (config.hidden_size as f64).sqrt();
    config.logits_softcap = fields.optional_number("final_logit_softcapping")?;
    let activation = fields.activation("hidden_activation")?;
    let scalar = fields.number("query_pre_attn_scalar", config.head_dim as f64)?;
    let softcap = fields.optional_number("attn_logit_softcapping")?;
    let attention = fields.flag("attention_bias")?;
    for layer in &mut config.layers {
        layer.norm_offset = 1.0;
        layer.qk_norm = third.then_some(QkNorm::Head);
        layer.activation = activation;
        layer.biases = Biases {
            qkv: attention,
            output: attention,
            feed_forward: false,
        };
        layer.scoring.scale = scalar.powf(-0.5);
        layer.scoring.softcap = softcap;
    }
    // Without layer_types one layer of every so many sees everything.
    let every = if third {
        fields.size("sliding_window_pattern")?.max(1)
    } else {
        2
    };
    let listed = fields.windowed_layers(config.layers.len())?;
    let windowed = |i: usize| {
        listed
            .as_ref()
            .map_or(!(i + 1).is_multiple_of(every), |l| l[i])
    };
    config.set_window(fields.optional_size("sliding_window")?, windowed);
    if third {
        let table = fields.get("rope_parameters").unwrap_or(&Value::Null);
        let part = |key: &str| table.get(key).filter(|part| !part.is_null());
        // transformers 4 scaled the rotation of layers without a window alone.
        let full = part("full_attention").or_else(|| fields.get("rope_scaling"));
        let theta = fields.number("rope_theta", 1_000_000.0)?;
        let local = fields.number("rope_local_base_freq", 10_000.0)?;
        let null = Value::Null;
        config.ropes = vec![
            fields.rope_of(full.unwrap_or(&null), theta, config.head_dim)?,
            fields.rope_of(
                part("sliding_attention").unwrap_or(&null),
                local,
                config.head_dim,
            )?,
        ];
        for (i, layer) in config.layers.iter_mut().enumerate() {
            layer.rope = Some(usize::from(windowed(i)));
        }
    }
    Ok(())
}
