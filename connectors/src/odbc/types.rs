//! The columns of an ODBC table: their Arrow types, how they are fetched, and in which of them a
//! text is compared there as here.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, TimeUnit};
use odbc_api::{ColumnDescription, DataType as OdbcType, ResultSetMetadata};

use super::session::Session;
use crate::error::{Error, Result};
use crate::sql::columns::{Column, Columns, READ_BY};
use crate::sql::dialect::{DriverTypes, SqlDialect};

/// Largest precision of a Decimal128.
const MAX_PRECISION: usize = 38;

/// Characters of the longest date or timestamp of PostgreSQL, `294276-12-31 23:59:59.999999 BC`.
const MOMENT_CHARS: usize = 32;
/// Characters of an identifier (RFC 9562).
const UUID_CHARS: usize = 36;

/// In the metadata of a column's own field: the width in characters that the system enforces.
const WIDTH: &str = "width";

/// How the values of a column come out of the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fetch {
    /// 64-bit integers; the batch is cast to the column's width.
    Integer,
    Float32,
    Float64,
    Boolean,
    Date,
    /// Seconds and nanoseconds, in ticks of which so many make a second.
    Timestamp(i64),
    /// Text, which for a column of another type is read strictly. The width in characters that the
    /// system enforces, where it does.
    Text(Option<usize>),
    Bytes,
}

impl Fetch {
    /// How a column is fetched whose own field is `field`.
    pub(super) fn of(dialect: &SqlDialect, field: &Field) -> Self {
        let loose = dialect.driver_types == DriverTypes::Loose;
        let width = field.metadata().get(WIDTH).and_then(|w| w.parse().ok());
        match field.data_type() {
            DataType::Boolean | DataType::Int64 | DataType::Date32 | DataType::Timestamp(..)
                if loose =>
            {
                Self::Text(None)
            }
            _ if field.metadata().contains_key(READ_BY) => Self::Text(width),
            DataType::Int16 | DataType::Int32 | DataType::Int64 => Self::Integer,
            DataType::Float32 => Self::Float32,
            DataType::Float64 => Self::Float64,
            DataType::Boolean => Self::Boolean,
            DataType::Date32 => Self::Date,
            DataType::Timestamp(TimeUnit::Nanosecond, _) => Self::Timestamp(1_000_000_000),
            DataType::Timestamp(..) => Self::Timestamp(1_000_000),
            // Digits, sign and point.
            DataType::Decimal128(precision, _) => Self::Text(Some(usize::from(*precision) + 2)),
            DataType::BinaryView => Self::Bytes,
            _ => Self::Text(width),
        }
    }
}

/// Asks for the columns of the table with the parts `table` of its name.
pub(super) fn describe(
    session: &Session<'_>,
    dialect: &'static SqlDialect,
    table: &[String],
) -> Result<Columns> {
    let from = dialect.table(table);
    let doing = format!("reading the columns of {from}");
    let sql = format!("SELECT * FROM {from} WHERE 1 = 0");
    let mut cursor = session.query(&doing, &sql)?;
    let count = cursor
        .num_result_cols()
        .map_err(|e| session.failed(&doing, e))?;
    let mut described = vec![];
    for i in 1..=u16::try_from(count).unwrap_or_default() {
        let mut column = ColumnDescription::default();
        cursor
            .describe_col(i, &mut column)
            .map_err(|e| session.failed(&doing, e))?;
        let name = column.name_to_string().map_err(|e| {
            Error::invalid(format!("{doing}: the name of column {i} is not UTF-8")).with_source(e)
        })?;
        let unsigned = cursor.column_is_unsigned(i).unwrap_or_default();
        described.push((name, column.data_type, unsigned));
    }
    drop(cursor);
    let own_types = match dialect.driver_types {
        DriverTypes::AskCatalog => postgresql_types(session, &from),
        _ => HashMap::new(),
    };
    if dialect.driver_types == DriverTypes::Loose {
        let names = sqlite_names(session, table)?;
        if names.len() == described.len() {
            for (column, name) in described.iter_mut().zip(names) {
                column.0 = name;
            }
        }
    }
    Ok(columns(dialect, &described, &own_types))
}

