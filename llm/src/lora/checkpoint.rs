//! Checkpoints: all that a run needs to go on as if it had never stopped.
//!
//! `run/checkpoints/step-N/` holds the pairs and the optimiser's moments (f32, exact) and the step
//! number; order and noise follow from the seed and the step. It is written under a temporary
//! name and renamed, so one that exists is whole.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};

use super::adapter::{Site, linear_mut, pair, to_bytes};
use super::optimizer::{AdamW, Moments};
use super::peft::serialize;
use crate::model::Decoder;
use crate::{Error, Result};

const FOLDER: &str = "checkpoints";
const FILE: &str = "state.safetensors";
/// Checkpoints kept: the last, and the one before in case the disk loses the last.
const KEPT: usize = 2;

/// Writes a checkpoint of `step` optimiser steps.
pub(super) fn save(run: &Path, decoder: &Decoder, sites: &[Site], adam: &AdamW) -> Result<()> {
    let mut tensors = vec![];
    for site in sites {
        let pair = pair(decoder, *site)?;
        let mut parts = vec![("a", &pair.a), ("b", &pair.b)];
        if let Some(moments) = adam.moments.get(site) {
            parts.extend([
                ("a.m", &moments.a.0),
                ("a.v", &moments.a.1),
                ("b.m", &moments.b.0),
                ("b.v", &moments.b.1),
            ]);
        }
        for (name, tensor) in parts {
            let name = format!("{}.{name}", site.path());
            tensors.push((name, tensor.dims().to_vec(), to_bytes(tensor)?));
        }
    }
    let folder = run.join(FOLDER);
    let temporary = folder.join(format!(".step-{}.tmp", adam.step));
    let doing = |e| Error::io(format!("writing a checkpoint in {}", folder.display()), e);
    fs::create_dir_all(&temporary).map_err(doing)?;
    let staged = super::peft::stage(&temporary, FILE, &serialize(&tensors)?)?;
    fs::rename(staged, temporary.join(FILE)).map_err(doing)?;
    let target = path(run, adam.step);
    if target.exists() {
        fs::remove_dir_all(&target).map_err(doing)?;
    }
    fs::rename(&temporary, &target).map_err(doing)?;
    let mut steps = list(run);
    while steps.len() > KEPT {
        fs::remove_dir_all(path(run, steps.remove(0))).map_err(doing)?;
    }
    Ok(())
}

/// Restores the latest checkpoint; false if there is none.
pub(super) fn restore(
    run: &Path,
    decoder: &mut Decoder,
    sites: &[Site],
    adam: &mut AdamW,
) -> Result<bool> {
    let Some(step) = list(run).pop() else {
        return Ok(false);
    };
    let file = path(run, step).join(FILE);
    let mut tensors = candle_core::safetensors::load(&file, &Device::Cpu)
        .map_err(|e| Error::corrupt(format!("checkpoint {}: {e}", file.display())))?;
    let device = decoder.device.clone();
    let mut take = |name: String| -> Result<Tensor> {
        let tensor = tensors.remove(&name).ok_or_else(|| {
            Error::corrupt(format!(
                "checkpoint {} lacks {name}; remove it to go on from the one before",
                file.display()
            ))
        })?;
        Ok(tensor.to_device(&device)?)
    };
    let mut moments = BTreeMap::new();
    for site in sites {
        let mut part = |name: &str| take(format!("{}.{name}", site.path()));
        let (a, b) = (part("a")?, part("b")?);
        let both = Moments {
            a: (part("a.m")?, part("a.v")?),
            b: (part("b.m")?, part("b.v")?),
        };
        moments.insert(*site, both);
        if let Some(pair) = &mut linear_mut(decoder, *site)?.lora {
            (pair.a, pair.b) = (a, b);
        }
    }
    *adam = AdamW { step, moments };
    Ok(true)
}

fn path(run: &Path, step: usize) -> PathBuf {
    run.join(FOLDER).join(format!("step-{step}"))
}

/// Steps of the whole checkpoints, ascending.
fn list(run: &Path) -> Vec<usize> {
    let entries = fs::read_dir(run.join(FOLDER)).into_iter().flatten();
    let mut steps: Vec<usize> = entries
        .filter_map(|e| {
            e.ok()?
                .file_name()
                .to_str()?
                .strip_prefix("step-")?
                .parse()
                .ok()
        })
        .collect();
    steps.sort_unstable();
    steps
}
