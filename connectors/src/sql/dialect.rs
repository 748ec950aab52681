//! How the SQL systems that Casebook reads differ: quoting, LIMIT, and which comparisons mean the
//! same there as here. What it does not do: build statements ([`crate::sql::pushdown`]).

use datafusion::arrow::datatypes::DataType;
use datafusion::sql::unparser::dialect::{
    CustomDialectBuilder, Dialect, MySqlDialect, PostgreSqlDialect, SnowflakeDialect, SqliteDialect,
};

use crate::sql::ddl::common_type;

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
    /// True if `CAST('2026-01-31' AS DATE)` is that day.
    pub(crate) dates: bool,
    /// True if a primary key is checked when rows are written.
    pub(crate) enforces_keys: bool,
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

pub(crate) static POSTGRESQL: SqlDialect = SqlDialect {
    name: "PostgreSQL",
    quote: '"',
    limit: LimitForm::Limit,
    text_equality: TextEquality::Exact,
    text_order: false,
    not_in_texts: &[],
    dates: true,
    enforces_keys: true,
    column_type: |t, _| common_type(t, "TEXT"),
    unparser: || Box::new(PostgreSqlDialect {}),
};

pub(crate) static SNOWFLAKE: SqlDialect = SqlDialect {
    name: "Snowflake",
    quote: '"',
    limit: LimitForm::Limit,
    text_equality: TextEquality::Exact,
    text_order: true,
    not_in_texts: &['\\'],
    dates: true,
    enforces_keys: false,
    column_type: |t, _| common_type(t, "VARCHAR"),
    unparser: || Box::new(SnowflakeDialect::new()),
};

const DATABRICKS_RULES: SqlDialect = SqlDialect {
    name: "Databricks",
    quote: '`',
    limit: LimitForm::Limit,
    text_equality: TextEquality::Exact,
    text_order: true,
    // 'it''s' was two literals in a row until Spark 4, and a warehouse may still read it so.
    not_in_texts: &['\\', '\''],
    dates: true,
    enforces_keys: false,
    column_type: |t, _| {
        common_type(t, "STRING").map(|t| match t {
            "REAL" => "FLOAT",
            "DOUBLE PRECISION" => "DOUBLE",
            other => other,
        })
    },
    unparser: || quoted_with('`'),
};

/// Databricks through drivers that take one text for everything.
pub(crate) static DATABRICKS: SqlDialect = DATABRICKS_RULES;

/// Databricks where texts travel beside the statement ([`crate::sql::pushdown::Select::bound`]).
#[cfg(feature = "databricks")]
pub(crate) static DATABRICKS_BOUND: SqlDialect = SqlDialect {
    not_in_texts: &[],
    ..DATABRICKS_RULES
};

pub(crate) static SQLITE: SqlDialect = SqlDialect {
    name: "SQLite",
    quote: '"',
    limit: LimitForm::Limit,
    text_equality: TextEquality::Superset, // a column may be COLLATE NOCASE
    text_order: false,                     // LIKE ignores the case of ASCII
    not_in_texts: &[],
    dates: false, // CAST('2026-01-31' AS DATE) is the number 2026
    enforces_keys: true,
    column_type: |t, _| common_type(t, "TEXT"),
    unparser: || Box::new(SqliteDialect {}),
};

pub(crate) static MYSQL: SqlDialect = SqlDialect {
    name: "MySQL",
    quote: '`',
    limit: LimitForm::Limit,
    text_equality: TextEquality::Superset,
    text_order: false,
    not_in_texts: &['\\'],
    dates: true,
    enforces_keys: true,
    column_type: |t, key| common_type(t, if key { "VARCHAR(255)" } else { "LONGTEXT" }),
    unparser: || Box::new(MySqlDialect {}),
};

pub(crate) static SQL_SERVER: SqlDialect = SqlDialect {
    name: "SQL Server",
    quote: '"',
    limit: LimitForm::Top,
    text_equality: TextEquality::Superset,
    text_order: false,
    not_in_texts: &[],
    dates: true,
    enforces_keys: true,
    column_type: |t, key| {
        common_type(
            t,
            if key {
                "NVARCHAR(255)"
            } else {
                "NVARCHAR(MAX)"
            },
        )
    },
    unparser: || quoted_with('"'),
};

pub(crate) static ORACLE: SqlDialect = SqlDialect {
    name: "Oracle",
    quote: '"',
    limit: LimitForm::FetchFirst,
    text_equality: TextEquality::Unlike,
    text_order: false,
    not_in_texts: &[],
    dates: false, // the text of a date depends on the session's NLS_DATE_FORMAT
    enforces_keys: true,
    column_type: |t, key| match t {
        DataType::Int64 | DataType::UInt32 => Some("NUMBER(19)"),
        other => common_type(other, if key { "VARCHAR2(255)" } else { "CLOB" }),
    },
    unparser: || quoted_with('"'),
};

/// A system we know nothing about: only comparisons of numbers are sent, and no LIMIT.
pub(crate) static STANDARD: SqlDialect = SqlDialect {
    name: "standard SQL",
    quote: '"',
    limit: LimitForm::Unknown,
    text_equality: TextEquality::Unlike,
    text_order: false,
    not_in_texts: &['\\'],
    dates: false,
    enforces_keys: false,
    column_type: |t, key| common_type(t, if key { "VARCHAR(255)" } else { "CLOB" }),
    unparser: || quoted_with('"'),
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
