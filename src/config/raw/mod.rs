//! casebook.toml as it is typed: its sections and their keys.

mod job;
mod remote;
mod value;

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::document::{Fault, Keys, Node, Section, Value, unknown_key};

pub(super) use job::{RawArgument, RawJob};
#[cfg(test)]
pub(super) use job::{RawCompare, RawTrain};
pub(super) use remote::RawRemote;
pub(super) use value::RawValue;
use value::{all, values};

/// Most models, connections, tables, profiles or jobs of a file.
const MOST_SECTIONS: usize = 10_000;

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
                for (name, node) in entries {
                    let title = format!("[{section}.{name}]");
                    if ["connections", "tables"].contains(section) {
                        note_options(&title, "", node, &mut lines);
                    }
                    lines.insert(title, node.line);
                }
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

/// Notes the lines of the keys below `node`, each under `title` and the option that it is.
fn note_options(title: &str, above: &str, node: &Node, lines: &mut BTreeMap<String, usize>) {
    let Value::Table(keys) = &node.value else {
        return;
    };
    for (key, node) in keys {
        let option = match (above, &**key) {
            ("", "options") => String::new(),
            ("", key) => key.to_owned(),
            (above, key) => format!("{above}.{key}"),
        };
        note_options(title, &option, node, lines);
        lines.insert(format!("{title} {option}"), node.line);
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
    if entries.keys().len() > MOST_SECTIONS {
        let what = format!(
            "the file has {} sections [{section}.NAME]; the most is {MOST_SECTIONS}, because every \
             command looks at all of them",
            entries.keys().len()
        );
        return Err(Fault::new(node.line, what));
    }
    for (name, node) in entries.keys() {
        if name.contains(char::is_control) {
            let what = format!("a name in [{section}] has a control character; write another");
            return Err(Fault::new(node.line, what));
        }
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
    /// False: no document leaves for a model behind an endpoint
    pub(super) allow_remote: Option<bool>,
}

impl RawSession {
    pub(super) const KEYS: &[&str] = &["memory_limit", "allow_remote"];

    fn read(node: &Node) -> Result<Self, Fault> {
        let section = Section::new("[session]".to_owned(), node, Self::KEYS)?;
        Ok(Self {
            memory_limit: section.text("memory_limit")?,
            allow_remote: section.flag("allow_remote")?,
        })
    }
}

/// A model.
pub(super) struct RawModel {
    /// `builtin:tiny`, a directory, a hub id, or `openai:` with the URL of an endpoint
    pub(super) source: String,
    /// `auto` (default), `cpu` or `cuda:N`
    pub(super) device: Option<String>,
    /// `f32`, `bf16` or `f16`
    pub(super) dtype: Option<String>,
    /// A PEFT adapter directory applied on top
    pub(super) adapter: Option<PathBuf>,
    /// Texts that end a reply, beside the tokens that do
    pub(super) stop: Option<Vec<String>>,
    /// Lets a model think before it answers; what it thinks is cut off (default: false)
    pub(super) enable_thinking: Option<bool>,
    /// The date that a chat template is told, such as "2024-07-26" (the default)
    pub(super) prompt_date: Option<String>,
    /// What is said of an endpoint
    pub(super) remote: RawRemote,
}

impl RawModel {
    /// Keys of a model in this process.
    pub(super) const KEYS: &[&str] = &[
        "source",
        "device",
        "dtype",
        "adapter",
        "stop",
        "enable_thinking",
        "prompt_date",
    ];

    fn read(title: String, node: &Node) -> Result<Self, Fault> {
        let section = Section::new(title, node, &[Self::KEYS, RawRemote::KEYS].concat())?;
        Ok(Self {
            source: section.needed(
                "source",
                "builtin:tiny, a directory, a hub id or openai: with the URL of an endpoint",
            )?,
            device: section.text("device")?,
            dtype: section.text("dtype")?,
            adapter: section.path("adapter")?,
            stop: section.texts("stop")?,
            enable_thinking: section.flag("enable_thinking")?,
            prompt_date: section.text("prompt_date")?,
            remote: RawRemote::read(&section)?,
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
    pub(super) const KEYS: &[&str] = &[
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

    /// The keys that are given and mean something for documents alone.
    pub(super) fn document_keys(&self) -> impl Iterator<Item = &'static str> {
        let given = [
            ("id", self.id.is_some()),
            ("text", self.text.is_some()),
            ("title", self.title.is_some()),
            ("keep", self.keep.is_some()),
        ];
        given
            .into_iter()
            .filter_map(|(key, given)| given.then_some(key))
    }
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

/// The value at `key`, which somebody else checks.
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
                .wrong(key, "is a time, which no key here takes")
                .what;
            return Err(Fault::new(node.line, what));
        }
    })
}
