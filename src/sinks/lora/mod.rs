//! `STORED AS LORA`: a table of training examples whose INSERT leaves an adapter behind.
//!
//! ```sql
//! CREATE EXTERNAL TABLE tuned STORED AS LORA LOCATION 'adapters/cases'
//! OPTIONS ('lora.model' 'default', 'lora.rank' '16');
//! INSERT INTO tuned (question, answer) SELECT question, answer FROM qa WHERE status = 'ok';
//! ```
//!
//! LOCATION is the adapter directory: `adapter_config.json` and `adapter_model.safetensors`
//! appear when training is done, `run/` holds examples, settings, log and checkpoints.

mod sink;
mod spool;
mod table;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use casebook_llm::lora::{LoraSettings, RunMode, holds_run};
use datafusion::catalog::{Session, TableProvider, TableProviderFactory};
use datafusion::error::Result;
use datafusion::logical_expr::CreateExternalTable;

use super::Sink;
use crate::context::Casebook;
use crate::error::Error;
use crate::models::{DEFAULT_MODEL, ModelSpec};

pub use table::LoraTable;

/// Its `STORED AS` name.
pub(crate) const FORMAT: &str = "LORA";

/// Registration.
pub(crate) const SINK: Sink = Sink {
    name: FORMAT,
    factory: |casebook| Arc::new(LoraFactory(Arc::clone(casebook))),
};

/// Keys beside those of the trainer.
const OWN_KEYS: &[&str] = &["model", "mode", "profile"];

/// Values of `lora.mode`.
const MODES: &[(&str, RunMode)] = &[
    ("new", RunMode::New),
    ("resume", RunMode::Resume),
    ("overwrite", RunMode::Overwrite),
    ("resume_or_overwrite", RunMode::ResumeOrOverwrite),
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
    /// Refuses a directory that holds a run which `mode` would not touch.
    pub fn check_free(&self) -> crate::Result<()> {
        if self.mode == RunMode::New && holds_run(&self.directory) {
            return Err(Error::invalid(format!(
                "{} holds another training run; say OPTIONS ('lora.mode' 'resume') to go on with \
                 it, 'resume_or_overwrite' to start anew if anything changed, INSERT OVERWRITE to \
                 start anew, or choose another LOCATION",
                self.directory.display()
            )));
        }
        Ok(())
    }

    /// The base model with this table's adapter.
    pub fn tuned(&self) -> ModelSpec {
        ModelSpec {
            adapter: Some(self.directory.clone()),
            ..self.base.clone()
        }
    }

    fn parse(cmd: &CreateExternalTable, casebook: &Casebook) -> crate::Result<Self> {
        let name = &cmd.name;
        let [location] = &cmd.locations[..] else {
            return Err(Error::invalid(format!(
                "LORA table {name} needs exactly one LOCATION"
            )));
        };
        if location.contains("://") && !location.starts_with("file://") {
            return Err(Error::new(
                crate::ErrorKind::Unsupported,
                format!(
                    "LORA table {name}: '{location}' is not a local directory; train locally and \
                     copy the adapter"
                ),
            ));
        }
        let mut out = Self {
            directory: Path::new(location.trim_start_matches("file://")).to_path_buf(),
            base: casebook.models.spec(DEFAULT_MODEL)?,
            profile: "general".into(),
            settings: LoraSettings::default(),
            mode: RunMode::New,
        };
        let mut keys: Vec<&String> = cmd.options.keys().collect();
        keys.sort();
        for key in keys {
            let value = &cmd.options[key];
            let bare = key.strip_prefix("format.").unwrap_or(key);
            let bare = bare.strip_prefix("lora.").unwrap_or(bare);
            match bare {
                "model" => out.base = casebook.models.spec(value)?,
                "profile" => out.profile.clone_from(value),
                "mode" => {
                    let mode = MODES.iter().find(|(name, _)| name == value);
                    let valid: Vec<&str> = MODES.iter().map(|(name, _)| *name).collect();
                    out.mode = mode
                        .map(|(_, mode)| *mode)
                        .ok_or_else(|| Error::unknown("value of lora.mode", value, &valid))?;
                }
                key if LoraSettings::KEYS.contains(&key) => out.settings.set(key, value)?,
                key => {
                    let mut valid = OWN_KEYS.to_vec();
                    valid.extend(LoraSettings::KEYS);
                    let valid: Vec<String> = valid.iter().map(|k| format!("lora.{k}")).collect();
                    let valid: Vec<&str> = valid.iter().map(String::as_str).collect();
                    let what = format!("option of LORA table {name}:");
                    return Err(Error::unknown(&what, &format!("lora.{key}"), &valid));
                }
            }
        }
        out.settings.validate()?;
        Ok(out)
    }
}

#[derive(Debug)]
struct LoraFactory(Arc<Casebook>);

#[async_trait]
impl TableProviderFactory for LoraFactory {
    async fn create(
        &self,
        _: &dyn Session,
        cmd: &CreateExternalTable,
    ) -> Result<Arc<dyn TableProvider>> {
        let options = LoraOptions::parse(cmd, &self.0)?;
        Ok(Arc::new(LoraTable::new(options, Arc::clone(&self.0))))
    }
}
