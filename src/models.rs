//! Which model a name means, loaded once and shared.
//!
//! Names are looked up in this order: a `[models]` entry, `builtin:tiny`, a directory or GGUF file, a
//! hub id.
//! (`ask` and `compare` also accept LORA tables and adapter directories.)

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use casebook_llm::{ChatOptions, Engine, EngineOptions, ModelSource};
use tokio::sync::{Mutex, OnceCell};

use crate::error::{Error, ErrorKind, Result};
use crate::generator::Generator;
use crate::remote::{Endpoints, Keeping, RemoteSpec, SCHEME};

/// Name of the model used when none is named.
pub(crate) const DEFAULT_MODEL: &str = "default";
/// Source of the bundled model.
pub(crate) const BUILTIN_TINY: &str = "builtin:tiny";

/// One `[models.NAME]` entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSpec {
    /// `builtin:tiny`, a directory in Hugging Face layout, a GGUF file, or a hub id.
    pub source: String,
    /// `auto`, `cpu` or `cuda:N`.
    pub device: String,
    /// `f32`, `bf16`, `f16`; absent: f32 on CPU, bf16 on CUDA.
    pub dtype: Option<String>,
    /// A PEFT adapter directory applied on top.
    pub adapter: Option<PathBuf>,
    /// What its prompts and replies are like.
    pub chat: ChatOptions,
    /// The endpoint of a model that is not in this process.
    pub remote: Option<Arc<RemoteSpec>>,
}

impl ModelSpec {
    /// A model by source, with the default device and number type.
    pub fn new(source: impl Into<String>) -> Self {
        Self {
            source: source.into(),
            device: "auto".into(),
            dtype: None,
            adapter: None,
            chat: ChatOptions::default(),
            remote: None,
        }
    }

    /// A model behind an endpoint.
    pub fn remote(remote: RemoteSpec) -> Self {
        Self {
            remote: Some(Arc::new(remote)),
            ..Self::new(SCHEME)
        }
    }

    /// The model as messages and plans name it.
    pub fn shown(&self) -> String {
        match (&self.remote, &self.adapter) {
            (Some(remote), _) => format!("{} at {}", remote.model(), remote.host()),
            (None, None) => self.source.clone(),
            (None, Some(adapter)) => format!("{} + {}", self.source, adapter.display()),
        }
    }

    /// Refuses a model that is not in this process for `what`, which needs one.
    pub(crate) fn local(&self, what: &str) -> Result<&Self> {
        match &self.remote {
            None => Ok(self),
            Some(remote) => Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "{what} needs a model in this process, and {} is behind {}; name another",
                    remote.model(),
                    remote.host()
                ),
            )),
        }
    }
}

type Slot = Arc<OnceCell<Engine>>;

/// The models of a session.
#[derive(Debug, Default)]
pub struct Models {
    named: RwLock<BTreeMap<String, ModelSpec>>,
    loaded: Mutex<HashMap<Key, Slot>>,
    endpoints: Endpoints,
}

/// Everything that makes two engines different.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    source: String,
    device: String,
    dtype: Option<String>,
    adapter: Option<(PathBuf, Option<std::time::SystemTime>)>,
    chat: ChatOptions,
}

impl Key {
    /// True if `other` is this adapter before it was trained again: its weights need not stay in
    /// memory beside these.
    fn replaces(&self, other: &Self) -> bool {
        match (&self.adapter, &other.adapter) {
            (Some((own, time)), Some((place, before))) => own == place && time != before,
            _ => false,
        }
    }
}

impl Models {
    /// Adds or replaces a `[models]` entry.
    pub fn insert(&self, name: impl Into<String>, spec: ModelSpec) {
        let mut named = self.named.write().unwrap_or_else(|e| e.into_inner());
        named.insert(name.into(), spec);
    }

    /// True if `name` is a `[models]` entry.
    pub fn contains(&self, name: &str) -> bool {
        self.named
            .read()
            .unwrap_or_else(|e| e.into_inner())
            .contains_key(name)
    }

    /// What `name` means. Touches no file but the directory entry itself.
    pub fn spec(&self, name: &str) -> Result<ModelSpec> {
        self.spec_beside(name, &Vec::new)
    }

