//! The adapter as PEFT, vLLM and others load it: `adapter_model.safetensors` and
//! `adapter_config.json` (PEFT 0.20's `LoraConfig`). The configuration is written last, because
//! nothing loads an adapter without it: the directory holds a whole adapter or none.

use std::fs;
use std::io::Write;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::json;

use super::adapter::{Site, pair, to_bytes};
use super::settings::LoraSettings;
use crate::model::{Decoder, LORA_MODULES};
use crate::{Error, Result, output};

/// File name of the tensors.
pub const WEIGHTS: &str = "adapter_model.safetensors";
/// File name of the configuration.
pub const CONFIG: &str = "adapter_config.json";

/// Writes the decoder's pairs at `sites` into `directory`, replacing an adapter that is there.
pub(super) fn write(
    directory: &Path,
    decoder: &Decoder,
    sites: &[Site],
    settings: &LoraSettings,
    base: &str,
) -> Result<()> {
    let weights = weights(decoder, sites)?;
    let config = config(settings, sites, base)?;
    // Between the two renames there must be no configuration that fits other tensors.
    let config_path = directory.join(CONFIG);
    output::check_file(&config_path)?;
    output::check_file(&directory.join(WEIGHTS))?;
    let staged = stage(directory, WEIGHTS, &weights)?;
    let staged_config = stage(directory, CONFIG, config.as_bytes())?;
    if config_path.exists() {
        fs::remove_file(&config_path).map_err(|e| failed(&config_path, e))?;
    }
    fs::rename(&staged, directory.join(WEIGHTS)).map_err(|e| failed(&staged, e))?;
    fs::rename(&staged_config, &config_path).map_err(|e| failed(&staged_config, e))
}

/// The tensors of an adapter in PEFT's names, as a safetensors file.
pub(super) fn weights(decoder: &Decoder, sites: &[Site]) -> Result<Vec<u8>> {
    let mut tensors = vec![];
    for site in sites {
        let pair = pair(decoder, *site)?;
        for (letter, tensor) in [("A", &pair.a), ("B", &pair.b)] {
            let name = format!("base_model.model.{}.lora_{letter}.weight", site.path());
            tensors.push((name, tensor.dims().to_vec(), to_bytes(tensor)?));
        }
    }
    serialize(&tensors)
}

/// f32 tensors as a safetensors file with PyTorch's mark.
pub(super) fn serialize(tensors: &[(String, Vec<usize>, Vec<u8>)]) -> Result<Vec<u8>> {
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| {
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
            view.map(|view| (name.clone(), view))
        })
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| Error::internal(format!("a tensor cannot be written: {e}")))?;
    let mark = [("format".to_owned(), "pt".to_owned())].into();
    safetensors::serialize(views, Some(mark))
        .map_err(|e| Error::internal(format!("tensors cannot be written: {e}")))
}

fn config(settings: &LoraSettings, sites: &[Site], base: &str) -> Result<String> {
    let named = |name: &&str| sites.iter().any(|site| site.module_name() == *name);
    let modules = LORA_MODULES.iter().map(|(name, _)| *name).filter(named);
    let modules: Vec<&str> = modules.collect();
    let value = json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "lora_dropout": 0.0,
        "use_rslora": settings.use_rslora,
        "use_dora": false,
        "target_modules": modules,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "modules_to_save": null,
        "rank_pattern": {},
        "alpha_pattern": {},
        "layers_to_transform": null,
        "layers_pattern": null,
        "exclude_modules": null,
        "revision": null,
        "auto_mapping": null,
    });
    serde_json::to_string_pretty(&value)
        .map_err(|e| Error::internal(format!("{CONFIG} cannot be written: {e}")))
}

/// Writes `bytes` under a temporary name in `directory` and makes them durable.
pub(super) fn stage(directory: &Path, name: &str, bytes: &[u8]) -> Result<std::path::PathBuf> {
    let path = directory.join(format!(".{name}.tmp"));
    let mut file = output::create(&path)?;
    match file.write_all(bytes).and_then(|()| file.sync_all()) {
        Ok(()) => Ok(path),
        Err(error) => {
            fs::remove_file(&path).ok();
            Err(failed(&path, error))
        }
    }
}

fn failed(path: &Path, error: std::io::Error) -> Error {
    Error::io(format!("writing {}", path.display()), error)
}
