//! Which prompts a profile name means: built in, as the model overlays it, as casebook.toml does.

use casebook_qa::profile::Profile;

use crate::context::Casebook;
use crate::error::Result;
use crate::models::{self, ModelSpec};

/// File of a model directory with the prompts that the model was trained with.
const OVERLAY: &str = "casebook-profile.toml";

/// The profile called `name` for a model that carries `overlay`. Casebook.toml wins.
pub(crate) fn resolve(casebook: &Casebook, name: &str, overlay: Option<&str>) -> Result<Profile> {
    let mut overlays = vec![];
    overlays.extend(overlay.map(|text| ("the model's casebook-profile.toml", text)));
    let configured = casebook
        .profiles
        .get(name)
        .map(Vec::as_slice)
        .unwrap_or_default();
    overlays.extend(configured.iter().map(|(o, t)| (o.as_str(), t.as_str())));
    Ok(Profile::resolve(name, &overlays)?)
}

/// The prompts that a model carries, read without loading it.
///
/// # Errors
/// A model that cannot be opened.
pub(crate) fn overlay(model: &ModelSpec) -> Result<Option<String>> {
    let content = models::source(&model.source)?.open()?.read(OVERLAY)?;
    Ok(content.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}
