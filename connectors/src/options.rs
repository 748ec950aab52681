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

/// Most of an option that counts something, by the unit that its key ends in: beyond it a value is a
/// slip of the keyboard, and sums with it would overflow.
const MOST: &[(&str, u64, &str)] = &[
    ("_bytes", 1 << 40, "1 TiB, more than a machine has memory"),
    ("_secs", 10_000_000, "10 million seconds, about four months"),
    ("_hours", 100_000, "100 thousand hours, about eleven years"),
    ("_rows", 1 << 32, "4 billion rows at once"),
];

/// Options whose values may have lines and special characters: keys in PEM and JSON, what separates
/// cells.
const SPECIAL: &[&str] = &[
    "private_key",
    "service_account",
    "connection_string",
    "delimiter",
    "terminator",
    "quote",
    "escape",
    "comment",
    "null_",
];

/// Options sorted by whom they are for. Debug shows keys only.
#[derive(Default)]
pub(crate) struct TableOptions {
    /// Keys of the connector itself that are no secrets.
    pub(crate) own: BTreeMap<&'static str, String>,
    /// Keys of the connector that must not be printed, by [`OptionSpec::secret`].
    ///
    /// [`OptionSpec::secret`]: crate::connector::OptionSpec::secret
    pub(crate) secrets: BTreeMap<&'static str, Secret>,
    /// Keys of the object store, with their prefix; values may be credentials.
    pub(crate) store: BTreeMap<String, Secret>,
    /// `format.*` keys, which DataFusion checks.
    pub(crate) format: HashMap<String, String>,
}

impl fmt::Debug for TableOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.own.keys().chain(self.secrets.keys()).copied();
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

/// False for connectors whose tables never lie in an object store.
fn has_store(connector: &Connector) -> bool {
    !matches!(connector.name, "ODBC" | "SNOWFLAKE")
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
            check_text(bare, &value)?;
            if let Some(spec) = connector
                .options
                .iter()
                .find(|o| o.key == key || o.key == bare)
            {
                let before = if spec.secret {
                    out.secrets.insert(spec.key, Secret::new(value)).is_some()
                } else if spec.key.starts_with("format.") {
                    out.format.insert(spec.key.to_owned(), value).is_some()
                } else {
                    check_size(spec.key, &value)?;
                    out.own.insert(spec.key, value).is_some()
                };
                if before {
                    return Err(Error::invalid(format!(
                        "the option {} is given twice, with and without format. before it",
                        spec.key
                    )));
                }
            } else if has_store(connector) && STORE_PREFIXES.iter().any(|p| bare.starts_with(p)) {
                out.store.insert(bare.to_owned(), Secret::new(value));
            } else if key.starts_with("format.") && has_format(connector) {
                out.format.insert(key.clone(), value);
            } else {
                let mut valid: Vec<&str> = connector.options.iter().map(|o| o.key).collect();
                if has_store(connector) {
                    valid.extend(["aws.*", "azure.*", "gcp.*", "http.*"]);
                }
                if has_format(connector) {
                    valid.push("format.*");
                }
                let what = format!("option of {} table {table}:", connector.name);
                return Err(Error::unknown(&what, bare, &valid));
            }
        }
        Ok(out)
    }

    /// The value of one of the connector's keys; of a secret one, to be handed on and never shown.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        let own = self.own.get(key).map(String::as_str);
        own.or_else(|| self.secrets.get(key).map(Secret::expose))
    }
}

impl Connector {
    /// Checks the keys of `given`, the options of `table`, and sizes among their values, without
    /// reaching anything.
    ///
    /// # Errors
    /// An unknown key (the message lists the valid ones), or a size beyond reason.
    pub fn check_options(&self, table: &str, given: &HashMap<String, String>) -> Result<()> {
        TableOptions::parse(self, table, given).map(drop)
    }
}

/// Refuses a line break and the like in what goes into one line of a request or of a file's name;
/// most come of a file that holds more than the secret.
fn check_text(key: &str, value: &str) -> Result<()> {
    let may = SPECIAL.iter().any(|part| key.contains(part));
    match may || !value.contains(char::is_control) {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "the value of option {key} has a line break or another control character in it; give \
             one line of text"
        ))),
    }
}

/// Refuses sizes beyond [`MOST`]; what is no whole number is for the connector to refuse.
fn check_size(key: &str, value: &str) -> Result<()> {
    let Some((_, most, reason)) = MOST.iter().find(|(unit, ..)| key.ends_with(unit)) else {
        return Ok(());
    };
    // Digits beyond 128 bits are more than any limit as well.
    let value = value.trim();
    let digits = value.strip_prefix('+').unwrap_or(value);
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    match is_number
        && digits
            .parse::<u128>()
            .map_or(true, |n| n > u128::from(*most))
    {
        true => Err(Error::invalid(format!(
            "option {key} is {digits}; the most is {most} ({reason})"
        ))),
        false => Ok(()),
    }
}

