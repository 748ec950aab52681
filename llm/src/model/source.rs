//! Where the files of a model come from: a directory, the program itself, or the hub.
//!
//! Says nothing about what is in the files, except for the digest over those that decide what
//! the model answers.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use super::content::{Content, check_readable, check_regular, map_file};
use crate::{Error, ErrorKind, Result};

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

impl ModelSource {
    /// What the model is called in messages and tables: the directory's last part, `builtin:NAME`
    /// as embedded, or the repository.
    pub fn name(&self) -> String {
        match self {
            Self::Directory(path) => {
                let full = path.canonicalize().unwrap_or_else(|_| path.clone());
                full.file_name()
                    .unwrap_or(full.as_os_str())
                    .to_string_lossy()
                    .into_owned()
            }
            Self::Embedded { name, .. } => (*name).to_string(),
            Self::Hub {
                repo,
                revision: None,
            } => repo.clone(),
            Self::Hub {
                repo,
                revision: Some(revision),
            } => format!("{repo}@{revision}"),
        }
    }

    /// Makes the files reachable: checks the directory, or fetches the repository.
    ///
    /// # Errors
    /// A directory that is missing or is none; a hub that cannot be reached.
    pub fn open(&self) -> Result<ModelFiles> {
        let name = self.name();
        match self {
            Self::Directory(path) => ModelFiles::directory(name, path.clone()),
            Self::Embedded { files, .. } => Ok(ModelFiles {
                name,
                place: Place::Embedded(files),
            }),
            Self::Hub { repo, revision } => {
                ModelFiles::directory(name, super::hub::fetch(repo, revision.as_deref())?)
            }
        }
    }
}

/// The files of one model, readable by name.
#[derive(Debug, Clone)]
pub struct ModelFiles {
    /// The model's name for messages.
    pub name: String,
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    Directory(PathBuf),
    Embedded(&'static [(&'static str, &'static [u8])]),
}

impl ModelFiles {
    fn directory(name: String, path: PathBuf) -> Result<Self> {
        let meta = std::fs::metadata(&path)
            .map_err(|e| Error::io(format!("opening model directory {}", path.display()), e))?;
        if !meta.is_dir() {
            return Err(Error::invalid_input(format!(
                "model {} is a file; name the directory that holds config.json",
                path.display()
            )));
        }
        Ok(Self {
            name,
            place: Place::Directory(path),
        })
    }

    /// Where a file is, for messages.
    pub fn describe(&self, file: &str) -> String {
        match &self.place {
            Place::Directory(path) => path.join(file).display().to_string(),
            Place::Embedded(_) => format!("{}/{file}", self.name),
        }
    }

    /// Reads a file; `None` if the model does not have it.
    ///
    /// # Errors
    /// A file that exists and cannot be read.
    pub fn read(&self, file: &str) -> Result<Option<Content>> {
        match &self.place {
            Place::Embedded(files) => Ok(files
                .iter()
                .find(|(name, _)| *name == file)
                .map(|(_, bytes)| Content::Static(bytes))),
            Place::Directory(path) => {
                let path = path.join(file);
                check_readable(&path)?;
                match std::fs::read(&path) {
                    Ok(bytes) => Ok(Some(Content::Owned(bytes))),
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
                    Err(e) => Err(Error::io(format!("reading {}", path.display()), e)),
                }
            }
        }
    }

    /// Reads a file every model must have.
    ///
    /// # Errors
    /// As [`ModelFiles::read`], and a file that is not there.
    pub fn require(&self, file: &str) -> Result<Content> {
        self.read(file)?.ok_or_else(|| self.missing(file))
    }

    /// Opens a weight file without reading it.
    pub(crate) fn map(&self, file: &str) -> Result<Content> {
        match &self.place {
            Place::Embedded(_) => self.require(file),
            Place::Directory(path) => {
                let full = path.join(file);
                check_regular(&full)?;
                let handle = File::open(&full).map_err(|e| match e.kind() {
                    std::io::ErrorKind::NotFound => self.missing(file),
                    _ => Error::io(format!("opening {}", full.display()), e),
                })?;
                map_file(&handle, &full)
            }
        }
    }

    /// Whether the model has a file.
    pub fn has(&self, file: &str) -> bool {
        match &self.place {
            Place::Embedded(files) => files.iter().any(|(name, _)| *name == file),
            Place::Directory(path) => path.join(file).is_file(),
        }
    }

    /// The names of all files, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = match &self.place {
            Place::Embedded(files) => files.iter().map(|(name, _)| (*name).to_string()).collect(),
            Place::Directory(path) => std::fs::read_dir(path)
                .into_iter()
                .flatten()
                .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
                .collect(),
        };
        names.sort();
        names
    }

    fn missing(&self, file: &str) -> Error {
        Error::not_found(format!(
            "model {}: {} does not exist; a model directory needs config.json, tokenizer.json and \
             model.safetensors (or model.safetensors.index.json with its shards); it has {}",
            self.name,
            self.describe(file),
            match self.names().as_slice() {
                [] => "no files".to_string(),
                names => names.join(", "),
            }
        ))
    }

    /// A hash over configuration, tokenizer and weights, in hexadecimal (32 digits): two models
    /// with the same digest answer the same. Files of a directory are hashed once per process
    /// as long as their size and time stay the same.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn digest(&self) -> Result<String> {
        let mut digest = blake3::Hasher::new();
        for name in self.names().iter().filter(|name| decides_answers(name)) {
            digest.update(name.as_bytes());
            digest.update(&[0]);
            let hash = match &self.place {
                Place::Embedded(_) => blake3::hash(&self.require(name)?),
                Place::Directory(path) => self.file_hash(path, name)?,
            };
            digest.update(hash.as_bytes());
        }
        Ok(digest.finalize().to_hex()[..32].to_string())
    }

    fn file_hash(&self, directory: &Path, name: &str) -> Result<blake3::Hash> {
        type Key = (PathBuf, u64, Option<SystemTime>);
        static HASHES: OnceLock<Mutex<HashMap<Key, blake3::Hash>>> = OnceLock::new();
        let path = directory.join(name);
        let meta = std::fs::metadata(&path)
            .map_err(|e| Error::io(format!("reading {}", path.display()), e))?;
        let key = (path, meta.len(), meta.modified().ok());
        let hashes = HASHES.get_or_init(Mutex::default);
        let known = hashes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
            .copied();
        if let Some(hash) = known {
            return Ok(hash);
        }
        let content = if meta.len() == 0 {
            Content::Static(&[])
        } else {
            self.map(name)?
        };
        let hash = blake3::hash(&content);
        hashes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, hash);
        Ok(hash)
    }
}

fn decides_answers(file: &str) -> bool {
    const FILES: &[&str] = &[
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "model.safetensors.index.json",
        "adapter_config.json",
    ];
    FILES.contains(&file) || file.ends_with(".safetensors")
}

/// Parses a JSON file of a model.
pub(crate) fn json(files: &ModelFiles, file: &str, content: &[u8]) -> Result<serde_json::Value> {
    serde_json::from_slice(content).map_err(|e| {
        Error::new(
            ErrorKind::Corrupt,
            format!(
                "{} is not valid JSON ({e}); fetch the file again",
                files.describe(file)
            ),
        )
        .with_source(e)
    })
}
