//! What config.json would say: a GGUF file's keys under the names of transformers. Keys that are
//! read the same way in every family are here; a family adds its own.

use serde_json::{Map, Value, json};

use super::Gguf;
use crate::model::families::{self, GgufKeys};
use crate::{Error, Result};

/// Key of config.json, key of the file behind the architecture's name.
const SIZES: &[(&str, &str)] = &[
    ("hidden_size", "embedding_length"),
    ("intermediate_size", "feed_forward_length"),
    ("num_hidden_layers", "block_count"),
    ("num_attention_heads", "attention.head_count"),
    ("num_key_value_heads", "attention.head_count_kv"),
    ("max_position_embeddings", "context_length"),
];
const OPTIONAL_SIZES: &[(&str, &str)] = &[("head_dim", "attention.key_length")];
const NUMBERS: &[(&str, &str)] = &[
    ("rms_norm_eps", "attention.layer_norm_rms_epsilon"),
    ("rope_theta", "rope.freq_base"),
];
/// Biases are there or not; no key says it.
const BIASES: &[(&str, &str)] = &[
    ("attention_bias", "blk.0.attn_q.bias"),
    ("mlp_bias", "blk.0.ffn_gate.bias"),
];
/// One factor per pair of a head, for texts within the original context.
const FACTORS: &[&str] = &["rope_factors_short.weight", "rope_freqs.weight"];

/// The configuration.
pub(super) fn config(file: &Gguf) -> Result<Value> {
    let header = &file.header;
    let name = header.need_text("general.architecture")?;
    let Some((_, architecture)) = families::gguf(name) else {
        return Err(Error::unsupported(format!(
            "{}: architecture \"{name}\" is not supported; supported are {}",
            file.path,
            families::gguf_names()
        )));
    };
    let key = |end: &str| format!("{name}.{end}");
    let mut config = Map::new();
    config.insert("model_type".into(), json!(architecture.model_type));
    for (to, from) in SIZES {
        let size = header.optional_size(&key(from))?;
        config.insert(
            (*to).into(),
            json!(size.ok_or_else(|| header.missing(&key(from)))?),
        );
    }
    for (to, from) in OPTIONAL_SIZES {
        if let Some(size) = header.optional_size(&key(from))? {
            config.insert((*to).into(), json!(size));
        }
    }
    for (to, from) in NUMBERS {
        if let Some(number) = header.optional_number(&key(from))? {
            config.insert((*to).into(), json!(number));
        }
    }
    let embedding = header.tensors.get("token_embd.weight");
    let rows = embedding.and_then(|place| place.shape.first());
    let rows = rows.ok_or_else(|| header.missing("token_embd.weight"))?;
    config.insert("vocab_size".into(), json!(rows));
    let tied = !header.tensors.contains_key("output.weight");
    config.insert("tie_word_embeddings".into(), json!(tied));
    let id = |key: &str| header.optional_size(&format!("tokenizer.ggml.{key}"));
    config.insert("bos_token_id".into(), json!(id("bos_token_id")?));
    let ends = [id("eos_token_id")?, id("eot_token_id")?];
    let ends: Vec<usize> = ends.into_iter().flatten().collect();
    config.insert("eos_token_id".into(), json!(ends));
    for (key, tensor) in BIASES {
        let there = header.tensors.contains_key(*tensor);
        config.insert((*key).into(), json!(there));
    }
    rope(file, name, &mut config)?;
    (architecture.keys)(&GgufKeys { header, name }, &mut config)?;
    Ok(Value::Object(config))
}

/// Rotation: of how much of a head, and how it is stretched.
fn rope(file: &Gguf, name: &str, config: &mut Map<String, Value>) -> Result<()> {
    let header = &file.header;
    let key = |end: &str| format!("{name}.rope.{end}");
    let heads = config["num_attention_heads"].as_u64().unwrap_or(1).max(1);
    let hidden = config["hidden_size"].as_u64().unwrap_or(0);
    let head_dim = config.get("head_dim").and_then(Value::as_u64);
    let head_dim = head_dim.unwrap_or(hidden / heads);
    if let Some(width) = header.optional_size(&key("dimension_count"))? {
        let share = width as f64 / head_dim.max(1) as f64;
        config.insert("partial_rotary_factor".into(), json!(share));
    }
    let context = &config["max_position_embeddings"];
    let original = header.optional_size(&key("scaling.original_context_length"))?;
    let original = original.map_or_else(|| context.clone(), |n| json!(n));
    let factor = header.optional_number(&key("scaling.factor"))?;
    let attention = header.optional_number(&key("scaling.attn_factor"))?;
    let stored = FACTORS
        .iter()
        .find_map(|t| Some((t, header.tensors.get(*t)?)));
    if let Some((tensor, place)) = stored {
        let mut factors = vec![0f32; place.shape.iter().product()];
        let bytes = file.content.get(place.start..place.start + place.length);
        place
            .packing
            .unpack(bytes.unwrap_or_default(), &mut factors);
        // Llama 3's factors stand for its own scaling, which multiplies nothing.
        let attention = match *tensor == "rope_freqs.weight" {
            true => Some(1.0),
            false => attention,
        };
        config.insert(
            "rope_scaling".into(),
            json!({"rope_type": "longrope", "short_factor": factors, "factor": factor,
                "attention_factor": attention, "original_max_position_embeddings": original}),
        );
        return Ok(());
    }
    let scaling = match header.text(&key("scaling.type"))? {
        None | Some("none") => return Ok(()),
        Some("linear") => json!({"rope_type": "linear", "factor": factor}),
        Some("yarn") => json!({"rope_type": "yarn", "factor": factor,
            "original_max_position_embeddings": original,
            "beta_fast": header.optional_number(&key("scaling.yarn_beta_fast"))?,
            "beta_slow": header.optional_number(&key("scaling.yarn_beta_slow"))?}),
        Some(other) => {
            return Err(Error::unsupported(format!(
                "{}: rope.scaling.type \"{other}\" without its factors is not supported; supported \
                 are linear and yarn",
                file.path
            )));
        }
    };
    config.insert("rope_scaling".into(), scaling);
    Ok(())
}
