//! `[connections]` and `[tables]`: which table of which system a name means.
//!
//! A table names either a `format` with its `location`, or a `connection` with the `table` there. The
//! keys of a connection are those of its connector's options without the connector's name:
//! `host` of a connection of type databricks is the option `databricks.host`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use casebook_connectors::{CONNECTORS, CheckRequest, Connector, GivenOptions, shown as location};
use datafusion::common::TableReference;
use datafusion::logical_expr::CreateExternalTable;
use datafusion::prelude::SessionContext;

use super::Config;
use super::hidden::Hidden;
use super::raw::{RawTable, RawValue};
use super::shown;
use crate::error::{Error, Result};
use crate::sinks::SINKS;

/// Where a table is. Debug shows no credentials.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// As in STORED AS, upper case.
    pub(super) format: String,
    /// As in LOCATION.
    pub(super) location: String,
    /// As in OPTIONS.
    pub(super) options: GivenOptions,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place")
            .field("format", &self.format)
            .field("location", &location(&self.location))
            .field("options", &self.options)
            .finish()
    }
}

impl Config {
    /// Names of the tables that [`Config::register_tables`] makes, in the order of the file's keys.
    pub fn table_names(&self) -> impl Iterator<Item = &str> {
        self.raw.tables.keys().map(String::as_str)
    }

    /// Makes the `[tables]` of the file known in `ctx`. Each is opened by the first statement that
    /// names it: none is contacted here.
    pub fn register_tables(&self, ctx: &SessionContext) -> Result<()> {
        let mut tables = vec![];
        for (name, table) in &self.raw.tables {
            let place = self.place(name, table)?;
            // Not as SQL text: options hold credentials, and texts end up in messages.
            let statement = CreateExternalTable::builder(
                TableReference::bare(name.as_str()),
                place.location,
                place.format,
                std::sync::Arc::new(datafusion::common::DFSchema::empty()),
            )
            .with_options((*place.options).clone())
            .build();
            tables.push(statement);
        }
        crate::catalog::declare(ctx, &self.origin.display().to_string(), tables)
    }

    /// What `casebook check` tries for the table `name` before it opens it; none for a target of the
    /// program's own, which is on this machine.
    ///
    /// # Errors
    /// An unknown name; the message lists the valid ones.
    pub fn check_request(&self, name: &str) -> Result<Option<(&'static Connector, CheckRequest)>> {
        let Some(table) = self.raw.tables.get(name) else {
            let valid: Vec<&str> = self.table_names().collect();
            return Err(Error::unknown("table", name, &valid));
        };
        let place = self.place(name, table)?;
        let connector = CONNECTORS.iter().find(|c| c.name == place.format).copied();
        Ok(connector.map(|connector| {
            let request = CheckRequest {
                location: place.location,
                options: place.options,
                write: false,
            };
            (connector, request)
        }))
    }

    /// References between sections must be to something that exists, and options be known.
    pub(super) fn check_tables(&self) -> Result<()> {
        for (name, connection) in &self.raw.connections {
            let title = format!("[connections.{name}]");
            let Some(connector) = connector(&connection.kind) else {
                let valid: Vec<String> = CONNECTORS.iter().map(|c| c.name.to_lowercase()).collect();
                let valid: Vec<&str> = valid.iter().map(String::as_str).collect();
                let what = shown::not_one_of("type", &connection.kind, &valid);
                return Err(self.wrong(&title, &what));
            };
            let options = self.options_of(&title, connector, &connection.options)?;
            let check = |options: &GivenOptions| connector.check_options(name, options);
            self.check_options(&title, &options, check)?;
        }
        for (name, table) in &self.raw.tables {
            let place = self.place(name, table)?;
            let title = format!("[tables.{name}]");
            if let Some(connector) = connector(&place.format) {
                let check = |options: &GivenOptions| connector.check_options(name, options);
                self.check_options(&title, &place.options, check)?;
            }
            if let Some(sink) = SINKS.iter().find(|sink| sink.name == place.format) {
                let check = |options: &GivenOptions| (sink.check)(name, options);
                self.check_options(&title, &place.options, check)?;
                if let Some(key) = table.document_keys().next() {
                    let what = format!(
                        "{key} has no effect: it is for tables of documents, which docs_to_qa \
                         reads, and a {} table is none",
                        sink.name
                    );
                    return Err(self.wrong(&title, &what));
                }
            }
        }
        Ok(())
    }

