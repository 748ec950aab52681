//! How a PEFT adapter directory is read and attached to a decoder.
//!
//! Format: PEFT's `adapter_config.json` and `adapter_model.safetensors`. What this crate would
//! compute differently (DoRA, saved modules, biases, ...) is refused.

use std::path::Path;

use candle_core::DType;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::decoder::Decoder;
use super::layer::LORA_MODULES;
use super::linear::LoraPair;
use super::source::{ModelFiles, ModelSource, json};
use super::weights::Weights;
use crate::{Error, Result};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

#[derive(Deserialize)]
#[serde(default)]
struct Config {
    peft_type: String,
    r: usize,
    lora_alpha: f64,
    use_rslora: bool,
    rank_pattern: Option<Map<String, Value>>,
    alpha_pattern: Option<Map<String, Value>>,
}

impl Default for Config {
    /// PEFT's defaults for what a file leaves out.
    fn default() -> Self {
        Self {
            peft_type: "LORA".to_string(),
            r: 8,
            lora_alpha: 8.0,
            use_rslora: false,
            rank_pattern: None,
            alpha_pattern: None,
        }
    }
}

/// Refuses an adapter that cannot be read; whether it fits a decoder is not looked at.
pub(crate) fn check_adapter(directory: &Path) -> Result<()> {
    open(directory).map(drop)
}

fn open(directory: &Path) -> Result<(ModelFiles, Config, Weights)> {
    let files = ModelSource::Directory(directory.to_path_buf()).open()?;
    for file in [CONFIG, WEIGHTS] {
        if !files.has(file) {
            return Err(Error::not_found(format!(
                "adapter {}: {file} does not exist; an adapter directory holds {CONFIG} and \
                 {WEIGHTS}",
                directory.display()
            )));
        }
    }
    let value = json(&files, CONFIG, &files.require(CONFIG)?)?;
    refuse_unsupported(&files, &value)?;
    let config: Config = serde_json::from_value(value).map_err(|e| {
        Error::corrupt(format!(
            "{}: {e}; train the adapter again",
            files.describe(CONFIG)
        ))
        .with_source(e)
    })?;
    let weights = Weights::open_file(&files, WEIGHTS)?;
    Ok((files, config, weights))
}

/// Reads the adapter in `directory` and attaches its pairs to the decoder's matrices, replacing
/// pairs that are there. Returns how many matrices have a pair now.
///
/// # Errors
/// `NotFound` for a missing directory or file, `Unsupported` for an adapter of another kind,
/// `Corrupt` for one that does not fit the decoder, naming the tensor.
pub fn attach_adapter(decoder: &mut Decoder, directory: &Path) -> Result<usize> {
    let (files, config, weights) = open(directory)?;
    let mut used = 0;
    let device = decoder.device.clone();
    for (i, layer) in decoder.layers.iter_mut().enumerate() {
        for (module, parent) in LORA_MODULES {
            let path = format!("model.layers.{i}.{parent}.{module}");
            let key = |matrix: &str| format!("base_model.model.{path}.lora_{matrix}.weight");
            let Some(linear) = layer.linear_mut(module) else {
                continue;
            };
            linear.lora = None;
            if !weights.has(&key("A")) && !weights.has(&key("B")) {
                continue;
            }
            let rank =
                pattern(config.rank_pattern.as_ref(), &path).map_or(config.r, |rank| rank as usize);
            let alpha = pattern(config.alpha_pattern.as_ref(), &path).unwrap_or(config.lora_alpha);
            let (out, input) = linear.dims()?;
            linear.lora = Some(LoraPair {
                a: weights.tensor(&key("A"), &[rank, input], DType::F32, &device)?,
                b: weights.tensor(&key("B"), &[out, rank], DType::F32, &device)?,
                scale: if config.use_rslora {
                    alpha / (rank as f64).sqrt()
                } else {
                    alpha / rank as f64
                },
            });
            used += 1;
        }
    }
    if 2 * used != weights.names().len() {
        let (layers, names) = (decoder.layers.len(), weights.names());
        let known = |name: &str| {
            (0..layers).any(|i| {
                LORA_MODULES.iter().any(|(module, parent)| {
                    let path = format!("base_model.model.model.layers.{i}.{parent}.{module}.lora_");
                    name.starts_with(&path)
                })
            })
        };
        let stray = names
            .into_iter()
            .find(|name| !known(name))
            .unwrap_or_default();
        return Err(Error::unsupported(format!(
            "{}: tensor {stray} has no place in this model of {layers} layers; supported are \
             pairs on {} of its layers. Was the adapter trained on another base model?",
            files.describe(WEIGHTS),
            LORA_MODULES
                .iter()
                .map(|m| m.0)
                .collect::<Vec<_>>()
                .join(", ")
        )));
    }
    Ok(used)
}

/// PEFT takes the first pattern that the module's path ends with (at a dot) or matches exactly;
/// patterns are regular expressions there, plain names here.
fn pattern(patterns: Option<&Map<String, Value>>, path: &str) -> Option<f64> {
    let ends = |key: &str| path == key || path.ends_with(&format!(".{key}"));
    patterns?
        .iter()
        .find(|(key, _)| ends(key))
        .and_then(|(_, value)| value.as_f64())
}

fn refuse_unsupported(files: &ModelFiles, config: &Value) -> Result<()> {
    let refuse = |what: String| {
        Err(Error::unsupported(format!(
            "{}: {what} is not supported; supported are LoRA and rank-stabilised LoRA pairs with \
             frozen biases. Merge the adapter into its base model with PEFT and load that",
            files.describe(CONFIG)
        )))
    };
    if let Some(kind) = config
        .get("peft_type")
        .and_then(Value::as_str)
        .filter(|k| *k != "LORA")
    {
        return refuse(format!("peft_type \"{kind}\""));
    }
    if let Some(bias) = config
        .get("bias")
        .and_then(Value::as_str)
        .filter(|b| *b != "none")
    {
        return refuse(format!("bias \"{bias}\""));
    }
    for key in [
        "use_dora",
        "lora_bias",
        "fan_in_fan_out",
        "use_qalora",
        "alora_invocation_tokens",
    ] {
        let on = config
            .get(key)
            .is_some_and(|v| !v.is_null() && *v != Value::Bool(false));
        if on {
            return refuse(key.to_string());
        }
    }
    for key in [
        "modules_to_save",
        "trainable_token_indices",
        "target_parameters",
        "layer_replication",
    ] {
        let set = match config.get(key) {
            None | Some(Value::Null) => false,
            Some(Value::Array(items)) => !items.is_empty(),
            Some(_) => true,
        };
        if set {
            return refuse(key.to_string());
        }
    }
    for key in ["rank_pattern", "alpha_pattern"] {
        let keys = config
            .get(key)
            .and_then(Value::as_object)
            .into_iter()
            .flat_map(Map::keys);
        if let Some(regex) = keys
            .into_iter()
            .find(|k| k.contains(['*', '(', '[', '\\', '^', '$', '|']))
        {
            return refuse(format!("the regular expression \"{regex}\" in {key}"));
        }
    }
    Ok(())
}