    /// [`Models::spec`] where the `tables` would have been meant as well.
    fn spec_beside(&self, name: &str, tables: &dyn Fn() -> Vec<String>) -> Result<ModelSpec> {
        let named = self.named.read().unwrap_or_else(|e| e.into_inner());
        if let Some(spec) = named.get(name) {
            if let Some(remote) = &spec.remote {
                self.endpoints.allowed(remote)?;
            }
            return Ok(spec.clone());
        }
        if name == DEFAULT_MODEL {
            return Ok(ModelSpec::new(BUILTIN_TINY));
        }
        let file = || name.ends_with(".gguf") && Path::new(name).is_file();
        let place = || Path::new(name).is_dir() || file();
        if name.starts_with("builtin:")
            || name.starts_with(SCHEME)
            || place()
            || looks_like_hub_id(name)
        {
            source(name)?;
            return Ok(ModelSpec::new(name));
        }
        let mut valid: Vec<&str> = named.keys().map(String::as_str).collect();
        valid.push(BUILTIN_TINY);
        let tables = tables();
        valid.extend(tables.iter().map(String::as_str));
        Err(Error::unknown("model", name, &valid).hint(
            "A model is a [models] entry, builtin:tiny, a directory with config.json, a GGUF file, or \
             a hub id.",
        ))
    }

    /// What `name` means where a tuned model is meant as well: `tuned`, the LORA table of that name
    /// if there is one, then an adapter directory (on the default model), else [`Models::spec`].
    /// `tables` lists the names of LORA tables, for the error.
    pub(crate) fn tuned_or_named(
        &self,
        name: &str,
        tuned: Option<ModelSpec>,
        tables: &dyn Fn() -> Vec<String>,
    ) -> Result<ModelSpec> {
        if let Some(tuned) = tuned {
            return Ok(tuned);
        }
        if !self.contains(name) && Path::new(name).join("adapter_config.json").exists() {
            let base = self.spec(DEFAULT_MODEL)?;
            return Ok(ModelSpec {
                adapter: Some(name.into()),
                ..base
                    .local("an adapter directory, which goes on the default model,")?
                    .clone()
            });
        }
        self.spec_beside(name, tables)
    }

    /// Refuses a model that [`Models::engine`] could not load, as far as that shows without reading
    /// its weights. One of a hub is not fetched for that, and one behind an endpoint not asked.
    pub(crate) async fn check(&self, spec: &ModelSpec) -> Result<()> {
        if let Some(remote) = &spec.remote {
            return self.endpoints.check(remote);
        }
        let (source, options) = (source(&spec.source)?, options(spec)?);
        if matches!(source, ModelSource::Hub { .. }) {
            return Ok(());
        }
        let checked = tokio::task::spawn_blocking(move || Engine::check(&source, &options)).await;
        checked
            .map_err(|e| Error::new(ErrorKind::Internal, format!("looking at a model: {e}")))?
            .map_err(Error::from)
    }

    /// The model that answers for `spec`, ready on first use.
    pub(crate) async fn generator(&self, spec: &ModelSpec) -> Result<Generator> {
        let Some(remote) = &spec.remote else {
            return Ok(Generator::Local(self.engine(spec).await?));
        };
        let (model, replies) = self.endpoints.open(remote).await?;
        Ok(Generator::Remote(model, replies))
    }

    /// Makes sure that the model answers, if it is behind an endpoint: it is asked a word, unless its
    /// revision is given.
    pub(crate) async fn reach(&self, spec: &ModelSpec) -> Result<()> {
        match &spec.remote {
            Some(remote) => self.endpoints.reach(remote).await.map(drop),
            None => Ok(()),
        }
    }

    /// Forbids models behind endpoints from now on: no document leaves this process for one.
    pub fn forbid_remote(&self) {
        self.endpoints.forbid();
    }

