//! The Arrow type of each type of Snowflake, and which of them compare the same there as here.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, TimeUnit};

use super::messages::RowType;
use crate::sql::columns::{Column, Columns};

/// Digits of the widest number that every 64-bit integer can hold.
const INT64_DIGITS: i64 = 18;
/// Digits of the widest number of Snowflake, and of a 128-bit decimal.
const MAX_DIGITS: i64 = 38;

/// The columns of `rowtype`; names that are all upper case become lower case if `fold`.
pub(super) fn columns(rowtype: &[RowType], fold: bool) -> Columns {
    let shown = |row: &RowType| match fold && folds(&row.name) {
        true => row.name.to_lowercase(),
        false => row.name.clone(),
    };
    let columns = rowtype.iter().map(|row| {
        let name = shown(row);
        let taken = rowtype.iter().filter(|other| shown(other) == name).count() > 1;
        let name = if taken { row.name.clone() } else { name };
        let (data_type, nullable) = (arrow_type(row), row.nullable.unwrap_or(true));
        Column {
            own: Arc::new(Field::new(&row.name, data_type.clone(), nullable)),
            field: Arc::new(Field::new(name, data_type, nullable)),
            comparable: comparable(row),
        }
    });
    Columns::new(columns.collect())
}

/// A name of ours as Snowflake would make it of an unquoted one.
pub(super) fn unfolded(name: &str) -> String {
    let upper = name.to_uppercase();
    match folds(&upper) && name == upper.to_lowercase() {
        true => upper,
        false => name.to_owned(),
    }
}

/// True for names that need no quotes.
fn folds(name: &str) -> bool {
    let first = name.chars().next();
    first.is_some_and(|c| c.is_ascii_uppercase() || c == '_')
        && name
            .chars()
            .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || matches!(c, '_' | '$'))
}

/// The one type into which every batch of a column is cast.
pub(super) fn arrow_type(row: &RowType) -> DataType {
    let scale = row.scale.unwrap_or(0);
    let unit = match scale > 6 {
        true => TimeUnit::Nanosecond,
        false => TimeUnit::Microsecond,
    };
    match row.kind.to_lowercase().as_str() {
        "fixed" => {
            let precision = row.precision.filter(|p| *p > 0).unwrap_or(MAX_DIGITS);
            match (precision, scale) {
                (p, 0) if p <= INT64_DIGITS => DataType::Int64,
                (p, s) => DataType::Decimal128(p.clamp(1, MAX_DIGITS) as u8, s as i8),
            }
        }
        "real" => DataType::Float64,
        "boolean" => DataType::Boolean,
        "date" => DataType::Date32,
        "time" => DataType::Time64(TimeUnit::Nanosecond),
        "timestamp_ntz" => DataType::Timestamp(unit, None),
        "timestamp_ltz" | "timestamp_tz" => DataType::Timestamp(unit, Some("UTC".into())),
        "binary" => DataType::Binary,
        // TEXT; VARIANT, OBJECT, ARRAY, MAP and GEOGRAPHY arrive as JSON.
        _ => DataType::Utf8View,
    }
}

/// True where `=` and `<` are those of Arrow: not for JSON, nor for texts with a collation.
pub(super) fn comparable(row: &RowType) -> bool {
    let collated = row.collation.as_deref().is_some_and(|c| !c.is_empty());
    match row.kind.to_lowercase().as_str() {
        "text" => !collated,
        "fixed" | "date" => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_names() {
        let row = |name: &str, kind: &str, precision: i64, scale: i64| RowType {
            name: name.into(),
            kind: kind.into(),
            precision: Some(precision),
            scale: Some(scale),
            nullable: Some(true),
            collation: None,
        };
        let rows = [
            row("ID", "fixed", 38, 0),
            row("N", "FIXED", 9, 0),
            row("Mixed", "text", 0, 0),
            row("V", "variant", 0, 0),
            row("TS", "timestamp_ntz", 0, 9),
            row("TZ", "timestamp_tz", 0, 3),
            row("X", "text", 0, 0),
            row("x", "text", 0, 0),
        ];
        let columns = columns(&rows, true);
        let fields = columns.schema().fields().iter();
        let shown: Vec<String> = fields
            .map(|f| format!("{} {}", f.name(), f.data_type()))
            .collect();
        assert_eq!(
            shown,
            [
                "id Decimal128(38, 0)",
                "n Int64",
                "Mixed Utf8View",
                "v Utf8View",
                "ts Timestamp(ns)",
                "tz Timestamp(µs, \"UTC\")",
                "X Utf8View",
                "x Utf8View"
            ]
        );
        assert_eq!(columns.remote().field(0).name(), "ID");
        assert_eq!(columns.remote().field(3).data_type(), &DataType::Null);
        assert_eq!(
            (unfolded("qa_id"), unfolded("Kept")),
            ("QA_ID".into(), "Kept".into())
        );
    }
}
