//! casebook.toml as it is typed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    /// `[session]`
    #[serde(default)]
    pub(super) session: RawSession,
    /// `[models.NAME]`
    #[serde(default)]
    pub(super) models: BTreeMap<String, RawModel>,
    /// `[connections.NAME]`
    #[serde(default)]
    pub(super) connections: BTreeMap<String, RawConnection>,
    /// `[tables.NAME]`
    #[serde(default)]
    pub(super) tables: BTreeMap<String, RawTable>,
    /// `[profiles.NAME]`, an overlay that the qa crate checks
    #[serde(default)]
    pub(super) profiles: BTreeMap<String, toml::Table>,
    /// `[jobs.NAME]`
    #[serde(default)]
    pub(super) jobs: BTreeMap<String, RawJob>,
}

/// The program's session.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSession {
    /// Memory of sorting, joining and grouping, such as "4G"; absent: half of what there is
    pub(super) memory_limit: Option<String>,
}

/// A model.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawModel {
    /// `builtin:tiny`, a directory, or a hub id
    pub(super) source: String,
    /// `auto` (default), `cpu` or `cuda:N`
    pub(super) device: Option<String>,
    /// `f32`, `bf16` or `f16`
    pub(super) dtype: Option<String>,
    /// A PEFT adapter directory applied on top
    pub(super) adapter: Option<PathBuf>,
}

/// A table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTable {
    /// As in STORED AS; needs a location
    pub(super) format: Option<String>,
    /// A path or URL
    pub(super) location: Option<String>,
    /// A connection; needs a table
    pub(super) connection: Option<String>,
    /// The table as the connection's system names it
    pub(super) table: Option<String>,
    /// As in OPTIONS
    #[serde(default)]
    pub(super) options: BTreeMap<String, RawValue>,
    /// Column that identifies a document
    pub(super) id: Option<String>,
    /// Column that holds the text
    pub(super) text: Option<String>,
    /// Columns rendered above the text
    pub(super) title: Option<Vec<String>>,
    /// Columns passed through
    pub(super) keep: Option<Vec<String>>,
}

/// The value of an option.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum RawValue {
    /// true or false
    Flag(bool),
    /// A whole number
    Integer(i64),
    /// A number
    Float(f64),
    /// Text
    Text(String),
    /// Keys below this one
    Table(BTreeMap<String, RawValue>),
}

impl RawValue {
    /// As OPTIONS take it.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Flag(value) => value.to_string(),
            Self::Integer(value) => value.to_string(),
            Self::Float(value) => value.to_string(),
            Self::Text(value) => value.clone(),
            // Tables are flattened to dotted keys before their values are asked for.
            Self::Table(_) => String::new(),
        }
    }
}

/// A connection. Its keys are checked by the connector.
#[derive(Debug, Deserialize)]
pub(super) struct RawConnection {
    /// A connector, such as databricks
    #[serde(rename = "type")]
    pub(super) kind: String,
    /// Its options
    #[serde(flatten)]
    pub(super) options: BTreeMap<String, RawValue>,
}

/// A job.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawJob {
    /// A table of documents
    pub(super) source: String,
    /// The table that takes the pairs
    pub(super) target: String,
    /// A model; absent: `default`
    pub(super) model: Option<String>,
    /// A profile; absent: `general`
    pub(super) profile: Option<String>,
    /// Further arguments of docs_to_qa
    #[serde(default)]
    pub(super) arguments: BTreeMap<String, RawValue>,
    /// Share of rows that may fail in the engine
    pub(super) error_budget: Option<f64>,
    /// Directory of result.json and compare.html; absent: out/NAME
    pub(super) output: Option<PathBuf>,
    /// Train on the accepted pairs
    pub(super) train: Option<RawTrain>,
    /// Compare base and tuned model
    pub(super) compare: Option<RawCompare>,
}

/// The training of a job.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTrain {
    /// A table with format = "lora"
    pub(super) target: String,
    /// A table of further examples
    pub(super) also: Option<String>,
    /// Share of the accepted pairs that are not trained; absent: 0
    pub(super) holdout_share: Option<f64>,
}

/// The comparison of a job.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCompare {
    /// Trained questions with a paraphrase
    pub(super) probes: Option<String>,
    /// Questions on other documents, with the document
    pub(super) held_out: Option<String>,
    /// Unrelated questions
    pub(super) control: Option<String>,
    /// Questions per set; absent: 500
    pub(super) max_questions: Option<usize>,
    /// The page; absent: compare.html in the output directory
    pub(super) html: Option<PathBuf>,
}