    /// Whose options they are checks keys and values; a key that is none is not quoted.
    fn check_options<E: fmt::Display>(
        &self,
        title: &str,
        options: &GivenOptions,
        check: impl Fn(&GivenOptions) -> Result<(), E>,
    ) -> Result<()> {
        check(options).map_err(|e| {
            let mut message = e.to_string();
            // The option that is wrong whatever the others are.
            let alone = options.iter().find(|(key, value)| {
                let mut alone = GivenOptions::default();
                alone.insert((*key).clone(), (*value).clone());
                check(&alone).is_err_and(|e| e.to_string() == message)
            });
            let line = alone.and_then(|(key, _)| self.line_of_option(title, key));
            for key in options
                .keys()
                .filter(|key| shown::key(key) != format!("'{key}'"))
            {
                message = message.replace(&format!("'{key}'"), &shown::key(key));
            }
            match line {
                Some(line) => self.wrong_in(line, title, &message),
                None => self.wrong(title, &message),
            }
        })
    }

    /// Where the option `key` of the section `title` is; in a connection it has a short name.
    fn line_of_option(&self, title: &str, key: &str) -> Option<usize> {
        let short = key.split_once('.').map(|(_, own)| own);
        let names = [Some(key), short].into_iter().flatten();
        let mut lines = names.map(|name| self.raw.lines.get(&format!("{title} {name}")));
        lines.find_map(|line| line.copied())
    }

    /// Where the table `name` is.
    pub(super) fn place(&self, name: &str, table: &RawTable) -> Result<Place> {
        let title = format!("[tables.{name}]");
        let wrong = |what: &str| self.wrong(&title, what);
        let mut place = match (&table.connection, &table.format) {
            (Some(connection), None) => self.place_in(&title, connection, table)?,
            (None, Some(format)) => {
                let Some(location) = &table.location else {
                    return Err(wrong("a table with a format needs a location"));
                };
                if table.table.is_some() {
                    return Err(wrong("table goes with connection; write location"));
                }
                Place {
                    format: self.format(format).map_err(|what| wrong(&what))?,
                    location: self.location(location).map_err(wrong)?,
                    options: GivenOptions::default(),
                }
            }
            (Some(_), Some(_)) => {
                return Err(wrong(
                    "has both format and connection; keep format with location, or connection \
                     with table",
                ));
            }
            (None, None) => {
                return Err(wrong(
                    "needs either format and location, or connection and table",
                ));
            }
        };
        // What the table says wins over its connection.
        let mut own = BTreeMap::new();
        for (key, value) in &table.options {
            flatten(key, value, &mut own).map_err(|what| wrong(&what))?;
        }
        place.options.extend(own);
        self.make_room_for_documents(name, &place.format, &mut place.options);
        Ok(place)
    }

    /// A table of a connection.
    fn place_in(&self, title: &str, connection: &str, table: &RawTable) -> Result<Place> {
        let wrong = |what: &str| self.wrong(title, what);
        let Some(found) = self.raw.connections.get(connection) else {
            let valid: Vec<&str> = self.raw.connections.keys().map(String::as_str).collect();
            return Err(wrong(&shown::unknown_name(
                "connection",
                connection,
                &valid,
            )));
        };
        let Some(connector) = connector(&found.kind) else {
            return Err(wrong("its connection has an unknown type"));
        };
        let location = match (&table.table, &table.location) {
            (Some(table), None) => table.clone(),
            (None, Some(location)) => self.location(location).map_err(wrong)?,
            (Some(_), Some(_)) => return Err(wrong("has both table and location; keep one")),
            (None, None) => return Err(wrong("a table of a connection needs table")),
        };
        let options = self.options_of(
            &format!("[connections.{connection}]"),
            connector,
            &found.options,
        )?;
        Ok(Place {
            format: connector.name.to_owned(),
            location,
            options,
        })
    }

