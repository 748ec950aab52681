//! Where the files of a model come from: a directory, a GGUF file, the program itself, or the hub.
//!
//! Says nothing about what is in the files, except for the digest over those that decide what
//! the model answers.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use super::content::{Content, check_readable, check_regular, map_file};
use super::gguf::{Gguf, MAGIC};
use crate::{Error, ErrorKind, Result};

/// A model by place.
#[derive(Debug, Clone)]
pub enum ModelSource {
    /// A directory as `save_pretrained` writes it, a GGUF file, or a directory with one.
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

/// Files that are taken from beside a GGUF file if they are there: what the model's authors wrote
/// says more than what a converter made of it.
const BESIDE_GGUF: &[&str] = &[
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "chat_template.jinja",
    "casebook-profile.toml",
];

#[derive(Debug, Clone)]
enum Place {
    Directory(PathBuf),
    /// One file for everything; the directory is its own, if that was named.
    Gguf {
        file: Gguf,
        path: PathBuf,
        directory: Option<PathBuf>,
    },
    Embedded(&'static [(&'static str, &'static [u8])]),
}

impl ModelFiles {
    fn directory(name: String, path: PathBuf) -> Result<Self> {
        let meta = std::fs::metadata(&path)
            .map_err(|e| Error::io(format!("opening model directory {}", path.display()), e))?;
        let (file, directory) = match meta.is_dir() {
            true => (lone_gguf(&path)?, Some(path.clone())),
            false => (Some(path.clone()), None),
        };
        let Some(file) = file else {
            let place = Place::Directory(path);
            return Ok(Self { name, place });
        };
        let place = Place::Gguf {
            file: open_gguf(&file)?,
            path: file,
            directory,
        };
        Ok(Self { name, place })
    }

    /// The model's GGUF file, if it is one.
    pub(crate) fn gguf(&self) -> Option<&Gguf> {
        match &self.place {
            Place::Gguf { file, .. } => Some(file),
            _ => None,
        }
    }

    /// Where a file is, for messages.
    pub fn describe(&self, file: &str) -> String {
        match &self.place {
            Place::Directory(path) => path.join(file).display().to_string(),
            Place::Gguf { path, .. } if self.beside(file).is_none() => {
                format!("{file} out of {}", path.display())
            }
            Place::Gguf { path, .. } => path.with_file_name(file).display().to_string(),
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
            Place::Directory(path) => self.read_path(file, &path.join(file)),
            Place::Gguf { file: gguf, .. } => match self.beside(file) {
                Some(path) => self.read_path(file, &path),
                None => Ok(gguf.file(file)?.map(Content::Owned)),
            },
        }
    }

    fn read_path(&self, file: &str, path: &Path) -> Result<Option<Content>> {
        check_readable(path)?;
        match std::fs::read(path) {
            Ok(bytes) => Ok(Some(Content::Owned(bytes))),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io(format!("reading {}", self.describe(file)), e)),
        }
    }

    /// A file beside a GGUF file that is read instead of what that holds.
    fn beside(&self, file: &str) -> Option<PathBuf> {
        let Place::Gguf {
            directory: Some(directory),
            ..
        } = &self.place
        else {
            return None;
        };
        let path = directory.join(file);
        (BESIDE_GGUF.contains(&file) && path.is_file()).then_some(path)
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
            Place::Embedded(_) | Place::Gguf { .. } => self.require(file),
            Place::Directory(path) => self.map_path(file, &path.join(file)),
        }
    }

    fn map_path(&self, file: &str, full: &Path) -> Result<Content> {
        check_regular(full)?;
        let handle = File::open(full).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => self.missing(file),
            _ => Error::io(format!("opening {}", full.display()), e),
        })?;
        map_file(&handle, full)
    }

    /// Whether the model has a file.
    pub fn has(&self, file: &str) -> bool {
        match &self.place {
            Place::Embedded(files) => files.iter().any(|(name, _)| *name == file),
            Place::Directory(path) => path.join(file).is_file(),
            Place::Gguf { .. } => self.beside(file).is_some() || Gguf::FILES.contains(&file),
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
            Place::Gguf { path, .. } => {
                let beside = BESIDE_GGUF
                    .iter()
                    .filter(|file| self.beside(file).is_some());
                let own = path.file_name().unwrap_or(path.as_os_str());
                beside
                    .map(|file| (*file).to_string())
                    .chain([own.to_string_lossy().into_owned()])
                    .collect()
            }
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
                Place::Directory(path) => self.file_hash(&path.join(name), name)?,
                Place::Gguf { path, .. } => {
                    self.file_hash(&self.beside(name).unwrap_or_else(|| path.clone()), name)?
                }
            };
            digest.update(hash.as_bytes());
        }
        Ok(digest.finalize().to_hex()[..32].to_string())
    }

    fn file_hash(&self, path: &Path, name: &str) -> Result<blake3::Hash> {
        type Key = (PathBuf, u64, Option<SystemTime>);
        static HASHES: OnceLock<Mutex<HashMap<Key, blake3::Hash>>> = OnceLock::new();
        let meta = std::fs::metadata(path)
            .map_err(|e| Error::io(format!("reading {}", path.display()), e))?;
        let key = (path.to_path_buf(), meta.len(), meta.modified().ok());
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
            self.map_path(name, path)?
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
    FILES.contains(&file) || file.ends_with(".safetensors") || file.ends_with(GGUF_ENDING)
}

const GGUF_ENDING: &str = ".gguf";

/// The GGUF file of a directory that has no weights of another kind.
fn lone_gguf(directory: &Path) -> Result<Option<PathBuf>> {
    let reading = |e| Error::io(format!("reading {}", directory.display()), e);
    let mut found = vec![];
    for entry in std::fs::read_dir(directory).map_err(reading)? {
        let path = entry.map_err(reading)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".safetensors") {
            return Ok(None);
        }
        if name.ends_with(GGUF_ENDING) {
            found.push(path);
        }
    }
    found.sort();
    match found.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one.clone())),
        several => Err(Error::invalid_input(format!(
            "model {} has {} GGUF files; name one of them: {}",
            directory.display(),
            several.len(),
            several
                .iter()
                .map(|path| path.display().to_string())
                .collect::<Vec<_>>()
                .join(", ")
        ))),
    }
}

fn open_gguf(path: &Path) -> Result<Gguf> {
    use std::io::Read;

    let reading = |e| Error::io(format!("opening {}", path.display()), e);
    check_regular(path)?;
    let mut file = File::open(path).map_err(reading)?;
    let regular = file.metadata().map_err(reading)?.is_file();
    let mut first = [0; 4];
    if !regular || file.read(&mut first).map_err(reading)? < 4 || &first != MAGIC {
        return Err(Error::invalid_input(format!(
            "model {} is a file, but no GGUF file; name a GGUF file, or the directory that holds \
             config.json",
            path.display()
        )));
    }
    Gguf::read(path.display().to_string(), map_file(&file, path)?)
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
