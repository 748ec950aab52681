//! How the SQL systems that Casebook reads differ: quoting, LIMIT, and which comparisons mean the
//! same there as here. What it does not do: build statements ([`crate::sql::select`]).

use datafusion::arrow::datatypes::DataType;
use datafusion::sql::unparser::dialect::{
    CustomDialectBuilder, Dialect, MySqlDialect, PostgreSqlDialect, SnowflakeDialect, SqliteDialect,
};

/// One SQL system.
#[derive(Debug)]
pub(crate) struct SqlDialect {
    /// As errors and EXPLAIN name it.
    pub(crate) name: &'static str,
    /// Quote of identifiers; doubled inside.
    pub(crate) quote: char,
    /// Where a row limit is written.
    pub(crate) limit: LimitForm,
    /// What `=` compares in texts.
    pub(crate) text_equality: TextEquality,
    /// True if texts are ordered by code point and LIKE distinguishes case, as in Arrow.
    pub(crate) text_order: bool,
    /// Characters that mean something else inside a text literal than the unparser, which doubles
    /// quotes, believes: texts with them are not sent.
    pub(crate) not_in_texts: &'static [char],
    /// True if texts outside of ASCII are not sent: the system, or a driver on the way, would read
    /// them in some code page, and find other rows.
    pub(crate) ascii_texts: bool,
    /// Texts of one statement.
    pub(crate) max_texts: usize,
    /// True if `CAST('2026-01-31' AS DATE)` is that day.
    pub(crate) dates: bool,
    /// True if filters travel as named texts beside the statement.
    pub(crate) bound_texts: bool,
    /// True if a primary key is checked when rows are written.
    pub(crate) enforces_keys: bool,
    /// True for `CREATE TABLE IF NOT EXISTS`.
    pub(crate) if_not_exists: bool,
    /// What adds a column, after `ALTER TABLE name`.
    pub(crate) add_column: &'static str,
    /// The table in which rows wait.
    pub(crate) staging: StagingTable,
    /// How the rows of a key that is not there yet are added.
    pub(crate) adding: Adding,
    /// What replaces all rows in one statement, before the table's name; where there is nothing,
    /// the table is emptied and filled in one transaction.
    pub(crate) overwrite: Option<&'static str>,
    /// True if several statements make one transaction.
    pub(crate) transactions: bool,
    /// How a statement is stopped from another session, whose driver cannot be asked meanwhile.
    pub(crate) stop: Option<Stop>,
    /// How far a driver's word about types is to be taken.
    pub(crate) driver_types: DriverTypes,
    /// True if drivers' narrow texts are UTF-8 whatever the locale; seen with these. UTF-16 is
    /// always that, at twice the bytes.
    pub(crate) utf8: bool,
    /// True if rows come through a cursor of the server, because drivers hold whole results.
    pub(crate) server_cursor: bool,
    /// False if the driver takes no bytes for as many zeroes as an array is wide.
    pub(crate) empty_bytes: bool,
    /// False if the system keeps null for NaN.
    pub(crate) nan: bool,
    /// The type of a column that holds an Arrow type; true for a key, which some systems index
    /// only up to a length.
    pub(crate) column_type: fn(&DataType, bool) -> Option<&'static str>,
    /// The library's rules for writing expressions.
    pub(crate) unparser: fn() -> Box<dyn Dialect>,
}

/// Where a row limit is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LimitForm {
    /// `SELECT ... LIMIT 5`
    Limit,
    /// `SELECT TOP 5 ...`
    Top,
    /// `SELECT ... FETCH FIRST 5 ROWS ONLY`
    FetchFirst,
    /// No form is certain: none is sent, and reading stops after so many rows.
    Unknown,
}

/// What `=` compares in texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TextEquality {
    /// Bytes, as Arrow does.
    Exact,
    /// A collation that may call different texts equal (case, accents, trailing spaces): `=` and
    /// IN find at least the rows that Arrow would, and are checked again.
    Superset,
    /// The empty text is null, so comparisons are left to us.
    Unlike,
}

/// The table in which the rows of one INSERT wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StagingTable {
    /// `CREATE TEMPORARY TABLE`: the session's own, which ends it.
    Temporary,
    /// `SELECT INTO #name`: the same in SQL Server.
    SelectInto,
    /// Oracle's private temporary table: the same.
    Private,
    /// A table beside the target, which is removed after use.
    Permanent,
}

