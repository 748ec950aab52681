//! The options of a LORA table: what they mean, and whether they are right.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use casebook_llm::lora::{self, LoraSettings, PromptForm, RunMode, SETTINGS};
use datafusion::logical_expr::CreateExternalTable;

use crate::context::Casebook;
use crate::error::{Error, ErrorKind, Result};
use crate::models::{self, DEFAULT_MODEL, ModelSpec};
use crate::profiles;

/// Stands before the keys.
const PREFIX: &str = "lora.";
/// The profile of examples with a document.
const PROFILE: &str = "general";

/// Keys beside those of the trainer: what they mean, what absence means, what they may be.
const OWN: &[(&str, &str, &str, &str)] = &[
    (
        "model",
        "base model; one without an adapter",
        DEFAULT_MODEL,
        "a [models] entry, builtin:tiny, a directory or a hub id",
    ),
    (
        "profile",
        "profile whose prompts examples with a document are trained with",
        PROFILE,
        "one of `casebook profiles`",
    ),
    (
        "mode",
        "what INSERT does with a training run that is in LOCATION: resume goes on with it, or \
         leaves it if it is done, and refuses another one; resume_or_overwrite starts anew then; \
         overwrite always starts anew; new refuses any",
        "resume",
        "resume, resume_or_overwrite, overwrite, new",
    ),
];

/// Values of `lora.mode`.
const MODES: &[(&str, RunMode)] = &[
    ("resume", RunMode::Resume),
    ("resume_or_overwrite", RunMode::ResumeOrOverwrite),
    ("overwrite", RunMode::Overwrite),
    ("new", RunMode::New),
];

/// What a LORA table was declared with.
#[derive(Debug, Clone)]
pub struct LoraOptions {
    /// The adapter directory.
    pub directory: PathBuf,
    /// The base model.
    pub base: ModelSpec,
    /// Profile whose prompts examples with a document take.
    pub profile: String,
    /// Settings of the trainer.
    pub settings: LoraSettings,
    /// What to do with a run that is there.
    pub mode: RunMode,
}

impl LoraOptions {
    /// Refuses what training would refuse whatever the examples are: a base that is not there, a
    /// directory that holds another run. One of a hub is not fetched for that.
    ///
    /// # Errors
    /// What is wrong, and the option that mends it.
    pub async fn check(&self, casebook: &Arc<Casebook>) -> Result<()> {
        match models::is_fetched(&self.base.source)? {
            true => Ok(()),
            false => self.ready(casebook).await.map(drop),
        }
    }

    /// The same, with a base of a hub fetched: the prompts of examples with a document, those of the
    /// profile as the model overlays it.
    pub(crate) async fn ready(&self, casebook: &Arc<Casebook>) -> Result<PromptForm> {
        let (options, casebook) = (self.clone(), Arc::clone(casebook));
        let checked = tokio::task::spawn_blocking(move || {
            check_no_model(&options.directory)?;
            let base = models::source(&options.base.source)?;
            let form = options.form(&casebook)?;
            let (settings, mode) = (&options.settings, options.mode);
            lora::check(&options.directory, &base, settings, &form, mode)?;
            Ok(form)
        });
        checked.await.map_err(|e| {
            Error::new(
                ErrorKind::Internal,
                format!("looking at a training run: {e}"),
            )
        })?
    }

    /// Blocks, and may fetch.
    fn form(&self, casebook: &Casebook) -> Result<PromptForm> {
        let overlay = profiles::overlay(&self.base)?;
        let profile = profiles::resolve(casebook, &self.profile, overlay.as_deref())?;
        Ok(PromptForm {
            system: Some(profile.system),
            answer: profile.answer,
            chat: self.base.chat.clone(),
        })
    }

    /// The base model with this table's adapter.
    pub fn tuned(&self) -> ModelSpec {
        ModelSpec {
            adapter: Some(self.directory.clone()),
            ..self.base.clone()
        }
    }

    /// What `cmd` declares.
    pub(super) fn parse(cmd: &CreateExternalTable, casebook: &Casebook) -> Result<Self> {
        let name = cmd.name.to_string();
        let [location] = &cmd.locations[..] else {
            return Err(wrong(&name, "needs exactly one LOCATION"));
        };
        let local = location.strip_prefix("file://").unwrap_or(location);
        if local.contains("://") {
            let what = format!(
                "'{location}' is not a local directory; train locally and copy the adapter"
            );
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("LORA table {name}: {what}"),
            ));
        }
        let given = given(&name, &cmd.options)?;
        let value = |key: &str| given.get(key).copied();
        let model = value("model").unwrap_or(DEFAULT_MODEL);
        let base = casebook.models.spec(model)?;
        base.local(&format!("training the LORA table {name}"))?;
        if base.adapter.is_some() {
            let what = format!(
                "the model '{model}' has an adapter, which training would leave out; name its base"
            );
            return Err(wrong(&name, &what));
        }
        let profile = value("profile").unwrap_or(PROFILE);
        // A name that is none is told now, not after the examples were made.
        profiles::resolve(casebook, profile, None)?;
        Ok(Self {
            directory: Path::new(local).to_path_buf(),
            base,
            profile: profile.to_owned(),
            settings: settings(&name, &given)?,
            mode: mode(&name, value("mode"))?,
        })
    }
}

