//! Checkpoints: all that a run needs to go on as if it had never stopped.
//!
//! `run/checkpoints/step-N/` holds the pairs and the optimiser's moments (f32, exact), a hash of
//! them and the step number; order and noise follow from the seed and the step. It is written under
//! a temporary name and renamed, so one that exists is whole. One that the disk damaged later is
//! left for the one before it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};

use super::adapter::{Site, linear_mut, pair, to_bytes};
use super::optimizer::{AdamW, Moments};
use super::peft::{serialize, stage};
use crate::model::Decoder;
use crate::{Error, ErrorKind, Result};

pub(super) const FOLDER: &str = "checkpoints";
const FILE: &str = "state.safetensors";
/// Hash of that file, in hexadecimal digits.
const DIGEST: &str = "state.blake3";
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
    let state = serialize(&tensors)?;
    let digest = blake3::hash(&state).to_hex();
    for (name, bytes) in [(FILE, &state[..]), (DIGEST, digest.as_bytes())] {
        let staged = stage(&temporary, name, bytes)?;
        fs::rename(staged, temporary.join(name)).map_err(doing)?;
    }
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

/// Restores the latest checkpoint that is whole; false if there is none. Damaged ones after it are
/// removed.
///
/// # Errors
/// Checkpoints none of which can be used.
pub(super) fn restore(
    run: &Path,
    decoder: &mut Decoder,
    sites: &[Site],
    adam: &mut AdamW,
) -> Result<bool> {
    let mut damaged = vec![];
    for step in list(run).into_iter().rev() {
        let folder = path(run, step);
        let state = match read(&folder, decoder, sites) {
            Ok(state) => state,
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                damaged.push((folder, error));
                continue;
            }
            Err(error) => return Err(error),
        };
        let mut moments = BTreeMap::new();
        for (site, (a, b, both)) in sites.iter().zip(state) {
            moments.insert(*site, both);
            if let Some(pair) = &mut linear_mut(decoder, *site)?.lora {
                (pair.a, pair.b) = (a, b);
            }
        }
        *adam = AdamW { step, moments };
        for (folder, _) in damaged {
            fs::remove_dir_all(&folder)
                .map_err(|e| Error::io(format!("removing {}", folder.display()), e))?;
        }
        return Ok(true);
    }
    match damaged.into_iter().next() {
        None => Ok(false),
        Some((_, error)) => Err(Error::corrupt(format!(
            "no checkpoint can be used; remove {} to train from the start: {error}",
            run.join(FOLDER).display()
        ))
        .with_source(error)),
    }
}

/// Pairs and moments per site.
type State = Vec<(Tensor, Tensor, Moments)>;

/// The state in `folder`, for the pairs that `decoder` has.
fn read(folder: &Path, decoder: &Decoder, sites: &[Site]) -> Result<State> {
    let file = folder.join(FILE);
    let damaged = |what: String| Error::corrupt(format!("checkpoint {}: {what}", file.display()));
    let bytes = fs::read(&file).map_err(|e| match e.kind() {
        std::io::ErrorKind::PermissionDenied => Error::io(format!("reading {}", file.display()), e),
        _ => damaged(e.to_string()),
    })?;
    // Checkpoints of version 0.1.0 before its release have no hash.
    if let Ok(digest) = fs::read_to_string(folder.join(DIGEST))
        && digest.trim() != blake3::hash(&bytes).to_hex().as_str()
    {
        return Err(damaged("its bytes are not those that were written".into()));
    }
    let mut tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)
        .map_err(|e| damaged(e.to_string()))?;
    let mut take = |site: &Site, part: &str, like: &Tensor| -> Result<Tensor> {
        let name = format!("{}.{part}", site.path());
        let tensor = tensors
            .remove(&name)
            .ok_or_else(|| damaged(format!("it lacks {name}")))?;
        if tensor.dims() != like.dims() || tensor.dtype() != like.dtype() {
            return Err(damaged(format!(
                "{name} is {:?}, not {:?}",
                tensor.dims(),
                like.dims()
            )));
        }
        Ok(tensor.to_device(&decoder.device)?)
    };
    let mut state = vec![];
    for site in sites {
        let now = pair(decoder, *site)?;
        let (a, b) = (take(site, "a", &now.a)?, take(site, "b", &now.b)?);
        let moments = Moments {
            a: (take(site, "a.m", &now.a)?, take(site, "a.v", &now.a)?),
            b: (take(site, "b.m", &now.b)?, take(site, "b.v", &now.b)?),
        };
        state.push((a, b, moments));
    }
    Ok(state)
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
