//! Values of options as they are typed: of them nothing here knows which are secrets.

use std::collections::BTreeMap;
use std::fmt;

use casebook_connectors::Secret;

use super::super::document::{Fault, Node, Section, Value};
use super::super::shown;

/// The value of an option.
pub(in crate::config) enum RawValue {
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
    pub(in crate::config) fn text(&self) -> String {
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
pub(super) fn values(
    section: &Section<'_>,
    key: &str,
) -> Result<BTreeMap<String, RawValue>, Fault> {
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

pub(super) fn all(section: &Section<'_>) -> Result<BTreeMap<String, RawValue>, Fault> {
    let mut out = BTreeMap::new();
    for (name, node) in section.keys() {
        out.insert(name.clone(), RawValue::read(section, name, node)?);
    }
    Ok(out)
}
