//! casebook.toml as it is typed: its sections and their keys.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use casebook_connectors::Secret;

use super::document::{Fault, Keys, Node, Section, Value, unknown_key};
use super::shown;

/// Most rows of one set that a comparison asks both models about.
const MOST_QUESTIONS: usize = 1_000_000;

/// The whole file.
#[derive(Default)]
pub(super) struct Raw {
    /// `[session]`
    pub(super) session: RawSession,
    /// `[models.NAME]`
    pub(super) models: BTreeMap<String, RawModel>,
    /// `[connections.NAME]`
    pub(super) connections: BTreeMap<String, RawConnection>,
    /// `[tables.NAME]`
    pub(super) tables: BTreeMap<String, RawTable>,
    /// `[profiles.NAME]`, an overlay that the qa crate checks
    pub(super) profiles: BTreeMap<String, toml::Table>,
    /// `[jobs.NAME]`
    pub(super) jobs: BTreeMap<String, RawJob>,
    /// Where each section begins, by its title.
    pub(super) lines: BTreeMap<String, usize>,
}

impl Raw {
    const SECTIONS: &[&str] = &[
        "session",
        "models",
        "connections",
        "tables",
        "profiles",
        "jobs",
    ];

    /// Reads the sections of a file.
    pub(super) fn read(keys: &Keys) -> Result<Self, Fault> {
        for (key, node) in keys {
            if !Self::SECTIONS.contains(&key.as_str()) {
                return Err(unknown_key("", key, node.line, Self::SECTIONS));
            }
        }
        let mut lines = BTreeMap::new();
        for section in &Self::SECTIONS[1..] {
            if let Some(Node {
                value: Value::Table(entries),
                ..
            }) = keys.get(*section)
            {
                let titles = entries.iter();
                lines.extend(titles.map(|(name, node)| (format!("[{section}.{name}]"), node.line)));
            }
        }
        let session = keys.get("session").map(|node| {
            lines.insert("[session]".to_owned(), node.line);
            RawSession::read(node)
        });
        Ok(Self {
            lines,
            session: session.transpose()?.unwrap_or_default(),
            models: named(keys, "models", RawModel::read)?,
            connections: named(keys, "connections", RawConnection::read)?,
            tables: named(keys, "tables", RawTable::read)?,
            profiles: named(keys, "profiles", profile)?,
            jobs: named(keys, "jobs", RawJob::read)?,
        })
    }
}

/// `[SECTION.NAME]` for every name. Two that differ by case alone are one name to SQL.
fn named<T>(
    keys: &Keys,
    section: &str,
    read: impl Fn(String, &Node) -> Result<T, Fault>,
) -> Result<BTreeMap<String, T>, Fault> {
    let Some(node) = keys.get(section) else {
        return Ok(BTreeMap::new());
    };
    let entries = Section::open(format!("[{section}]"), node)?;
    let mut lower: BTreeMap<String, (&str, usize)> = BTreeMap::new();
    let mut out = BTreeMap::new();
    for (name, node) in entries.keys() {
        let title = format!("[{section}.{name}]");
        if name.trim().is_empty() {
            let what = format!("{title} has no name");
            return Err(Fault::new(node.line, what));
        }
        if let Some((other, line)) = lower.insert(name.to_lowercase(), (name, node.line)) {
            let what = format!(
                "{title} and [{section}.{other}] of line {line} differ by case alone, and SQL \
                 reads both as the same name; rename one"
            );
            return Err(Fault::new(node.line, what));
        }
        out.insert(name.clone(), read(title, node)?);
    }
    Ok(out)
}

/// The program's session.
#[derive(Default)]
pub(super) struct RawSession {
    /// Memory of sorting, joining and grouping, such as "4G"; absent: half of what there is
    pub(super) memory_limit: Option<String>,
}

impl RawSession {
    const KEYS: &[&str] = &["memory_limit"];

    fn read(node: &Node) -> Result<Self, Fault> {
        let section = Section::new("[session]".to_owned(), node, Self::KEYS)?;
        Ok(Self {
            memory_limit: section.text("memory_limit")?,
        })
    }
}

/// A model.
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

impl RawModel {
    const KEYS: &[&str] = &["source", "device", "dtype", "adapter"];

    fn read(title: String, node: &Node) -> Result<Self, Fault> {
        let section = Section::new(title, node, Self::KEYS)?;
        Ok(Self {
            source: section.needed("source", "builtin:tiny, a directory or a hub id")?,
            device: section.text("device")?,
            dtype: section.text("dtype")?,
            adapter: section.path("adapter")?,
        })
    }
}

/// A table.
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

