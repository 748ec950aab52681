//! One connection to an ODBC source: opened, and asked which system it is.
//!
//! Everything here blocks; callers run it on a thread of its own.

use odbc_api::handles::StatementImpl;
use odbc_api::{
    Connection, ConnectionOptions, Cursor, CursorImpl, Preallocated, ResultSetMetadata, environment,
};

use super::errors::failed;
use super::long_values::{LongValue, Utf8};
use super::settings::{Settings, dialect_of};
use crate::error::{Error, ErrorKind, Result};
use crate::sql::dialect::SqlDialect;

/// The column of a list of tables that holds their names.
const TABLE_NAME: u16 = 3;

/// A connection and what is known about its system.
pub(super) struct Session<'s> {
    pub(super) settings: &'s Settings,
    pub(super) connection: Connection<'static>,
}

impl<'s> Session<'s> {
    /// Connects.
    pub(super) fn open(settings: &'s Settings) -> Result<Self> {
        let doing = "connecting over ODBC";
        let environment = environment().map_err(|e| failed(settings, doing, e))?;
        let options = ConnectionOptions {
            login_timeout_sec: Some(settings.login_timeout_secs),
            packet_size: None,
        };
        let connection = environment
            .connect_with_connection_string(settings.connection().expose(), options)
            .map_err(|e| failed(settings, doing, e))?;
        Ok(Self {
            settings,
            connection,
        })
    }

    /// The dialect that the user named, else that of the system.
    pub(super) fn dialect(&self) -> Result<&'static SqlDialect> {
        if let Some(dialect) = self.settings.dialect {
            return Ok(dialect);
        }
        let name = self
            .connection
            .database_management_system_name()
            .map_err(|e| self.failed("asking for the name of the ODBC system", e))?;
        Ok(dialect_of(&name))
    }

    /// Runs a query.
    pub(super) fn query(&self, doing: &str, sql: &str) -> Result<CursorImpl<StatementImpl<'_>>> {
        let timeout = self.settings.query_timeout_secs;
        let cursor = self.connection.execute(sql, (), timeout);
        let cursor = cursor.map_err(|e| self.failed(doing, e))?;
        cursor.ok_or_else(|| {
            Error::new(
                ErrorKind::Unsupported,
                format!(
                    "{doing}: the driver returned no columns; a table without any cannot be read"
                ),
            )
        })
    }

    /// Runs a statement that returns no rows; how many rows it touched, if the driver knows.
    pub(super) fn run(&self, doing: &str, sql: &str) -> Result<Option<u64>> {
        let mut statement = self.statement(doing)?;
        statement
            .execute(sql, ())
            .map(drop)
            .map_err(|e| self.failed(doing, e))?;
        let rows = statement.row_count().map_err(|e| self.failed(doing, e))?;
        Ok(rows.map(|n| n as u64))
    }

    fn statement(&self, doing: &str) -> Result<Preallocated<StatementImpl<'_>>> {
        let mut statement = self
            .connection
            .preallocate()
            .map_err(|e| self.failed(doing, e))?;
        if let Some(seconds) = self.settings.query_timeout_secs {
            let set = statement.set_query_timeout_sec(seconds);
            set.map_err(|e| self.failed(doing, e))?;
        }
        Ok(statement)
    }

    /// The rows of a short answer, as text.
    pub(super) fn texts(&self, doing: &str, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
        let mut cursor = self.query(doing, sql)?;
        let columns = cursor
            .num_result_cols()
            .map_err(|e| self.failed(doing, e))? as u16;
        let mut value = LongValue::<Utf8>::default();
        let mut out = vec![];
        while let Some(mut row) = cursor.next_row().map_err(|e| self.failed(doing, e))? {
            let mut texts = vec![];
            for column in 1..=columns {
                let text = value
                    .get(&mut row, column)
                    .map_err(|e| self.failed(doing, e))?;
                texts.push(text.map(|t| String::from_utf8_lossy(t).into_owned()));
            }
            out.push(texts);
        }
        Ok(out)
    }

    /// The names of the tables in the schema of `table` that begin with `prefix`.
    pub(super) fn tables(&self, table: &[String], prefix: &str) -> Result<Vec<String>> {
        let doing = "listing tables";
        let part = |from_end: usize| {
            let at = table.len().checked_sub(from_end + 1);
            at.and_then(|i| table.get(i)).map_or("", String::as_str)
        };
        let mut statement = self.statement(doing)?;
        let found = statement.tables_cursor(part(2), part(1), &format!("{prefix}%"), "TABLE");
        let mut cursor = found.map_err(|e| self.failed(doing, e))?;
        let mut value = LongValue::<Utf8>::default();
        let mut out = vec![];
        while let Some(mut row) = cursor.next_row().map_err(|e| self.failed(doing, e))? {
            let name = value
                .get(&mut row, TABLE_NAME)
                .map_err(|e| self.failed(doing, e))?;
            out.extend(name.map(|n| String::from_utf8_lossy(n).into_owned()));
        }
        // The underscores in a prefix stand for anything there.
        out.retain(|name| name.to_lowercase().starts_with(prefix));
        Ok(out)
    }

    pub(super) fn failed(&self, doing: impl std::fmt::Display, error: odbc_api::Error) -> Error {
        failed(self.settings, doing, error)
    }
}