    /// The options of a connection by their full names.
    fn options_of(
        &self,
        title: &str,
        connector: &Connector,
        given: &BTreeMap<String, RawValue>,
    ) -> Result<GivenOptions> {
        let prefix = format!("{}.", connector.name.to_lowercase());
        let own = connector.options.iter();
        let own: Vec<&str> = own.filter_map(|o| o.key.strip_prefix(&prefix)).collect();
        let mut out = BTreeMap::new();
        for (key, value) in given {
            let prefixed = format!("{prefix}{key}");
            let known = own.contains(&key.as_str());
            // Against the short names, which are what is typed here.
            let short = !key.contains('.') && !matches!(value, RawValue::Table(_));
            if short
                && !known
                && let Some(near) = shown::nearest(key, &own)
            {
                let what = format!(
                    "has the unknown key {}. Did you mean '{near}'? Valid: {}.",
                    shown::key(key),
                    own.join(", ")
                );
                return Err(match self.line_of_option(title, key) {
                    Some(line) => self.wrong_in(line, title, &what),
                    None => self.wrong(title, &what),
                });
            }
            flatten(if known { &prefixed } else { key }, value, &mut out)
                .map_err(|what| self.wrong(title, &what))?;
        }
        let mut options = GivenOptions::default();
        options.extend(out);
        Ok(options)
    }

    /// A name of STORED AS.
    fn format(&self, format: &str) -> Result<String, String> {
        let upper = format.to_uppercase();
        let formats = || {
            CONNECTORS
                .iter()
                .map(|c| c.name)
                .chain(SINKS.iter().map(|s| s.name))
        };
        match formats().any(|name| name == upper) {
            true => Ok(upper),
            false => {
                let valid: Vec<String> = formats().map(str::to_lowercase).collect();
                let valid: Vec<&str> = valid.iter().map(String::as_str).collect();
                Err(shown::not_one_of("format", format, &valid))
            }
        }
    }

    /// Paths are relative to the file.
    fn location(&self, location: &str) -> Result<String, &'static str> {
        match (location.is_empty(), location.contains("://")) {
            (true, _) => Err("location is empty"),
            (false, true) => Ok(location.to_owned()),
            (false, false) => {
                // A folder is told from a file by its end, which joining keeps.
                let path = self.resolve(Path::new(location));
                Ok(path.to_string_lossy().into_owned())
            }
        }
    }

    /// Takes the values of secret options out of messages.
    pub(super) fn hide_secrets(&self) {
        let connections = self.raw.connections.values().map(|c| &c.options);
        let tables = self.raw.tables.values().map(|t| &t.options);
        for options in connections.chain(tables) {
            hide(options, "", &self.hidden);
        }
    }
}

fn hide(options: &BTreeMap<String, RawValue>, above: &str, hidden: &Hidden) {
    for (name, value) in options {
        let key = format!("{above}{name}");
        match value {
            RawValue::Table(inner) => hide(inner, &format!("{key}."), hidden),
            RawValue::Text(text) if shown::is_secret(&key) => hidden.note(text.expose(), "***"),
            _ => {}
        }
    }
}

pub(super) fn connector(kind: &str) -> Option<&'static Connector> {
    CONNECTORS
        .iter()
        .find(|c| c.name.eq_ignore_ascii_case(kind))
        .copied()
}

/// `aws = { region = "x" }` is the option `aws.region`.
pub(super) fn flatten(
    key: &str,
    value: &RawValue,
    out: &mut BTreeMap<String, String>,
) -> Result<(), String> {
    if let RawValue::Table(inner) = value {
        for (name, value) in inner {
            flatten(&format!("{key}.{name}"), value, out)?;
        }
        return Ok(());
    }
    match out.insert(key.to_owned(), value.text()) {
        None => Ok(()),
        Some(_) => Err(format!(
            "the option {} is given twice, as a dotted key and in a table; keep one",
            shown::key(key)
        )),
    }
}