/// What training leaves in its directory, and what people and programs that pass models on put there.
const ADAPTER_FILES: &[&str] = &[
    "run",
    "adapter_config.json",
    "adapter_model.safetensors",
    "README.md",
];
/// Files that make a directory that of a model.
const MODEL_FILES: &[&str] = &["config.json", "tokenizer.json", "model.safetensors"];
/// Names that a warning lists.
const LISTED: usize = 3;

/// An adapter in the directory of a model would change what that model is.
fn check_no_model(directory: &Path) -> Result<()> {
    match MODEL_FILES
        .iter()
        .find(|name| directory.join(name).exists())
    {
        Some(name) => Err(Error::invalid(format!(
            "{} holds {name}, so it is the directory of a model, and an adapter there would change \
             what that model is; choose a directory of its own",
            directory.display()
        ))),
        None => Ok(()),
    }
}

/// What to say of a directory that holds other things than an adapter; none if it does not.
pub(super) fn others_in(directory: &Path) -> Option<String> {
    let entries = std::fs::read_dir(directory).ok()?.flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names
        .filter(|name| !name.starts_with('.') && !ADAPTER_FILES.contains(&&**name))
        .collect();
    names.sort();
    let more = match names.len().saturating_sub(LISTED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    names.truncate(LISTED);
    (!names.is_empty()).then(|| {
        format!(
            "the directory {} of an adapter also holds {}{more}: programs that load the adapter see \
             them too; a directory of its own is better",
            directory.display(),
            names.join(", ")
        )
    })
}

/// Checks the options of the table `name` as far as nothing else is needed for it.
pub(super) fn check(name: &str, options: &HashMap<String, String>) -> Result<()> {
    let given = given(name, options)?;
    settings(name, &given)?;
    mode(name, given.get("mode").copied()).map(drop)
}

/// The options by their keys without prefix.
fn given<'a>(
    name: &str,
    options: &'a HashMap<String, String>,
) -> Result<BTreeMap<&'a str, &'a str>> {
    let valid = || {
        OWN.iter()
            .map(|(key, ..)| *key)
            .chain(SETTINGS.iter().map(|s| s.key))
    };
    let mut out = BTreeMap::new();
    let sorted: BTreeMap<&String, &String> = options.iter().collect();
    for (key, value) in sorted {
        // DataFusion puts this before keys without a dot.
        let bare = key.strip_prefix("format.").unwrap_or(key);
        let bare = bare.strip_prefix(PREFIX).unwrap_or(bare);
        if !valid().any(|known| known == bare) {
            let valid: Vec<String> = valid().map(|key| format!("{PREFIX}{key}")).collect();
            let valid: Vec<&str> = valid.iter().map(String::as_str).collect();
            let what = format!("option of LORA table {name}:");
            return Err(Error::unknown(&what, &format!("{PREFIX}{bare}"), &valid));
        }
        if out.insert(bare, value.as_str()).is_some() {
            let what = format!("the option {PREFIX}{bare} is given twice; keep one");
            return Err(wrong(name, &what));
        }
    }
    Ok(out)
}

fn settings(name: &str, given: &BTreeMap<&str, &str>) -> Result<LoraSettings> {
    let mut settings = LoraSettings::default();
    let failed = |e: casebook_llm::Error| wrong(name, &e.to_string());
    for spec in SETTINGS {
        if let Some(value) = given.get(spec.key) {
            settings.set(spec.key, value).map_err(failed)?;
        }
    }
    settings.validate().map_err(failed)?;
    Ok(settings)
}

fn mode(name: &str, value: Option<&str>) -> Result<RunMode> {
    let Some(value) = value else {
        return Ok(RunMode::Resume);
    };
    let mode = MODES.iter().find(|(name, _)| *name == value);
    mode.map(|(_, mode)| *mode).ok_or_else(|| {
        let valid: Vec<&str> = MODES.iter().map(|(name, _)| *name).collect();
        let unknown = Error::unknown("value of lora.mode", value, &valid);
        wrong(name, &unknown.to_string())
    })
}

