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
use crate::model::{Decoder, LORA_MODULES, ModelSource};
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
    base: &ModelSource,
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

fn config(settings: &LoraSettings, sites: &[Site], base: &ModelSource) -> Result<String> {
    // where AutoPeftModel finds it: the path or the repository as it was given
    let (base, revision) = match base {
        ModelSource::Directory(path) => (path.display().to_string(), None),
        ModelSource::Embedded { name, .. } => ((*name).to_string(), None),
        ModelSource::Hub { repo, revision } => (repo.clone(), revision.clone()),
    };
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
        "revision": revision,
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn the_base_is_named_as_it_was_given() {
        let named = |base: ModelSource| -> (Value, Value) {
            let text = config(&LoraSettings::default(), &[], &base).unwrap();
            let mut value: Value = serde_json::from_str(&text).unwrap();
            (
                value["base_model_name_or_path"].take(),
                value["revision"].take(),
            )
        };
        let directory = ModelSource::Directory("models/my-base".into());
        assert_eq!(named(directory), (json!("models/my-base"), Value::Null));
        let hub = ModelSource::Hub {
            repo: "owner/name".into(),
            revision: Some("v1".into()),
        };
        assert_eq!(named(hub), (json!("owner/name"), json!("v1")));
    }
}
