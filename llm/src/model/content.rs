//! The bytes of a model's file: embedded, read or mapped.
//!
//! Only regular files are opened: a pipe would be waited for, a device never ends. This is the one file outside `kernels` with an unsafe block.

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

/// Largest file that is read as a whole: everything but weights, which are mapped.
const MOST_BYTES: u64 = 256 << 20;

/// Refuses what is there and no regular file.
pub(crate) fn check_regular(path: &Path) -> Result<()> {
    match std::fs::metadata(path) {
        Ok(meta) if !meta.is_file() => Err(Error::invalid_input(format!(
            "{} is no regular file; a model's files are, fetch it again",
            path.display()
        ))),
        _ => Ok(()), // what is not there is said by who opens it
    }
}

/// Refuses what is there and cannot be read as a whole.
pub(crate) fn check_readable(path: &Path) -> Result<()> {
    check_regular(path)?;
    match std::fs::metadata(path) {
        Ok(meta) if meta.len() > MOST_BYTES => Err(Error::invalid_input(format!(
            "{} has {} bytes, more than a model's settings ever have; fetch it again",
            path.display(),
            meta.len()
        ))),
        _ => Ok(()),
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