fn columns(
    dialect: &'static SqlDialect,
    described: &[(String, OdbcType, bool)],
    own_types: &HashMap<String, String>,
) -> Columns {
    let columns = described.iter().map(|(name, odbc, unsigned)| {
        let own = own_types.get(name).map(String::as_str);
        let (data_type, width) = match own {
            // Without a precision, any number of digits, which psqlODBC calls 28 and 6.
            Some("numeric") => (DataType::Utf8View, None),
            // Which psqlODBC calls a float, without the last of its digits.
            Some("money") => (DataType::Utf8View, None),
            _ => mapped(dialect, *odbc, *unsigned),
        };
        let comparable = data_type != DataType::Utf8View || text_compares(dialect, *odbc, own);
        let field = Field::new(name, data_type, true);
        let (read_by, width) = match read_by(dialect, name, field.data_type(), own) {
            None => (None, width),
            Some((by, width)) => (Some((READ_BY.to_owned(), by)), width),
        };
        let width = width.map(|w| (WIDTH.to_owned(), w.to_string()));
        let metadata = width.into_iter().chain(read_by);
        Column {
            own: Arc::new(field.clone().with_metadata(metadata.collect())),
            field: Arc::new(field),
            comparable,
        }
    });
    Columns::new(columns.collect())
}

/// How a column is selected as a text, and the text's width, where the driver does not bring what is
/// stored.
///
/// psqlODBC makes of a date `infinity` today's, of the year 20000 the year 2000, of years before
/// Christ others, and of an identifier capital letters; the SQLite driver has 15 digits of a float,
/// one or two too few (and of SQLite's own, the last of 17 can be wrong).
fn read_by(
    dialect: &SqlDialect,
    name: &str,
    data_type: &DataType,
    own: Option<&str>,
) -> Option<(String, Option<usize>)> {
    let name = dialect.quoted(name);
    match (dialect.driver_types, data_type) {
        (DriverTypes::AskCatalog, DataType::Date32) => {
            Some((format!("{name}::text"), Some(MOMENT_CHARS)))
        }
        // With a time zone, in that of the session.
        (DriverTypes::AskCatalog, DataType::Timestamp(..)) => {
            Some((format!("{name}::timestamp::text"), Some(MOMENT_CHARS)))
        }
        (DriverTypes::AskCatalog, _) if own == Some("uuid") => {
            Some((format!("{name}::text"), Some(UUID_CHARS)))
        }
        (DriverTypes::Loose, DataType::Float32 | DataType::Float64) => Some((
            format!(
                "CASE typeof({name}) WHEN 'real' THEN printf('%!.20g', {name}) ELSE {name} END"
            ),
            None,
        )),
        _ => None,
    }
}

/// The Arrow type of a column, and the width of its texts where the system enforces one.
fn mapped(
    dialect: &'static SqlDialect,
    odbc: OdbcType,
    unsigned: bool,
) -> (DataType, Option<usize>) {
    let loose = dialect.driver_types == DriverTypes::Loose;
    let data_type = match odbc {
        OdbcType::TinyInt | OdbcType::SmallInt | OdbcType::Integer | OdbcType::BigInt if loose => {
            DataType::Int64
        }
        // Unsigned in SQL Server, signed elsewhere.
        OdbcType::TinyInt => DataType::Int16,
        OdbcType::SmallInt if unsigned => DataType::Int32,
        OdbcType::SmallInt => DataType::Int16,
        OdbcType::Integer if unsigned => DataType::Int64,
        OdbcType::Integer => DataType::Int32,
        OdbcType::BigInt if unsigned => DataType::Decimal128(20, 0),
        OdbcType::BigInt => DataType::Int64,
        OdbcType::Real => DataType::Float32,
        OdbcType::Float { .. } | OdbcType::Double => DataType::Float64,
        OdbcType::Bit => DataType::Boolean,
        OdbcType::Date => DataType::Date32,
        OdbcType::Timestamp { precision } if precision > 6 && !loose => {
            DataType::Timestamp(TimeUnit::Nanosecond, None)
        }
        OdbcType::Timestamp { .. } => DataType::Timestamp(TimeUnit::Microsecond, None),
        OdbcType::Numeric { precision, scale } | OdbcType::Decimal { precision, scale } => {
            match (u8::try_from(precision), i8::try_from(scale)) {
                (Ok(p @ 1..), Ok(s @ 0..)) if precision <= MAX_PRECISION && s as u8 <= p => {
                    DataType::Decimal128(p, s)
                }
                _ => DataType::Utf8View,
            }
        }
        OdbcType::Binary { .. } | OdbcType::Varbinary { .. } | OdbcType::LongVarbinary { .. } => {
            DataType::BinaryView
        }
        OdbcType::Varchar { length } | OdbcType::WVarchar { length }
            if dialect.driver_types == DriverTypes::Exact =>
        {
            return (DataType::Utf8View, length.map(|l| l.get()));
        }
        // Texts of any kind, times of day, intervals, identifiers, and types of the system's own.
        _ => DataType::Utf8View,
    };
    (data_type, None)
}

