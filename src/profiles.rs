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

/// The prompts of a model whose files are here, for planning: one of a hub would be fetched, and one
/// that cannot be opened says so when it is needed. Both have them once they are loaded.
pub(crate) fn overlay_at_hand(model: &ModelSpec) -> Option<String> {
    match models::is_fetched(&model.source) {
        Ok(false) => overlay(model).ok().flatten(),
        _ => None,
    }
}

/// The prompts that a model carries, read without loading it.
///
/// # Errors
/// A model that cannot be opened.
pub(crate) fn overlay(model: &ModelSpec) -> Result<Option<String>> {
    if model.remote.is_some() {
        return Ok(None);
    }
    let content = models::source(&model.source)?.open()?.read(OVERLAY)?;
    Ok(content.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planning_reads_what_is_here_and_fetches_nothing() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(OVERLAY), "x = 1").unwrap();
        let here = ModelSpec::new(dir.path().display().to_string());
        assert_eq!(overlay_at_hand(&here).as_deref(), Some("x = 1"));
        for (source, fetched) in [
            ("owner/name", true),
            ("builtin:tiny", false),
            ("/none", false),
        ] {
            assert_eq!(models::is_fetched(source).unwrap(), fetched, "{source}");
        }
        assert_eq!(overlay_at_hand(&ModelSpec::new("owner/name")), None);
    }
}