/// How the rows of a key that is not there yet are added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Adding {
    /// One MERGE.
    Merge,
    /// One INSERT of what the target does not have.
    Missing,
}

/// How a statement is stopped from another session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stop {
    /// The query that tells the number of its session.
    pub(crate) number: &'static str,
    /// What comes before and after the number in the statement that stops it.
    pub(crate) by: (&'static str, &'static str),
}

/// How far a driver's word about the types of columns is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DriverTypes {
    /// As far as it goes, and widths of texts hold.
    Exact,
    /// Its words for texts and numbers hide what the catalog of PostgreSQL tells.
    AskCatalog,
    /// A column holds whatever was put there: only the text tells, and it is read strictly.
    Loose,
    /// Widths and comparisons of texts are not to be relied on.
    Unsure,
}

/// What most systems have in common, without a name of its own.
const COMMON: SqlDialect = SqlDialect {
    name: "",
    quote: '"',
    limit: LimitForm::Limit,
    text_equality: TextEquality::Exact,
    text_order: false,
    not_in_texts: &[],
    ascii_texts: false,
    max_texts: usize::MAX,
    dates: true,
    bound_texts: false,
    enforces_keys: true,
    if_not_exists: true,
    add_column: "ADD COLUMN",
    staging: StagingTable::Temporary,
    adding: Adding::Missing,
    overwrite: None,
    transactions: true,
    stop: None,
    driver_types: DriverTypes::Unsure,
    utf8: false,
    server_cursor: false,
    empty_bytes: true,
    nan: true,
    column_type: |t, _| common_type(t, "TEXT"),
    unparser: || quoted_with('"'),
};

pub(crate) static POSTGRESQL: SqlDialect = SqlDialect {
    name: "PostgreSQL",
    stop: Some(Stop {
        number: "SELECT pg_backend_pid()",
        by: ("SELECT pg_cancel_backend(", ")"),
    }),
    driver_types: DriverTypes::AskCatalog,
    utf8: true,
    server_cursor: true,
    unparser: || Box::new(PostgreSqlDialect {}),
    ..COMMON
};

pub(crate) static SNOWFLAKE: SqlDialect = SqlDialect {
    name: "Snowflake",
    text_order: true,
    not_in_texts: &['\\'],
    enforces_keys: false,
    adding: Adding::Merge,
    overwrite: Some("INSERT OVERWRITE INTO"),
    column_type: |t, _| common_type(t, "VARCHAR"),
    unparser: || Box::new(SnowflakeDialect::new()),
    ..COMMON
};

const DATABRICKS_RULES: SqlDialect = SqlDialect {
    name: "Databricks",
    quote: '`',
    text_order: true,
    // 'it''s' was two literals in a row until Spark 4, and a warehouse may still read it so.
    not_in_texts: &['\\', '\''],
    enforces_keys: false,
    staging: StagingTable::Permanent,
    adding: Adding::Merge,
    overwrite: Some("INSERT OVERWRITE"),
    transactions: false,
    column_type: |t, _| {
        common_type(t, "STRING").map(|t| match t {
            "REAL" => "FLOAT",
            "DOUBLE PRECISION" => "DOUBLE",
            other => other,
        })
    },
    unparser: || quoted_with('`'),
    ..COMMON
};

/// Databricks through drivers that take one text for everything.
pub(crate) static DATABRICKS: SqlDialect = SqlDialect {
    ascii_texts: true,
    ..DATABRICKS_RULES
};

/// Databricks where texts travel beside the statement ([`crate::sql::select::Select::bound`]).
#[cfg(feature = "databricks")]
pub(crate) static DATABRICKS_BOUND: SqlDialect = SqlDialect {
    not_in_texts: &[],
    // Half of what the API takes: filters may come to one scan in more than one pass.
    max_texts: 128,
    bound_texts: true,
    ..DATABRICKS_RULES
};

pub(crate) static SQLITE: SqlDialect = SqlDialect {
    name: "SQLite",
    // A name in double quotes that is no column is taken for a text there.
    quote: '`',
    text_equality: TextEquality::Superset, // a column may be COLLATE NOCASE; LIKE ignores case
    dates: false,                          // CAST('2026-01-31' AS DATE) is the number 2026
    driver_types: DriverTypes::Loose,
    utf8: true,
    empty_bytes: false,
    nan: false,
    unparser: || Box::new(SqliteDialect {}),
    ..COMMON
};

