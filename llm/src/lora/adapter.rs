//! The trainable tensors of a run: which there are and how they begin.

use candle_core::{Device, Tensor};

use super::random::Random;
use super::settings::LoraSettings;
use crate::model::{Decoder, FUSED_MODULES, LORA_MODULES, LoraPair};
use crate::{Error, Result};

/// A matrix with a pair: its layer and its index in [`LORA_MODULES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Site {
    pub(super) layer: usize,
    pub(super) module: usize,
}

impl Site {
    /// PEFT's name of the module, such as `q_proj`.
    pub(super) fn module_name(self) -> &'static str {
        LORA_MODULES[self.module].0
    }

    /// The tensor's key without the prefix and the ending that PEFT adds.
    pub(super) fn path(self) -> String {
        let (name, parent) = LORA_MODULES[self.module];
        format!("model.layers.{}.{parent}.{name}", self.layer)
    }
}

/// Every matrix that `settings` names, first layer to last. A fused matrix is meant by its own name
/// and by those of all its parts.
///
/// # Errors
/// Names that the network does not have, with those it has.
pub(super) fn sites(decoder: &Decoder, settings: &LoraSettings) -> Result<Vec<Site>> {
    let targets = &settings.target_modules;
    let named = |name: &str| targets.iter().any(|target| target == name);
    let parts = |name: &str| FUSED_MODULES.iter().find(|(fused, _)| *fused == name);
    let meant = |name: &str| {
        named(name) || parts(name).is_some_and(|(_, parts)| parts.iter().all(|part| named(part)))
    };
    let mut out = vec![];
    let mut had = vec![];
    for (index, layer) in decoder.layers.iter().enumerate() {
        for (module, (name, _)) in LORA_MODULES.iter().enumerate() {
            if layer.linear(name).is_some() && meant(name) {
                out.push(Site {
                    layer: index,
                    module,
                });
                had.push(*name);
                had.extend(parts(name).into_iter().flat_map(|(_, parts)| *parts));
            }
        }
    }
    let stray = targets.iter().find(|name| !had.contains(&name.as_str()));
    if let Some(stray) = stray {
        let first = decoder.layers.first();
        let names = first.map(|layer| layer.linears().map(|(name, _)| name).collect::<Vec<_>>());
        return Err(Error::invalid_input(format!(
            "target_modules names {stray}, which {} does not have alone; its modules are {}",
            decoder.config.model_type,
            names.unwrap_or_default().join(", ")
        )));
    }
    Ok(out)
}

/// Gives every site a pair: A uniform in ±1/sqrt(in) (PyTorch's kaiming_uniform with a = sqrt 5,
/// as PEFT), B zero, so that training starts from the base model.
pub(super) fn initialise(
    decoder: &mut Decoder,
    sites: &[Site],
    settings: &LoraSettings,
) -> Result<()> {
    let device = decoder.device.clone();
    for site in sites {
        let linear = linear_mut(decoder, *site)?;
        let (out, input) = linear.dims()?;
        let purpose = [1, site.layer as u64, site.module as u64];
        let mut random = Random::new(settings.seed, &purpose);
        let bound = 1.0 / (input as f64).sqrt();
        let values: Vec<f32> = (0..settings.rank * input)
            .map(|_| ((2.0 * random.unit() - 1.0) * bound) as f32)
            .collect();
        linear.lora = Some(LoraPair {
            a: Tensor::from_vec(values, (settings.rank, input), &device)?,
            b: Tensor::zeros((out, settings.rank), candle_core::DType::F32, &device)?,
            scale: settings.scale(),
        });
    }
    Ok(())
}

/// The pair at `site`.
pub(super) fn pair(decoder: &Decoder, site: Site) -> Result<&LoraPair> {
    decoder
        .layers
        .get(site.layer)
        .and_then(|layer| layer.linear(site.module_name()))
        .and_then(|linear| linear.lora.as_ref())
        .ok_or_else(|| Error::internal(format!("{} has no pair", site.path())))
}

/// The matrix at `site`.
pub(super) fn linear_mut(decoder: &mut Decoder, site: Site) -> Result<&mut crate::model::Linear> {
    decoder
        .layers
        .get_mut(site.layer)
        .and_then(|layer| layer.linear_mut(site.module_name()))
        .ok_or_else(|| Error::internal(format!("{} is not in the network", site.path())))
}

/// Tensors as one list of numbers on the host, for files.
pub(super) fn to_bytes(tensor: &Tensor) -> Result<Vec<u8>> {
    let values = tensor
        .to_device(&Device::Cpu)?
        .flatten_all()?
        .to_vec1::<f32>()?;
    Ok(values.iter().flat_map(|v| v.to_le_bytes()).collect())
}
