//! The Arrow type of each type of Snowflake, and which of them compare the same there as here.

use datafusion::arrow::datatypes::{DataType, TimeUnit};

use super::messages::RowType;

/// Digits of the widest number that every 64-bit integer can hold.
const INT64_DIGITS: i64 = 18;
/// Digits of the widest number of Snowflake, and of a 128-bit decimal.
const MAX_DIGITS: i64 = 38;

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