impl RawTable {
    const KEYS: &[&str] = &[
        "format",
        "location",
        "connection",
        "table",
        "options",
        "id",
        "text",
        "title",
        "keep",
    ];

    fn read(title: String, node: &Node) -> Result<Self, Fault> {
        let section = Section::new(title, node, Self::KEYS)?;
        Ok(Self {
            format: section.text("format")?,
            location: section.text("location")?,
            connection: section.text("connection")?,
            table: section.text("table")?,
            options: values(&section, "options")?,
            id: section.text("id")?,
            text: section.text("text")?,
            title: section.texts("title")?,
            keep: section.texts("keep")?,
        })
    }
}

/// The value of an option.
pub(super) enum RawValue {
    /// true or false
    Flag(bool),
    /// A whole number
    Integer(i64),
    /// A number
    Float(f64),
    /// Text, of which nothing here knows whether it is a secret
    Text(Secret),
    /// Keys below this one
    Table(BTreeMap<String, RawValue>),
}

impl RawValue {
    fn read(section: &Section<'_>, key: &str, node: &Node) -> Result<Self, Fault> {
        Ok(match &node.value {
            Value::Flag(flag) => Self::Flag(*flag),
            Value::Integer(number) => Self::Integer(*number),
            Value::Float(number) => Self::Float(*number),
            Value::Text(text) => Self::Text(Secret::new(text.as_str())),
            Value::Table(_) => {
                let below = Section::open(format!("option {}", shown::key(key)), node)?;
                Self::Table(all(&below)?)
            }
            other => {
                let what = format!(
                    "is {}; expected text in quotes, a number, true or false",
                    other.kind()
                );
                let fault = section.wrong(key, &what);
                return Err(Fault::new(node.line, fault.what));
            }
        })
    }

    /// As OPTIONS take it.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Flag(value) => value.to_string(),
            Self::Integer(value) => value.to_string(),
            Self::Float(value) => value.to_string(),
            Self::Text(value) => value.expose().to_owned(),
            // Tables are flattened to dotted keys before their values are asked for.
            Self::Table(_) => String::new(),
        }
    }
}

impl fmt::Debug for RawValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The options of a section at `key`.
fn values(section: &Section<'_>, key: &str) -> Result<BTreeMap<String, RawValue>, Fault> {
    match section.keys().get(key) {
        None => Ok(BTreeMap::new()),
        Some(node) => {
            let fault = |_| section.wrong(key, "expected a table of options");
            let below = Section::open(key.to_owned(), node).map_err(fault)?;
            let mut out = BTreeMap::new();
            for (name, node) in below.keys() {
                out.insert(name.clone(), RawValue::read(section, name, node)?);
            }
            Ok(out)
        }
    }
}

fn all(section: &Section<'_>) -> Result<BTreeMap<String, RawValue>, Fault> {
    let mut out = BTreeMap::new();
    for (name, node) in section.keys() {
        out.insert(name.clone(), RawValue::read(section, name, node)?);
    }
    Ok(out)
}

/// A connection. Its keys are checked by the connector.
pub(super) struct RawConnection {
    /// A connector, such as databricks
    pub(super) kind: String,
    /// Its options
    pub(super) options: BTreeMap<String, RawValue>,
}

impl RawConnection {
    fn read(title: String, node: &Node) -> Result<Self, Fault> {
        let section = Section::open(title, node)?;
        let kind = section.needed("type", "the connector, such as \"databricks\"")?;
        let mut options = all(&section)?;
        options.remove("type");
        Ok(Self { kind, options })
    }
}

/// A profile: any keys, of which the qa crate knows the valid ones.
fn profile(title: String, node: &Node) -> Result<toml::Table, Fault> {
    let section = Section::open(title, node)?;
    let mut out = toml::Table::new();
    for (key, node) in section.keys() {
        out.insert(key.clone(), toml_value(&section, key, node)?);
    }
    Ok(out)
}

fn toml_value(section: &Section<'_>, key: &str, node: &Node) -> Result<toml::Value, Fault> {
    Ok(match &node.value {
        Value::Flag(flag) => toml::Value::Boolean(*flag),
        Value::Integer(number) => toml::Value::Integer(*number),
        Value::Float(number) => toml::Value::Float(*number),
        Value::Text(text) => toml::Value::String(text.clone()),
        Value::List(items) => {
            let items = items.iter().map(|item| toml_value(section, key, item));
            toml::Value::Array(items.collect::<Result<_, _>>()?)
        }
        Value::Table(inner) => {
            let mut table = toml::Table::new();
            for (name, node) in inner {
                table.insert(name.clone(), toml_value(section, key, node)?);
            }
            toml::Value::Table(table)
        }
        Value::Time => {
            let what = section
                .wrong(key, "is a time, which no key of a profile takes")
                .what;
            return Err(Fault::new(node.line, what));
        }
    })
}

