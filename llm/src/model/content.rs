//! The bytes of a model's file: embedded, read or mapped.
//!
//! This is the one file outside `kernels` with an unsafe block.

use std::fs::File;
use std::ops::Deref;
use std::path::Path;

use crate::{Error, Result};

/// The content of a file, wherever it lives.
#[derive(Debug)]
pub enum Content {
    /// Part of the program.
    Static(&'static [u8]),
    /// Read into memory.
    Owned(Vec<u8>),
    /// Mapped; pages are read when touched.
    Mapped(memmap2::Mmap),
}

impl Deref for Content {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Static(bytes) => bytes,
            Self::Owned(bytes) => bytes,
            Self::Mapped(map) => map,
        }
    }
}

/// A file mapped into memory; an empty file is an empty content.
#[allow(unsafe_code)]
pub(crate) fn map_file(file: &File, path: &Path) -> Result<Content> {
    let io = |e: std::io::Error| Error::io(format!("mapping {}", path.display()), e);
    if file.metadata().map_err(io)?.len() == 0 {
        return Ok(Content::Static(&[]));
    }
    // SAFETY: the map is only read. A model file that another process truncates or rewrites while
    // it is mapped would break the map's promise; model directories are not modified in place:
    // every known writer (save_pretrained, the hub cache) replaces files. Weights are copied out
    // of the map when a tensor is read, so the map does not outlive loading.
    let map = unsafe { memmap2::Mmap::map(file) }.map_err(io)?;
    Ok(Content::Mapped(map))
}
