//! What [`crate::sql`] and a system tell each other: what a table is, what is asked of it, what
//! waits there.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use futures::stream::BoxStream;

use super::columns::Columns;
use super::dialect::SqlDialect;
use crate::error::{Error, Result};

/// Batches as they come. What an error of a query is stays what it was.
pub(crate) type Rows = BoxStream<'static, datafusion::error::Result<RecordBatch>>;

/// What a table is.
#[derive(Debug, Clone)]
pub(crate) struct Described {
    /// The way, as EXPLAIN names it: `Snowflake` makes `SnowflakeScan`.
    pub(crate) way: &'static str,
    /// What EXPLAIN says of the way; may be empty.
    pub(crate) detail: String,
    /// How statements are written.
    pub(crate) dialect: &'static SqlDialect,
    /// The parts of the name under which the table was found, or would be created.
    pub(crate) name: Vec<String>,
    /// What is selected from, if that is not the table itself.
    pub(crate) from: Option<String>,
    /// The columns, or what is missing, said with the next move.
    pub(crate) columns: std::result::Result<Columns, Arc<Error>>,
    /// The name under which the system would store a column of ours.
    pub(crate) stored_name: fn(&str) -> String,
    /// True if a request may arrive twice: rows are numbered then, and each is added once.
    pub(crate) resends: bool,
}

impl Described {
    /// The table as SQL of the system.
    pub(crate) fn table(&self) -> String {
        self.dialect.table(&self.name)
    }

    /// The table for people.
    pub(crate) fn shown(&self) -> String {
        self.name.join(".")
    }

    /// The columns.
    ///
    /// # Errors
    /// There is no such table.
    pub(crate) fn found(&self) -> Result<&Columns> {
        self.columns.as_ref().map_err(|missing| {
            Error::new(missing.kind(), missing.to_string()).with_source(Arc::clone(missing))
        })
    }
}

/// A SELECT, and how its rows are to come.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    /// For errors: `reading "S"."T"`.
    pub(crate) doing: String,
    /// How the system speaks.
    pub(crate) dialect: &'static SqlDialect,
    /// The statement and its named texts.
    pub(crate) statement: Statement,
    /// The selected columns; none: rows are only counted.
    pub(crate) columns: Columns,
    /// Rows of a batch at most.
    pub(crate) batch_rows: usize,
    /// Rows after which reading ends, also where the statement cannot say so.
    pub(crate) limit: Option<usize>,
}

/// A statement with texts as named parameters, where the dialect has them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Statement {
    pub(crate) sql: String,
    pub(crate) texts: Vec<(String, String)>,
    /// True if running it twice makes a difference: it is not sent again when no answer comes.
    pub(crate) once: bool,
}

impl Statement {
    /// A statement that changes no more when it runs twice.
    pub(crate) fn new(sql: impl Into<String>) -> Self {
        Self {
            sql: sql.into(),
            ..Self::default()
        }
    }
}

/// Rows that wait at the system.
#[derive(Debug)]
pub(crate) struct Staged {
    /// How many.
    pub(crate) rows: u64,
    /// Where they are, if not in the staging table: a query in brackets and its texts.
    pub(crate) instead: Option<(String, Vec<(String, String)>)>,
}