    /// Keeps the replies of models behind endpoints that name no file in `path`, as long as the
    /// returned guard lives.
    pub(crate) fn keep_replies(&self, path: PathBuf) -> Keeping<'_> {
        self.endpoints.keep_replies(path)
    }

    /// The engine for `spec`, loaded on first use off the async threads.
    pub async fn engine(&self, spec: &ModelSpec) -> Result<Engine> {
        spec.local("an engine")?;
        let adapter = spec
            .adapter
            .as_ref()
            .map(|dir| (dir.clone(), modified(dir)));
        let key = Key {
            source: spec.source.clone(),
            device: spec.device.clone(),
            dtype: spec.dtype.clone(),
            adapter,
            chat: spec.chat.clone(),
        };
        let slot = {
            let mut loaded = self.loaded.lock().await;
            loaded.retain(|other, _| !key.replaces(other));
            Arc::clone(loaded.entry(key).or_default())
        };
        let engine = slot
            .get_or_try_init(|| async {
                let source = source(&spec.source)?;
                let options = options(spec)?;
                tokio::task::spawn_blocking(move || Engine::load(&source, options))
                    .await
                    .map_err(|e| {
                        Error::new(ErrorKind::Internal, format!("model loading stopped: {e}"))
                    })?
                    .map_err(Error::from)
            })
            .await?;
        Ok(engine.clone())
    }
}

/// True if the files of `source` come from a hub: minutes and gigabytes, unless they were fetched
/// before.
pub(crate) fn is_fetched(text: &str) -> Result<bool> {
    Ok(matches!(source(text)?, ModelSource::Hub { .. }))
}

/// The llm crate's source for a source string.
pub(crate) fn source(text: &str) -> Result<ModelSource> {
    if text.starts_with(SCHEME) {
        return Err(Error::invalid(
            "a model behind an endpoint has no files; it needs an entry in [models] of \
             casebook.toml, with source and model, and goes by the name of that",
        ));
    }
    if text == BUILTIN_TINY {
        return Ok(ModelSource::Embedded {
            name: casebook_tiny::NAME,
            files: casebook_tiny::FILES,
        });
    }
    if let Some(other) = text.strip_prefix("builtin:") {
        return Err(Error::unknown("bundled model", other, &["tiny"]));
    }
    if Path::new(text).exists() || !looks_like_hub_id(text) {
        return Ok(ModelSource::Directory(PathBuf::from(text)));
    }
    Ok(ModelSource::Hub {
        repo: text.to_owned(),
        revision: None,
    })
}

fn options(spec: &ModelSpec) -> Result<EngineOptions> {
    Ok(EngineOptions {
        device: spec
            .device
            .parse()
            .map_err(|e: casebook_llm::Error| Error::from(e))?,
        dtype: spec
            .dtype
            .as_deref()
            .map(casebook_llm::parse_dtype)
            .transpose()?,
        adapter: spec.adapter.clone(),
        chat: spec.chat.clone(),
        ..EngineOptions::default()
    })
}

/// `owner/name`, as the hub spells it; anything that looks like a path is not one.
fn looks_like_hub_id(text: &str) -> bool {
    let mut parts = text.split('/');
    let (owner, name) = (parts.next(), parts.next());
    let plain = |s: Option<&str>| {
        s.is_some_and(|s| !s.is_empty() && !s.starts_with('.') && !s.contains(['\\', ':', ' ']))
    };
    plain(owner) && plain(name) && parts.next().is_none() && !Path::new(text).exists()
}

fn modified(dir: &Path) -> Option<std::time::SystemTime> {
    std::fs::metadata(dir.join("adapter_config.json"))
        .and_then(|m| m.modified())
        .ok()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn an_adapter_that_was_trained_again_takes_the_place_of_itself() {
        let key = |adapter: Option<(&str, u64)>| Key {
            source: BUILTIN_TINY.into(),
            device: "auto".into(),
            dtype: None,
            chat: ChatOptions::default(),
            adapter: adapter.map(|(dir, secs)| {
                let time = SystemTime::UNIX_EPOCH + Duration::from_secs(secs);
                (PathBuf::from(dir), Some(time))
            }),
        };
        let new = key(Some(("out/a", 2)));
        assert!(new.replaces(&key(Some(("out/a", 1)))));
        for other in [None, Some(("out/a", 2)), Some(("out/b", 1))] {
            assert!(!new.replaces(&key(other)), "{other:?}");
        }
        assert!(!key(None).replaces(&new));
    }
}
