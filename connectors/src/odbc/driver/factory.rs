//! `CREATE EXTERNAL TABLE ... STORED AS ODBC`: finds the table, or makes it, and asks for its
//! columns once.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session as PlanSession, TableProvider, TableProviderFactory};
use datafusion::logical_expr::CreateExternalTable;
use odbc_api::environment;

use super::columns::Columns;
use super::session::Session;
use super::settings::Settings;
use super::table::OdbcTable;
use crate::connector::{Connector, ConnectorOptions};
use crate::declared;
use crate::error::{Error, ErrorKind, Result};
use crate::options::TableOptions;
use crate::sql::ddl::create_table;

/// Opens or creates the table that a statement names.
#[derive(Debug)]
pub(crate) struct OdbcFactory {
    connector: &'static Connector,
    table_schemas: Vec<(&'static str, SchemaRef)>,
}

impl OdbcFactory {
    pub(crate) fn new(connector: &'static Connector, options: &ConnectorOptions) -> Self {
        Self {
            connector,
            table_schemas: options.table_schemas.clone(),
        }
    }

    async fn table(&self, cmd: &CreateExternalTable) -> Result<OdbcTable> {
        let name = cmd.name.to_string();
        let options = options(self.connector, &name, &cmd.options)?;
        let [location] = &cmd.locations[..] else {
            return Err(Error::invalid(format!(
                "ODBC table {name} needs exactly one LOCATION"
            )));
        };
        let (known, more) = (&self.table_schemas, cmd.schema.inner());
        let request = Request {
            name: table_name(location)?,
            declared: declared::asked_for(known, options.get("table.create"), more)?,
            key: options.get("write.key").map(str::to_owned),
            settings: settings(options).await?,
        };
        off_thread(move || request.open()).await
    }
}

#[async_trait]
impl TableProviderFactory for OdbcFactory {
    async fn create(
        &self,
        _: &dyn PlanSession,
        cmd: &CreateExternalTable,
    ) -> datafusion::error::Result<Arc<dyn TableProvider>> {
        Ok(Arc::new(self.table(cmd).await?))
    }
}

/// Runs blocking work beside the async threads.
pub(super) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| Error::while_doing("talking to an ODBC driver", e))?
}

/// The options of a table, of which every one is known.
pub(super) fn options(
    connector: &'static Connector,
    table: &str,
    given: &std::collections::HashMap<String, String>,
) -> Result<TableOptions> {
    let options = TableOptions::parse(connector, table, given)?;
    // Nothing here is stored as files.
    let other = options.store.keys().chain(options.format.keys()).min();
    match other {
        None => Ok(options),
        Some(key) => {
            let bare = key.strip_prefix("format.").unwrap_or(key);
            let valid: Vec<&str> = connector.options.iter().map(|o| o.key).collect();
            Err(Error::unknown(
                &format!("option of ODBC table {table}:"),
                bare,
                &valid,
            ))
        }
    }
}

/// The settings, with the driver of a data source looked up where its files are read.
pub(super) async fn settings(options: TableOptions) -> Result<Settings> {
    off_thread(move || {
        Settings::new(&options, |dsn| {
            let sources = environment().and_then(|e| e.data_sources()).ok()?;
            let found = sources.into_iter().find(|s| s.server_name == dsn)?;
            Some(found.driver)
        })
    })
    .await
}

/// The parts of `schema.table` and its like; a part in double quotes may contain dots.
pub(super) fn table_name(location: &str) -> Result<Vec<String>> {
    let broken = || {
        Error::invalid(format!(
            "location '{location}' of an ODBC table is not 'table', 'schema.table' or \
             'catalog.schema.table'; put a part that contains dots or quotes in double quotes"
        ))
    };
    let mut parts = vec![String::new()];
    let mut chars = location.chars().peekable();
    let mut inside = false;
    while let Some(c) = chars.next() {
        let part = parts.last_mut().ok_or_else(broken)?;
        match c {
            '"' if inside && chars.peek() == Some(&'"') => {
                chars.next();
                part.push('"');
            }
            '"' if inside => {
                inside = false;
                if !matches!(chars.peek(), None | Some('.')) {
                    return Err(broken());
                }
            }
            '"' if part.is_empty() => inside = true,
            '"' => return Err(broken()),
            '.' if !inside => parts.push(String::new()),
            other => part.push(other),
        }
    }
    match inside || parts.len() > 3 || parts.iter().any(String::is_empty) {
        true => Err(broken()),
        false => Ok(parts),
    }
}

/// One table to open.
pub(super) struct Request {
    pub(super) settings: Settings,
    pub(super) name: Vec<String>,
    /// The schema with which it is created if it is missing.
    pub(super) declared: Option<SchemaRef>,
    pub(super) key: Option<String>,
}

impl Request {
    fn open(self) -> Result<OdbcTable> {
        let session = Session::open(&self.settings)?;
        self.open_in(&session)
    }

    /// Opens the table in a session that exists.
    pub(super) fn open_in(&self, session: &Session<'_>) -> Result<OdbcTable> {
        let dialect = session.dialect()?;
        let from = dialect.table(&self.name);
        let columns = match (Columns::describe(session, dialect, &from), &self.declared) {
            (Err(error), Some(declared)) if error.kind() == ErrorKind::NotFound => {
                let sql = create_table(dialect, &from, declared, self.key.as_deref())?;
                session.run(&format!("creating {from}"), &sql)?;
                Columns::describe(session, dialect, &from)?
            }
            (columns, _) => columns?,
        };
        if let Some(declared) = &self.declared {
            declared::check_same(declared, &columns.schema, &self.name.join("."))?;
        }
        if let Some(key) = &self.key
            && columns.schema.column_with_name(key).is_none()
        {
            let fields = columns.schema.fields().iter();
            let names: Vec<&str> = fields.map(|f| f.name().as_str()).collect();
            return Err(Error::unknown("column in write.key", key, &names));
        }
        Ok(OdbcTable {
            settings: self.settings.clone(),
            dialect,
            name: self.name.clone(),
            columns,
            key: self.key.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        let check = |location: &str, parts: &[&str]| {
            assert_eq!(table_name(location).unwrap(), parts, "{location}");
        };
        check("t", &["t"]);
        check("Db.s.t", &["Db", "s", "t"]);
        check("\"a.b\".\"q\"\"x\"", &["a.b", "q\"x"]);
        check("sch ema.ta-ble", &["sch ema", "ta-ble"]);
        for location in ["", "a..b", "a.b.c.d", "\"a", "a\"b", "\"a\"b"] {
            assert!(table_name(location).is_err(), "{location}");
        }
    }
}