pub(crate) static MYSQL: SqlDialect = SqlDialect {
    name: "MySQL",
    quote: '`',
    text_equality: TextEquality::Superset,
    not_in_texts: &['\\'],
    ascii_texts: true,
    stop: Some(Stop {
        number: "SELECT CONNECTION_ID()",
        by: ("KILL QUERY ", ""),
    }),
    driver_types: DriverTypes::Exact,
    column_type: |t, key| common_type(t, if key { "VARCHAR(255)" } else { "LONGTEXT" }),
    unparser: || Box::new(MySqlDialect {}),
    ..COMMON
};

pub(crate) static SQL_SERVER: SqlDialect = SqlDialect {
    name: "SQL Server",
    limit: LimitForm::Top,
    text_equality: TextEquality::Superset,
    // At the end of a line it joins that line with the next.
    not_in_texts: &['\\'],
    ascii_texts: true, // '...' is in the code page of the database, and ? stands for all others
    if_not_exists: false,
    add_column: "ADD",
    staging: StagingTable::SelectInto,
    // Needs a right that few have; without it the statement ends with its connection.
    stop: Some(Stop {
        number: "SELECT @@SPID",
        by: ("KILL ", ""),
    }),
    driver_types: DriverTypes::Exact,
    column_type: |t, key| {
        let text = match key {
            true => "NVARCHAR(255)",
            false => "NVARCHAR(MAX)",
        };
        common_type(t, text)
    },
    ..COMMON
};

pub(crate) static ORACLE: SqlDialect = SqlDialect {
    name: "Oracle",
    limit: LimitForm::FetchFirst,
    text_equality: TextEquality::Unlike,
    dates: false, // the text of a date depends on the session's NLS_DATE_FORMAT
    if_not_exists: false,
    add_column: "ADD",
    staging: StagingTable::Private,
    column_type: |t, key| match t {
        DataType::Int64 | DataType::UInt32 => Some("NUMBER(19)"),
        other => common_type(other, if key { "VARCHAR2(255)" } else { "CLOB" }),
    },
    ..COMMON
};

/// A system we know nothing about: only comparisons of numbers are sent, and no LIMIT.
pub(crate) static STANDARD: SqlDialect = SqlDialect {
    name: "standard SQL",
    limit: LimitForm::Unknown,
    text_equality: TextEquality::Unlike,
    not_in_texts: &['\\'],
    dates: false,
    enforces_keys: false,
    if_not_exists: false,
    staging: StagingTable::Permanent,
    column_type: |t, key| common_type(t, if key { "VARCHAR(255)" } else { "CLOB" }),
    ..COMMON
};

impl SqlDialect {
    /// `name` in this system's quotes.
    pub(crate) fn quoted(&self, name: &str) -> String {
        let quote = self.quote;
        let doubled = name.replace(quote, &format!("{quote}{quote}"));
        format!("{quote}{doubled}{quote}")
    }

    /// The parts of a table's name, quoted and joined with dots.
    pub(crate) fn table<S: AsRef<str>>(&self, parts: &[S]) -> String {
        let parts: Vec<String> = parts.iter().map(|p| self.quoted(p.as_ref())).collect();
        parts.join(".")
    }
}

/// Column types of most systems: `text`, then those for 16, 32 and 64 bit integers, floats.
fn common_type(data_type: &DataType, text: &'static str) -> Option<&'static str> {
    Some(match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => text,
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => "SMALLINT",
        DataType::Int32 | DataType::UInt16 => "INTEGER",
        DataType::Int64 | DataType::UInt32 => "BIGINT",
        DataType::Float32 => "REAL",
        DataType::Float64 => "DOUBLE PRECISION",
        DataType::Date32 => "DATE",
        _ => return None,
    })
}

fn quoted_with(quote: char) -> Box<dyn Dialect> {
    let builder = CustomDialectBuilder::new().with_identifier_quote_style(quote);
    Box::new(builder.build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_inside_names_are_doubled() {
        assert_eq!(POSTGRESQL.table(&["a\"b", "c"]), "\"a\"\"b\".\"c\"");
        assert_eq!(DATABRICKS.quoted("a`b"), "`a``b`");
    }
}
