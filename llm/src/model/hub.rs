//! How a repository of the Hugging Face hub becomes a directory (feature `hub`).

use std::path::PathBuf;

use crate::{Error, Result};

/// Fetches what a model needs, or finds it in the hub's cache.
#[cfg(not(feature = "hub"))]
pub(crate) fn fetch(repo: &str, _revision: Option<&str>) -> Result<PathBuf> {
    Err(Error::unsupported(format!(
        "model {repo}: this program was built without the feature hub; download the repository \
         and name its directory, or build with --features hub"
    )))
}
