//! How a repository of the Hugging Face hub becomes a directory (feature `hub`).

use std::path::PathBuf;

use crate::{Error, Result};

/// Files that a model needs; a repository may hold the same weights in other formats too.
#[cfg(feature = "hub")]
const FILES: [&str; 3] = ["*.json", "*.jinja", "*.safetensors"];

/// Fetches what a model needs, or finds it in the hub's cache when the hub cannot be reached.
/// Blocks; the token comes from where Hugging Face's own tools keep it.
#[cfg(feature = "hub")]
pub(crate) fn fetch(repo: &str, revision: Option<&str>) -> Result<PathBuf> {
    use crate::ErrorKind;

    let Some((owner, name)) = repo.split_once('/') else {
        return Err(Error::invalid_input(format!(
            "model {repo}: a repository of the hub is OWNER/NAME; name a directory as ./{repo}"
        )));
    };
    let failed = |e: hf_hub::HFError| {
        Error::new(
            ErrorKind::Unavailable,
            format!(
                "model {repo} could not be fetched from the hub ({e}) and is not in its cache; \
                 check the name, the network and HF_TOKEN, or download it and name its directory"
            ),
        )
        .with_source(e)
    };
    let client = hf_hub::HFClientSync::new().map_err(failed)?;
    let model = client.model(owner, name);
    let snapshot = |local_files_only: bool| {
        model
            .snapshot_download()
            .maybe_revision(revision.map(str::to_string))
            .allow_patterns(FILES.map(str::to_string).to_vec())
            .local_files_only(local_files_only)
            .send()
    };
    snapshot(false)
        .or_else(|error| snapshot(true).map_err(|_| error))
        .map_err(failed)
}

/// Fetches what a model needs, or finds it in the hub's cache.
#[cfg(not(feature = "hub"))]
pub(crate) fn fetch(repo: &str, _revision: Option<&str>) -> Result<PathBuf> {
    Err(Error::unsupported(format!(
        "model {repo}: this program was built without the feature hub; download the repository \
         and name its directory, or build with --features hub"
    )))
}