/// Parses `value` of `key`, saying what was expected. What is no number or flag is not shown: it can
/// be a secret that stands in the wrong place.
pub(crate) fn parse_value<T: std::str::FromStr>(
    key: &str,
    value: &str,
    expected: &str,
) -> Result<T> {
    value.parse().map_err(|_| {
        Error::invalid(format!(
            "option {key} is {}; expected {expected}",
            said(value)
        ))
    })
}

/// A wrong value as it may be shown.
pub(crate) fn said(value: &str) -> String {
    let plain = value.parse::<f64>().is_ok() || value.parse::<bool>().is_ok();
    match (plain, value.is_empty()) {
        (true, _) => format!("'{value}'"),
        (false, true) => "empty".to_owned(),
        (false, false) => format!("a text of {} characters", value.chars().count()),
    }
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

    #[test]
    fn secrets_are_kept_apart_for_every_connector() {
        for connector in CONNECTORS {
            for spec in connector.options {
                let options = parse(connector.name, &[(spec.key, "7")]).unwrap();
                assert_eq!(options.secrets.contains_key(spec.key), spec.secret);
                // Those of a file's format go where the format's reader looks.
                if options.format.contains_key(spec.key) {
                    continue;
                }
                assert_eq!(options.own.contains_key(spec.key), !spec.secret);
                assert_eq!(options.get(spec.key), Some("7"), "{}", spec.key);
                assert_eq!(format!("{options:?}"), format!("{{{:?}}}", spec.key));
                let words = [
                    "password",
                    "secret",
                    "token",
                    "private_key",
                    "connection_string",
                ];
                let sounds = words.iter().any(|w| spec.key.contains(w));
                let sounds = sounds && !spec.key.ends_with("_path");
                assert!(spec.secret || !sounds, "{} is not marked secret", spec.key);
            }
        }
    }

    #[test]
    fn a_value_is_one_line_and_given_once() {
        for (name, key) in [
            ("DATABRICKS", "databricks.token"),
            ("DATABRICKS", "databricks.warehouse_id"),
            ("SNOWFLAKE", "snowflake.password"),
            ("SNOWFLAKE", "snowflake.account"),
            ("CSV", "aws.secret_access_key"),
            ("CSV", "write.key"),
        ] {
            for value in ["hunter2\nx", "hunter2\r", "\u{0}hunter2", "a\u{85}hunter2"] {
                let error = parse(name, &[(key, value)]).unwrap_err().to_string();
                assert!(error.contains(key) && !error.contains("hunter2"), "{error}");
            }
            assert!(parse(name, &[(key, "h ünter2")]).is_ok());
        }
        for (name, key) in [
            ("SNOWFLAKE", "snowflake.private_key"),
            ("ODBC", "odbc.connection_string"),
            ("CSV", "gcp.service_account_key"),
            ("CSV", "format.delimiter"),
        ] {
            parse(name, &[(key, "a\nb\t")]).unwrap();
        }
        let twice = [("csv.batch_bytes", "1"), ("format.csv.batch_bytes", "2")];
        let error = parse("CSV", &twice).unwrap_err().to_string();
        assert!(error.contains("csv.batch_bytes is given twice"), "{error}");
    }

    #[test]
    fn sizes_have_an_end() {
        let set = |key: &str, value: &str| parse("CSV", &[(key, value)]);
        for value in ["1099511627776", "+5", "many", "", "-1", "1e3"] {
            assert!(set("csv.batch_bytes", value).is_ok(), "{value}");
        }
        for value in [
            "1099511627777",
            "18446744073709551615",
            " 9223372036854775807",
            &"9".repeat(60),
        ] {
            let error = set("csv.batch_bytes", value).unwrap_err().to_string();
            assert!(
                error.contains("csv.batch_bytes") && error.contains("1 TiB"),
                "{error}"
            );
        }
        // `write.version` counts nothing.
        assert!(set("write.version", "9223372036854775807").is_ok());
    }

    #[test]
    fn a_wrong_value_is_shown_only_if_it_is_plain() {
        let of = |value: &str| {
            parse_value::<u8>("k", value, "a byte")
                .unwrap_err()
                .to_string()
        };
        assert_eq!(of("256"), "option k is '256'; expected a byte");
        assert_eq!(of("true"), "option k is 'true'; expected a byte");
        assert_eq!(of(""), "option k is empty; expected a byte");
        assert_eq!(
            of("hünter2"),
            "option k is a text of 7 characters; expected a byte"
        );
        assert_eq!(parse_value::<u8>("k", "255", "a byte").unwrap(), 255);
    }
}