fn wrong(name: &str, what: &str) -> Error {
    Error::invalid(format!("LORA table {name}: {what}"))
}

/// The options as a table of Markdown, for the documentation.
pub fn reference() -> String {
    let default = LoraSettings::default();
    let own = OWN.iter().map(|(key, doc, default, limits)| {
        format!("| `{PREFIX}{key}` | {doc} | {limits} | {default} |\n")
    });
    let settings = SETTINGS.iter().map(|spec| {
        let (key, doc, limits) = (spec.key, spec.doc, &spec.limits);
        let default = default.get(key);
        format!("| `{PREFIX}{key}` | {doc} | {limits} | {default} |\n")
    });
    let head = "| option | meaning | values | default |\n|---|---|---|---|\n";
    own.chain(settings)
        .fold(head.to_owned(), |out, row| out + &row)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(pairs: &[(&str, &str)]) -> std::result::Result<(), String> {
        let pairs = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        check("tuned", &pairs.collect()).map_err(|e| e.to_string())
    }

    #[test]
    fn every_option_is_taken_or_refused_by_name() {
        for spec in SETTINGS {
            let key = format!("lora.{}", spec.key);
            let default = LoraSettings::default().get(spec.key);
            checked(&[(&key, &default)]).unwrap();
            let error = checked(&[(&key, "hunter2")]).unwrap_err();
            assert!(
                error.contains("LORA table tuned") && error.contains(spec.key),
                "{error}"
            );
            assert!(!error.contains("hunter2"), "{error}");
        }
        for (pairs, part) in [
            (&[("lora.rnak", "8")][..], "Did you mean 'lora.rank'?"),
            (&[("lora.mode", "resum")], "Did you mean 'resume'?"),
            (&[("lora.mode", "hunter2")], "unknown value of lora.mode."),
            (
                &[("rank", "8"), ("lora.rank", "9")],
                "lora.rank is given twice",
            ),
            (
                &[("lora.rank", "-2")],
                "is '-2'; expected a whole number from 1 to 1024",
            ),
            (
                &[("lora.rank", "2000")],
                "is 2000; it must be a whole number from 1 to 1024",
            ),
            (&[("write.key", "x")], "unknown option of LORA table tuned"),
        ] {
            let error = checked(pairs).unwrap_err();
            assert!(
                error.contains(part) && !error.contains("hunter2"),
                "{error}"
            );
        }
        checked(&[("format.rank", "8"), ("mode", "new")]).unwrap();
    }

    #[test]
    fn an_adapter_has_a_directory_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        assert_eq!(others_in(&at("none")), None);
        for name in [".hidden", "adapter_config.json", "README.md"] {
            std::fs::write(at(name), "x").unwrap();
        }
        std::fs::create_dir(at("run")).unwrap();
        assert_eq!(others_in(dir.path()), None);
        check_no_model(dir.path()).unwrap();
        for name in ["d", "b", "c", "a"] {
            std::fs::write(at(name), "x").unwrap();
        }
        let notice = others_in(dir.path()).unwrap();
        assert!(
            notice.contains("also holds a, b, c and 1 more:"),
            "{notice}"
        );
        for name in MODEL_FILES {
            std::fs::write(at(name), "x").unwrap();
            let error = check_no_model(dir.path()).unwrap_err().to_string();
            assert!(error.contains(&format!("holds {name}")), "{error}");
            std::fs::remove_file(at(name)).unwrap();
        }
    }

    #[test]
    fn a_base_is_one() {
        let casebook = Casebook::default();
        let with_adapter = ModelSpec {
            adapter: Some("a".into()),
            ..ModelSpec::new("builtin:tiny")
        };
        casebook.models.insert("done", with_adapter);
        let parse = |key: &str, value: &str| {
            let cmd = CreateExternalTable::builder(
                datafusion::common::TableReference::bare("tuned"),
                "x".to_owned(),
                "LORA".to_owned(),
                Arc::new(datafusion::common::DFSchema::empty()),
            )
            .with_options(HashMap::from([(key.to_owned(), value.to_owned())]))
            .build();
            LoraOptions::parse(&cmd, &casebook).map_err(|e| e.to_string())
        };
        assert!(
            parse("lora.model", "done")
                .unwrap_err()
                .contains("has an adapter")
        );
        assert!(
            parse("lora.profile", "legl")
                .unwrap_err()
                .contains("'legal'")
        );
        assert_eq!(parse("lora.profile", "legal").unwrap().profile, "legal");
        assert_eq!(parse("lora.mode", "new").unwrap().mode, RunMode::New);
        assert_eq!(parse("lora.rank", "8").unwrap().mode, RunMode::Resume);
    }
}