/// True if `=` compares a text column as its dialect says. A type that drivers show as text (JSON,
/// an identifier, a padded CHAR) compares by rules of its own, or not at all.
fn text_compares(dialect: &'static SqlDialect, odbc: OdbcType, own: Option<&str>) -> bool {
    match dialect.driver_types {
        DriverTypes::AskCatalog => matches!(own, Some("text" | "varchar")),
        DriverTypes::Loose => matches!(
            odbc,
            OdbcType::LongVarchar { .. } | OdbcType::WLongVarchar { .. }
        ),
        DriverTypes::Exact => {
            matches!(odbc, OdbcType::Varchar { .. } | OdbcType::WVarchar { .. })
        }
        DriverTypes::Unsure => false,
    }
}

/// The names of the columns, of which the SQLite driver leaves out all before a dot.
fn sqlite_names(session: &Session<'_>, table: &[String]) -> Result<Vec<String>> {
    let parts = table.iter().rev().take(2);
    let parts: Vec<String> = parts
        .map(|part| format!("'{}'", part.replace('\'', "''")))
        .collect();
    let sql = format!("SELECT name FROM pragma_table_info({})", parts.join(", "));
    let rows = session.texts("reading the names of the columns", &sql)?;
    Ok(rows.into_iter().flatten().flatten().collect())
}

/// PostgreSQL's own names of the types: `numeric` only where it has no precision. Other systems
/// that call themselves PostgreSQL may not answer; then nothing is assumed.
fn postgresql_types(session: &Session<'_>, from: &str) -> HashMap<String, String> {
    let sql = format!(
        "SELECT a.attname, CASE WHEN t.typname = 'numeric' AND a.atttypmod >= 0 THEN 'decimal' \
         WHEN NOT coalesce(c.collisdeterministic, true) THEN 'collated' ELSE t.typname END \
         FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid \
         LEFT JOIN pg_collation c ON c.oid = a.attcollation \
         WHERE a.attrelid = to_regclass('{}') AND a.attnum > 0",
        from.replace('\'', "''")
    );
    let rows = session
        .texts("reading the types of a table", &sql)
        .unwrap_or_default();
    let pairs = rows.into_iter().filter_map(|row| match &row[..] {
        [Some(name), Some(kind)] => Some((name.clone(), kind.clone())),
        _ => None,
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::sql::dialect::{ORACLE, POSTGRESQL, SQL_SERVER, SQLITE, STANDARD};

    fn one(
        dialect: &'static SqlDialect,
        odbc: OdbcType,
        own: Option<&str>,
    ) -> (DataType, DataType, Fetch) {
        let own_types = own
            .map(|o| ("c".to_owned(), o.to_owned()))
            .into_iter()
            .collect();
        let columns = columns(dialect, &[("c".into(), odbc, false)], &own_types);
        let of = |field: &Field| field.data_type().clone();
        (
            of(columns.schema().field(0)),
            of(columns.remote().field(0)),
            Fetch::of(dialect, &columns.iter().next().unwrap().own),
        )
    }

    #[test]
    fn only_plain_texts_are_compared_there() {
        let varchar = OdbcType::Varchar {
            length: NonZeroUsize::new(255),
        };
        let long = OdbcType::LongVarchar {
            length: NonZeroUsize::new(8190),
        };
        let comparable = |d, o, own| one(d, o, own).1;
        assert_eq!(
            comparable(&POSTGRESQL, long, Some("text")),
            DataType::Utf8View
        );
        assert_eq!(
            comparable(&POSTGRESQL, varchar, Some("json")),
            DataType::Null
        );
        assert_eq!(comparable(&POSTGRESQL, varchar, None), DataType::Null);
        assert_eq!(comparable(&SQLITE, varchar, None), DataType::Null);
        assert_eq!(comparable(&ORACLE, varchar, None), DataType::Null);
        assert_eq!(comparable(&SQL_SERVER, varchar, None), DataType::Utf8View);
    }

    #[test]
    fn numbers_keep_all_their_digits() {
        let numeric = |precision, scale| OdbcType::Numeric { precision, scale };
        let got = |d, o, own| one(d, o, own).0;
        assert_eq!(
            got(&POSTGRESQL, numeric(28, 6), Some("numeric")),
            DataType::Utf8View
        );
        assert_eq!(
            got(&POSTGRESQL, numeric(28, 6), Some("decimal")),
            DataType::Decimal128(28, 6)
        );
        assert_eq!(got(&STANDARD, numeric(39, 0), None), DataType::Utf8View);
        assert_eq!(got(&STANDARD, numeric(5, -2), None), DataType::Utf8View);
        assert_eq!(
            one(&SQLITE, OdbcType::Integer, None),
            (DataType::Int64, DataType::Int64, Fetch::Text(None))
        );
    }
}
