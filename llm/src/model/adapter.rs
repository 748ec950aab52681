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
    if weights.names().is_empty() {
        return Err(Error::corrupt(format!(
            "{} has no tensors, so that the adapter would change nothing; train it again",
            files.describe(WEIGHTS)
        )));
    }
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
            let scale = if config.use_rslora {
                alpha / (rank as f64).sqrt()
            } else {
                alpha / rank as f64
            };
            if rank == 0 || !(scale as f32).is_finite() {
                return Err(Error::corrupt(format!(
                    "{}: rank {rank} and lora_alpha {alpha} of {path} give no factor; train the \
                     adapter again",
                    files.describe(CONFIG)
                )));
            }
            linear.lora = Some(LoraPair {
                a: weights.tensor(&key("A"), &[rank, input], DType::F32, &device)?,
                b: weights.tensor(&key("B"), &[out, rank], DType::F32, &device)?,
                scale,
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

/// Settings of PEFT's `LoraConfig` (0.21 and before) that do not change what a pair of matrices adds,
/// or are read above. Of any other, only a value that turns it off is taken.
const HARMLESS: &[&str] = &[
    "alpha_pattern",
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "corda_config", // these configure an initialisation; which one it was is looked at
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_alpha",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "rank_pattern",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
    "use_rslora",
];

/// Initialisations that leave the base model's weights as they are. The others (PiSSA, OLoRA, CorDA,
/// LoftQ, LoRA-GA, ...) change them, and their tensors are a difference to the changed ones.
const INITIALISATIONS: &[&str] = &["gaussian", "eva", "orthogonal"];

fn refuse_unsupported(files: &ModelFiles, config: &Value) -> Result<()> {
    let refuse = |what: String| {
        Err(Error::unsupported(format!(
            "{}: {what} is not supported; supported are LoRA and rank-stabilised LoRA pairs with \
             frozen biases. Merge the adapter into its base model with PEFT and load that",
            files.describe(CONFIG)
        )))
    };
    let text = |key: &str| config.get(key).and_then(Value::as_str);
    for (key, supported) in [("peft_type", "LORA"), ("bias", "none")] {
        if let Some(other) = text(key).filter(|value| *value != supported) {
            return refuse(format!("{key} \"{other}\""));
        }
    }
    match config.get("init_lora_weights") {
        None | Some(Value::Null | Value::Bool(_)) => {}
        Some(Value::String(kind)) if INITIALISATIONS.contains(&kind.as_str()) => {}
        Some(kind) => return refuse(format!("init_lora_weights {kind}")),
    }
    for (key, value) in config.as_object().into_iter().flatten() {
        let off = match value {
            Value::Null | Value::Bool(false) => true,
            Value::Array(items) => items.is_empty(),
            Value::Object(keys) => keys.is_empty(),
            _ => false,
        };
        if !off && !HARMLESS.contains(&key.as_str()) {
            return refuse(key.clone());
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
