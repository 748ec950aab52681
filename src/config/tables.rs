//! `[connections]` and `[tables]`: which table of which system a name means.
//!
//! A table names either a `format` with its `location`, or a `connection` with the `table` there. The
//! keys of a connection are those of its connector's options without the connector's name:
//! `host` of a connection of type databricks is the option `databricks.host`.

use std::collections::HashMap;
use std::path::Path;

use casebook_connectors::{CONNECTORS, CheckRequest, Connector};
use datafusion::common::TableReference;
use datafusion::logical_expr::CreateExternalTable;
use datafusion::prelude::SessionContext;

use super::Config;
use super::raw::{RawTable, RawValue};
use crate::error::{Error, Result};
use crate::sinks::SINKS;

/// Where a table is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// As in STORED AS, upper case.
    pub(super) format: String,
    /// As in LOCATION.
    pub(super) location: String,
    /// As in OPTIONS.
    pub(super) options: HashMap<String, String>,
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
            .with_options(place.options)
            .build();
            tables.push(statement);
        }
        Ok(crate::catalog::declare(
            ctx,
            &self.origin.display().to_string(),
            tables,
        )?)
    }

    /// What `casebook check` tries for the table `name`; none for a training table, which is a
    /// directory of this machine.
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

    /// References between sections must be to something that exists.
    pub(super) fn check_tables(&self) -> Result<()> {
        for (name, connection) in &self.raw.connections {
            if connector(&connection.kind).is_none() {
                let valid: Vec<String> = CONNECTORS.iter().map(|c| c.name.to_lowercase()).collect();
                let valid: Vec<&str> = valid.iter().map(String::as_str).collect();
                let error = Error::unknown("type", &connection.kind, &valid);
                return Err(self.wrong(&format!("[connections.{name}] {error}")));
            }
        }
        for (name, table) in &self.raw.tables {
            self.place(name, table)?;
        }
        Ok(())
    }

    pub(super) fn place(&self, name: &str, table: &RawTable) -> Result<Place> {
        let wrong = |what: String| self.wrong(&format!("[tables.{name}] {what}"));
        let mut place = match (&table.connection, &table.format) {
            (Some(connection), None) => self.place_in(name, connection, table)?,
            (None, Some(format)) => {
                let Some(location) = &table.location else {
                    return Err(wrong("a table with a format needs a location".into()));
                };
                if table.table.is_some() {
                    return Err(wrong("table goes with connection; write location".into()));
                }
                Place {
                    format: self.format(format).map_err(|e| wrong(e.to_string()))?,
                    location: self.location(location),
                    options: HashMap::new(),
                }
            }
            _ => {
                return Err(wrong(
                    "give either format and location, or connection and table".into(),
                ));
            }
        };
        for (key, value) in &table.options {
            flatten(key, value, &mut place.options);
        }
        self.make_room_for_documents(name, &place.format, &mut place.options);
        Ok(place)
    }

    /// A table of a connection.
    fn place_in(&self, name: &str, connection: &str, table: &RawTable) -> Result<Place> {
        let wrong = |what: String| self.wrong(&format!("[tables.{name}] {what}"));
        let Some(found) = self.raw.connections.get(connection) else {
            let valid: Vec<&str> = self.raw.connections.keys().map(String::as_str).collect();
            return Err(wrong(
                Error::unknown("connection", connection, &valid).to_string(),
            ));
        };
        let connector = connector(&found.kind)
            .ok_or_else(|| wrong(format!("no connector '{}'", found.kind)))?;
        let Some(place) = table.table.as_ref().or(table.location.as_ref()) else {
            return Err(wrong("a table of a connection needs table".into()));
        };
        let prefix = format!("{}.", connector.name.to_lowercase());
        let mut options = HashMap::new();
        for (key, value) in &found.options {
            let prefixed = format!("{prefix}{key}");
            let known = connector.options.iter().any(|o| o.key == prefixed);
            flatten(if known { &prefixed } else { key }, value, &mut options);
        }
        Ok(Place {
            format: connector.name.to_owned(),
            location: match table.table.is_some() {
                true => place.clone(),
                false => self.location(place),
            },
            options,
        })
    }

    /// A name of STORED AS.
    fn format(&self, format: &str) -> Result<String> {
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
                Err(Error::unknown("format", format, &valid))
            }
        }
    }

    /// Paths are relative to the file.
    fn location(&self, location: &str) -> String {
        match location.contains("://") {
            true => location.to_owned(),
            false => self
                .resolve(Path::new(location))
                .to_string_lossy()
                .into_owned(),
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
pub(super) fn flatten(key: &str, value: &RawValue, out: &mut HashMap<String, String>) {
    match value {
        RawValue::Table(inner) => {
            for (name, value) in inner {
                flatten(&format!("{key}.{name}"), value, out);
            }
        }
        other => drop(out.insert(key.to_owned(), other.text())),
    }
}
