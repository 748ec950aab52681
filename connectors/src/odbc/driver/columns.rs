//! The columns of an ODBC table: their Arrow types, how they are fetched, and in which of them a
//! text is compared there as here.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use odbc_api::{ColumnDescription, DataType as OdbcType, ResultSetMetadata};

use super::session::Session;
use crate::error::{Error, Result};
use crate::sql::dialect::{MYSQL, POSTGRESQL, SQL_SERVER, SQLITE, SqlDialect};

/// Largest precision of a Decimal128.
const MAX_PRECISION: usize = 38;

/// The columns of one table.
#[derive(Debug, Clone)]
pub(super) struct Columns {
    /// What the table is here; every batch has these types.
    pub(super) schema: SchemaRef,
    /// The same columns for [`crate::sql::pushdown`]: one whose values compare otherwise there than
    /// here has type Null, about which nothing is sent but whether it is null.
    pub(super) comparable: SchemaRef,
    /// How each is fetched.
    pub(super) fetch: Vec<Fetch>,
}

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

impl Columns {
    /// Asks for the columns of `from`, which is quoted.
    pub(super) fn describe(
        session: &Session<'_>,
        dialect: &'static SqlDialect,
        from: &str,
    ) -> Result<Self> {
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
                Error::invalid(format!("{doing}: the name of column {i} is not UTF-8"))
                    .with_source(e)
            })?;
            let unsigned = cursor.column_is_unsigned(i).unwrap_or_default();
            described.push((name, column.data_type, unsigned));
        }
        drop(cursor);
        let own_types = match std::ptr::eq(dialect, &POSTGRESQL) {
            true => postgresql_types(session, from),
            false => HashMap::new(),
        };
        Ok(Self::new(dialect, &described, &own_types))
    }

    fn new(
        dialect: &'static SqlDialect,
        described: &[(String, OdbcType, bool)],
        own_types: &HashMap<String, String>,
    ) -> Self {
        let (mut fields, mut comparable, mut fetch) = (vec![], vec![], vec![]);
        for (name, odbc, unsigned) in described {
            let own = own_types.get(name).map(String::as_str);
            let (data_type, how) = match own {
                // Without a precision, any number of digits, which psqlODBC calls 28 and 6.
                Some("numeric") => (DataType::Utf8View, Fetch::Text(None)),
                _ => mapped(dialect, *odbc, *unsigned),
            };
            let compares = match data_type {
                DataType::Utf8View => text_compares(dialect, *odbc, own),
                _ => true,
            };
            let as_compared = if compares {
                data_type.clone()
            } else {
                DataType::Null
            };
            comparable.push(Field::new(name, as_compared, true));
            fields.push(Field::new(name, data_type, true));
            fetch.push(how);
        }
        Self {
            schema: Arc::new(Schema::new(fields)),
            comparable: Arc::new(Schema::new(comparable)),
            fetch,
        }
    }
}

/// The Arrow type of a column, and how it is fetched.
fn mapped(dialect: &'static SqlDialect, odbc: OdbcType, unsigned: bool) -> (DataType, Fetch) {
    // SQLite keeps in a column whatever was put there: only the text tells, and it is read strictly.
    let loose = std::ptr::eq(dialect, &SQLITE);
    let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
    match odbc {
        OdbcType::TinyInt | OdbcType::SmallInt | OdbcType::Integer | OdbcType::BigInt if loose => {
            (DataType::Int64, Fetch::Text(None))
        }
        OdbcType::Date if loose => (DataType::Date32, Fetch::Text(None)),
        OdbcType::Timestamp { .. } if loose => (micros, Fetch::Text(None)),
        // Unsigned in SQL Server, signed elsewhere.
        OdbcType::TinyInt => (DataType::Int16, Fetch::Integer),
        OdbcType::SmallInt if unsigned => (DataType::Int32, Fetch::Integer),
        OdbcType::SmallInt => (DataType::Int16, Fetch::Integer),
        OdbcType::Integer if unsigned => (DataType::Int64, Fetch::Integer),
        OdbcType::Integer => (DataType::Int32, Fetch::Integer),
        OdbcType::BigInt if unsigned => (DataType::Decimal128(20, 0), Fetch::Text(Some(20))),
        OdbcType::BigInt => (DataType::Int64, Fetch::Integer),
        OdbcType::Real => (DataType::Float32, Fetch::Float32),
        OdbcType::Float { .. } | OdbcType::Double => (DataType::Float64, Fetch::Float64),
        OdbcType::Bit => (DataType::Boolean, Fetch::Boolean),
        OdbcType::Date => (DataType::Date32, Fetch::Date),
        OdbcType::Timestamp { precision } if precision > 6 => (
            DataType::Timestamp(TimeUnit::Nanosecond, None),
            Fetch::Timestamp(1_000_000_000),
        ),
        OdbcType::Timestamp { .. } => (micros, Fetch::Timestamp(1_000_000)),
        OdbcType::Numeric { precision, scale } | OdbcType::Decimal { precision, scale } => {
            match (u8::try_from(precision), i8::try_from(scale)) {
                (Ok(p @ 1..), Ok(s @ 0..)) if precision <= MAX_PRECISION && s as u8 <= p => {
                    // Digits, sign and point.
                    (DataType::Decimal128(p, s), Fetch::Text(Some(precision + 2)))
                }
                _ => (DataType::Utf8View, Fetch::Text(None)),
            }
        }
        OdbcType::Binary { .. } | OdbcType::Varbinary { .. } | OdbcType::LongVarbinary { .. } => {
            (DataType::BinaryView, Fetch::Bytes)
        }
        OdbcType::Varchar { length } | OdbcType::WVarchar { length } if widths_hold(dialect) => {
            (DataType::Utf8View, Fetch::Text(length.map(|l| l.get())))
        }
        // Texts of any kind, times of day, intervals, identifiers, and types of the system's own.
        _ => (DataType::Utf8View, Fetch::Text(None)),
    }
}

/// True if no text is longer than its column says. psqlODBC says 255 for types it does not know,
/// Databricks for all texts, and SQLite does not check.
fn widths_hold(dialect: &'static SqlDialect) -> bool {
    std::ptr::eq(dialect, &SQL_SERVER) || std::ptr::eq(dialect, &MYSQL)
}

/// True if `=` compares a text column as its dialect says. A type that drivers show as text (JSON,
/// an identifier, a padded CHAR) compares by rules of its own, or not at all.
fn text_compares(dialect: &'static SqlDialect, odbc: OdbcType, own: Option<&str>) -> bool {
    if std::ptr::eq(dialect, &POSTGRESQL) {
        return matches!(own, Some("text" | "varchar"));
    }
    if std::ptr::eq(dialect, &SQLITE) {
        return matches!(
            odbc,
            OdbcType::LongVarchar { .. } | OdbcType::WLongVarchar { .. }
        );
    }
    widths_hold(dialect) && matches!(odbc, OdbcType::Varchar { .. } | OdbcType::WVarchar { .. })
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
    use crate::sql::dialect::{ORACLE, STANDARD};

    fn one(
        dialect: &'static SqlDialect,
        odbc: OdbcType,
        own: Option<&str>,
    ) -> (DataType, DataType, Fetch) {
        let own_types = own
            .map(|o| ("c".to_owned(), o.to_owned()))
            .into_iter()
            .collect();
        let columns = Columns::new(dialect, &[("c".into(), odbc, false)], &own_types);
        let of = |schema: &SchemaRef| schema.field(0).data_type().clone();
        (
            of(&columns.schema),
            of(&columns.comparable),
            columns.fetch[0],
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
