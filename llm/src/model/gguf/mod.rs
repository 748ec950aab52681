//! How a GGUF file becomes a model: one file with configuration, tokenizer, chat template and
//! weights (format: ggml's `docs/gguf.md`, versions 2 and 3).
//!
//! `header` reads what stands before the weights, `config` and `tokenizer` turn its keys into the
//! files that other models have, `blocks` knows how quantised numbers are packed, `weights` finds
//! tensors by the names that other models give them.

mod blocks;
mod config;
mod header;
mod pretokenizers;
mod tokenizer;
mod weights;

use std::sync::Arc;

pub(crate) use blocks::Packing;
pub(crate) use header::Header;
pub(crate) use weights::GgufWeights;

use super::content::Content;
use crate::Result;

/// The first bytes of a file.
pub(crate) const MAGIC: &[u8; 4] = b"GGUF";

/// A GGUF file whose header has been read.
#[derive(Debug, Clone)]
pub(crate) struct Gguf {
    /// For messages.
    pub(crate) path: String,
    pub(crate) content: Arc<Content>,
    pub(crate) header: Arc<Header>,
}

impl Gguf {
    /// Reads the header.
    pub(crate) fn read(path: String, content: Content) -> Result<Self> {
        let header = Header::parse(&path, &content)?;
        Ok(Self {
            path,
            content: Arc::new(content),
            header: Arc::new(header),
        })
    }

    /// The files of other models that it stands for.
    pub(crate) const FILES: [&str; 3] = ["config.json", "tokenizer.json", "tokenizer_config.json"];

    /// What other models have as a file of that name, if it is one of [`Gguf::FILES`].
    pub(crate) fn file(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let value = match name {
            "config.json" => Some(config::config(self)?),
            "tokenizer.json" => Some(tokenizer::tokenizer(self)?),
            "tokenizer_config.json" => Some(tokenizer::settings(self)?),
            _ => None,
        };
        Ok(value.map(|value| value.to_string().into_bytes()))
    }
}
