//! OPTIONS of CREATE EXTERNAL TABLE: strict, dotted keys.
//!
//! DataFusion lower-cases keys and puts `format.` before those without a dot, so both spellings
//! arrive here. Keys of the object stores are those of the object_store crate under `aws.`,
//! `azure.`, `gcp.` and `http.`.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fmt;

use crate::connector::Connector;
use crate::error::{Error, Result};
use crate::secret::Secret;

/// Prefixes of object-store keys.
pub(crate) const STORE_PREFIXES: &[&str] = &["aws.", "azure.", "gcp.", "http."];

/// Options sorted by whom they are for. Own options may be secrets, so Debug shows keys only.
#[derive(Default)]
pub(crate) struct TableOptions {
    /// Keys of the connector itself.
    pub(crate) own: BTreeMap<&'static str, String>,
    /// Keys of the object store, with their prefix; values may be credentials.
    pub(crate) store: BTreeMap<String, Secret>,
    /// `format.*` keys, which DataFusion checks.
    pub(crate) format: HashMap<String, String>,
}

impl fmt::Debug for TableOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.own.keys().copied();
        let keys = keys.chain(self.store.keys().map(String::as_str));
        f.debug_set()
            .entries(keys.chain(self.format.keys().map(String::as_str)))
            .finish()
    }
}

/// True for connectors whose tables are files, to which DataFusion's `format.*` keys apply.
fn has_format(connector: &Connector) -> bool {
    matches!(connector.name, "CSV" | "PARQUET" | "JSON")
}

impl TableOptions {
    /// Sorts `given`; an unknown key is an error that lists the valid ones.
    pub(crate) fn parse(
        connector: &Connector,
        table: &str,
        given: &HashMap<String, String>,
    ) -> Result<Self> {
        let mut out = Self::default();
        let mut keys: Vec<&String> = given.keys().collect();
        keys.sort();
        for key in keys {
            let value = given[key].clone();
            let bare = key.strip_prefix("format.").unwrap_or(key);
            if let Some(spec) = connector
                .options
                .iter()
                .find(|o| o.key == key || o.key == bare)
            {
                match spec.key.starts_with("format.") {
                    true => drop(out.format.insert(spec.key.to_owned(), value)),
                    false => drop(out.own.insert(spec.key, value)),
                }
            } else if STORE_PREFIXES.iter().any(|p| bare.starts_with(p)) {
                out.store.insert(bare.to_owned(), Secret::new(value));
            } else if key.starts_with("format.") && has_format(connector) {
                out.format.insert(key.clone(), value);
            } else {
                let mut valid: Vec<&str> = connector.options.iter().map(|o| o.key).collect();
                valid.extend(["aws.*", "azure.*", "gcp.*", "http.*"]);
                if has_format(connector) {
                    valid.push("format.*");
                }
                let what = format!("option of {} table {table}:", connector.name);
                return Err(Error::unknown(&what, bare, &valid));
            }
        }
        Ok(out)
    }

    /// The value of one of the connector's keys.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.own.get(key).map(String::as_str)
    }
}

/// Parses `value` of `key`, saying what was expected.
pub(crate) fn parse_value<T: std::str::FromStr>(
    key: &str,
    value: &str,
    expected: &str,
) -> Result<T> {
    value
        .parse()
        .map_err(|_| Error::invalid(format!("option {key} is '{value}'; expected {expected}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::CONNECTORS;

    fn parse(name: &str, pairs: &[(&str, &str)]) -> Result<TableOptions> {
        let connector = CONNECTORS.iter().find(|c| c.name == name).unwrap();
        let given = pairs
            .iter()
            .map(|(k, v)| ((*k).into(), (*v).into()))
            .collect();
        TableOptions::parse(connector, "t", &given)
    }

    #[test]
    fn sorts_keys_and_hides_credentials() {
        let options = parse(
            "CSV",
            &[
                ("csv.max_cell_bytes", "9"),
                ("format.delimiter", ";"),
                ("aws.secret_access_key", "hunter2"),
            ],
        )
        .unwrap();
        assert_eq!(options.get("csv.max_cell_bytes"), Some("9"));
        assert_eq!(options.format["format.delimiter"], ";");
        assert!(!format!("{options:?}").contains("hunter2"));
    }

    #[test]
    fn unknown_keys_list_the_valid_ones() {
        let error = parse("DELTA", &[("write.keys", "x")])
            .unwrap_err()
            .to_string();
        assert!(error.contains("Did you mean 'write.key'?"), "{error}");
        assert!(error.contains("table.create"), "{error}");
        assert!(parse("DELTA", &[("format.foo", "x")]).is_err());
    }
}