/// A job.
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
    pub(super) arguments: BTreeMap<String, RawArgument>,
    /// Share of rows that may fail in the engine
    pub(super) error_budget: Option<f64>,
    /// Directory of result.json and compare.html; absent: out/NAME
    pub(super) output: Option<PathBuf>,
    /// Train on the accepted pairs
    pub(super) train: Option<RawTrain>,
    /// Compare base and tuned model
    pub(super) compare: Option<RawCompare>,
}

impl RawJob {
    const KEYS: &[&str] = &[
        "source",
        "target",
        "model",
        "profile",
        "arguments",
        "error_budget",
        "output",
        "train",
        "compare",
    ];

    fn read(title: String, node: &Node) -> Result<Self, Fault> {
        let section = Section::new(title, node, Self::KEYS)?;
        Ok(Self {
            source: section.needed("source", "a table of documents")?,
            target: section.needed("target", "the table that takes the pairs")?,
            model: section.text("model")?,
            profile: section.text("profile")?,
            arguments: arguments(&section)?,
            error_budget: section.share("error_budget", 0.0..=1.0, "a share from 0 to 1")?,
            output: section.path("output")?,
            train: RawTrain::read(&section)?,
            compare: RawCompare::read(&section)?,
        })
    }
}

/// An argument of docs_to_qa: shown by `--dry-run`, so no secret.
#[derive(Debug)]
pub(super) enum RawArgument {
    /// A text, to be quoted in SQL
    Text(String),
    /// A number, or true or false
    Plain(String),
}

fn arguments(job: &Section<'_>) -> Result<BTreeMap<String, RawArgument>, Fault> {
    let Some(node) = job.keys().get("arguments") else {
        return Ok(BTreeMap::new());
    };
    let Value::Table(keys) = &node.value else {
        return Err(job.wrong("arguments", "expected a table of arguments of docs_to_qa"));
    };
    let mut out = BTreeMap::new();
    for (key, node) in keys {
        let named = |part: &str| {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
            !part.is_empty() && part.chars().all(plain)
        };
        // A key goes into SQL as it stands.
        if !key.split('.').all(named) {
            let what = format!("the argument {} is no name of one", shown::key(key));
            return Err(Fault::new(node.line, job.wrong("arguments", &what).what));
        }
        let value = match &node.value {
            Value::Flag(flag) => RawArgument::Plain(flag.to_string()),
            Value::Integer(number) => RawArgument::Plain(number.to_string()),
            Value::Float(number) if number.is_finite() => RawArgument::Plain(number.to_string()),
            Value::Text(text) => RawArgument::Text(text.clone()),
            other => {
                let what = format!(
                    "{} is {}; expected text in quotes, a number, true or false",
                    shown::key(key),
                    other.kind()
                );
                return Err(Fault::new(node.line, job.wrong("arguments", &what).what));
            }
        };
        out.insert(key.clone(), value);
    }
    Ok(out)
}

/// The training of a job.
pub(super) struct RawTrain {
    /// A table with format = "lora"
    pub(super) target: String,
    /// A table of further examples
    pub(super) also: Option<String>,
    /// Share of the accepted pairs that are not trained; absent: 0
    pub(super) holdout_share: Option<f64>,
}

impl RawTrain {
    const KEYS: &[&str] = &["target", "also", "holdout_share"];

    fn read(job: &Section<'_>) -> Result<Option<Self>, Fault> {
        let Some(section) = job.below("train", Self::KEYS)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            target: section.needed("target", "a table with format = \"lora\"")?,
            also: section.text("also")?,
            holdout_share: section.share("holdout_share", 0.0..1.0, "a share from 0 to below 1")?,
        }))
    }
}

/// The comparison of a job.
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

impl RawCompare {
    const KEYS: &[&str] = &["probes", "held_out", "control", "max_questions", "html"];

    fn read(job: &Section<'_>) -> Result<Option<Self>, Fault> {
        let Some(section) = job.below("compare", Self::KEYS)? else {
            return Ok(None);
        };
        let why = "each is answered twice and kept in memory";
        Ok(Some(Self {
            probes: section.text("probes")?,
            held_out: section.text("held_out")?,
            control: section.text("control")?,
            max_questions: section.count("max_questions", 1..=MOST_QUESTIONS, why)?,
            html: section.path("html")?,
        }))
    }
}
