//! Where the files of a model come from: a directory, the program itself, or the hub.

use std::path::PathBuf;

/// A model by place.
#[derive(Debug, Clone)]
pub enum ModelSource {
    /// A directory as `save_pretrained` writes it.
    Directory(PathBuf),
    /// Files that are part of the program.
    Embedded {
        /// The model's name, as in `builtin:tiny`.
        name: &'static str,
        /// File name and content.
        files: &'static [(&'static str, &'static [u8])],
    },
    /// A repository of the Hugging Face hub (feature `hub`).
    Hub {
        /// `owner/name`.
        repo: String,
        /// Branch, tag or commit; `None` is `main`.
        revision: Option<String>,
    },
}
