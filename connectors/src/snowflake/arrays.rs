//! Arrays as Snowflake sends them, to the one type that the schema declares.
//!
//! From batch to batch the same column may come as int8 or int64, or as a decimal; with its scale
//! only in the metadata; a timestamp as one number or as a struct of seconds and nanoseconds. A
//! value that the declared type cannot hold is an error, never null.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, MutableArrayData, make_array,
};
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::arrow::error::ArrowError;

use super::moments;
use super::plain::At;
use crate::error::Result;

/// `array`, sent as `field` for the column `at`, as `target`; it shares no memory with `array`,
/// so that a batch keeps only its own rows alive.
pub(super) fn convert(
    array: &ArrayRef,
    field: &Field,
    at: At<'_>,
    target: &DataType,
) -> Result<ArrayRef> {
    let scale = scale_of(field, at)?;
    let converted = match at.row.kind.to_lowercase().as_str() {
        "fixed" if array.data_type().is_integer() && scale > 0 => {
            at.plain(&decimals(array, scale, at)?, target)?
        }
        "timestamp_ntz" | "timestamp_ltz" | "timestamp_tz" | "time" => {
            moments::convert(array, scale, at, target)?
        }
        _ => at.plain(array, target)?,
    };
    owned(&converted).map_err(|e| at.broken(&e.to_string()))
}

/// The scale in the metadata of the batch, else that of the result.
fn scale_of(field: &Field, at: At<'_>) -> Result<u32> {
    let said = field.metadata().get("scale").map(|s| s.parse::<u32>());
    match said {
        Some(Ok(scale)) if scale <= 38 => Ok(scale),
        Some(_) => Err(at.broken("the scale in its metadata is not a number up to 38")),
        None => Ok(at.row.scale.unwrap_or(0).clamp(0, 38) as u32),
    }
}

/// Integers that stand for hundredths (or so).
fn decimals(array: &ArrayRef, scale: u32, at: At<'_>) -> Result<ArrayRef> {
    let integers = at.integers(array)?;
    let decimals: Decimal128Array = integers.unary(i128::from);
    decimals
        .with_precision_and_scale(38, scale as i8)
        .map(|d| Arc::new(d) as ArrayRef)
        .map_err(|e| at.broken(&e.to_string()))
}

/// A copy that holds these rows only.
fn owned(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    if let Some(texts) = array.as_string_view_opt() {
        return Ok(Arc::new(texts.gc()));
    }
    let data = array.to_data();
    let mut copy = MutableArrayData::new(vec![&data], false, data.len());
    copy.try_extend(0, 0, data.len())?;
    Ok(make_array(copy.freeze()))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use datafusion::arrow::array::{Int8Array, Int32Array, Int64Array, StringArray, StructArray};
    use datafusion::arrow::util::display::array_value_to_string;

    use super::*;
    use crate::snowflake::messages::RowType;
    use crate::snowflake::types::arrow_type;

    fn row(kind: &str, precision: i64, scale: i64) -> RowType {
        RowType {
            name: "C".into(),
            kind: kind.into(),
            precision: Some(precision),
            scale: Some(scale),
            ..RowType::default()
        }
    }

    fn shown(array: ArrayRef, scale: Option<&str>, row: &RowType) -> Result<Vec<String>> {
        let mut metadata = HashMap::new();
        metadata.extend(scale.map(|s| ("scale".to_owned(), s.to_owned())));
        let field = Field::new("C", array.data_type().clone(), true).with_metadata(metadata);
        let at = At { row, before: 0 };
        let out = convert(&array, &field, at, &arrow_type(row))?;
        assert_eq!(out.data_type(), &arrow_type(row));
        Ok((0..out.len())
            .map(|i| array_value_to_string(&out, i).unwrap())
            .collect())
    }

    fn moment(parts: &[(&str, ArrayRef)]) -> ArrayRef {
        let fields: Vec<_> = parts
            .iter()
            .map(|(n, a)| Arc::new(Field::new(*n, a.data_type().clone(), true)))
            .collect();
        let arrays = parts.iter().map(|(_, a)| Arc::clone(a)).collect();
        Arc::new(StructArray::new(fields.into(), arrays, None))
    }

    #[test]
    fn numbers_of_any_width_become_one_type() {
        let narrow: ArrayRef = Arc::new(Int8Array::from(vec![Some(7), None]));
        let wide: ArrayRef = Arc::new(Int64Array::from(vec![1 << 40]));
        let big: ArrayRef = Arc::new(
            Decimal128Array::from(vec![10i128.pow(30)])
                .with_precision_and_scale(38, 0)
                .unwrap(),
        );
        let id = row("fixed", 38, 0);
        assert_eq!(
            shown(Arc::clone(&narrow), Some("0"), &id).unwrap(),
            ["7", ""]
        );
        assert_eq!(shown(wide, None, &id).unwrap(), ["1099511627776"]);
        assert_eq!(
            shown(Arc::clone(&big), None, &id).unwrap(),
            [format!("1{}", "0".repeat(30))]
        );
        let money = row("fixed", 10, 2);
        assert_eq!(
            shown(Arc::clone(&narrow), None, &money).unwrap(),
            ["0.07", ""]
        );
        assert!(shown(big, None, &row("fixed", 9, 0)).is_err());
    }

    #[test]
    fn timestamps_of_any_form_become_one_type() {
        let ntz = row("timestamp_ntz", 0, 9);
        let check = |array: ArrayRef, scale: Option<&str>, row: &RowType, expected: &str| {
            assert_eq!(shown(array, scale, row).unwrap(), [expected]);
        };
        let ints = |v: i64| Arc::new(Int64Array::from(vec![v])) as ArrayRef;
        let small = |v: i32| Arc::new(Int32Array::from(vec![v])) as ArrayRef;
        let expected = "2023-11-14T22:13:20.500";
        check(ints(1_700_000_000_500), Some("3"), &ntz, expected);
        let parts = moment(&[
            ("epoch", ints(1_700_000_000)),
            ("fraction", small(500_000_000)),
        ]);
        check(parts, Some("9"), &ntz, expected);
        check(ints(-1_500), Some("3"), &ntz, "1969-12-31T23:59:58.500");
        let tz = row("timestamp_tz", 0, 3);
        let utc = "2023-11-14T22:13:20.500Z";
        // Five hours west of Greenwich: the instant is the same.
        let two = moment(&[
            ("epoch", ints(1_700_000_000_500)),
            ("timezone", small(1140)),
        ]);
        check(two, Some("3"), &tz, utc);
        let three = moment(&[
            ("epoch", ints(1_700_000_000)),
            ("fraction", small(500_000_000)),
            ("timezone", small(1140)),
        ]);
        check(three, Some("3"), &tz, utc);
        check(ints(3_661), Some("0"), &row("time", 0, 0), "01:01:01");
    }

    #[test]
    fn a_value_that_does_not_fit_is_named_with_its_row() {
        let row = &row("fixed", 9, 0);
        let sent: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(1 << 40)]));
        let field = Field::new("C", DataType::Int64, true);
        let at = At { row, before: 70 };
        let error = convert(&sent, &field, at, &DataType::Int32).unwrap_err();
        let error = error.to_string();
        for part in ["column C", "row 73", "'1099511627776'"] {
            assert!(error.contains(part), "{error}");
        }
        let times = row_of("timestamp_ntz", 9);
        let at = At {
            row: &times,
            before: 5,
        };
        let far: ArrayRef = Arc::new(Int64Array::from(vec![0, 253_402_214_400]));
        let nanoseconds = arrow_type(&times);
        let field = Field::new("C", DataType::Int64, true)
            .with_metadata([("scale".to_owned(), "0".to_owned())].into());
        let error = convert(&far, &field, at, &nanoseconds)
            .unwrap_err()
            .to_string();
        for part in ["column C", "row 7", "253402214400"] {
            assert!(error.contains(part), "{error}");
        }
    }

    fn row_of(kind: &str, scale: i64) -> RowType {
        row(kind, 0, scale)
    }

    #[test]
    fn a_time_that_does_not_fit_is_an_error() {
        let far: ArrayRef = Arc::new(Int64Array::from(vec![253_402_214_400i64]));
        let ntz = row("timestamp_ntz", 0, 9);
        let error = shown(Arc::clone(&far), Some("0"), &ntz)
            .unwrap_err()
            .to_string();
        assert!(error.contains("TIMESTAMP(6)"), "{error}");
        assert_eq!(
            shown(far, Some("0"), &row("timestamp_ntz", 0, 0)).unwrap(),
            ["9999-12-31T00:00:00"]
        );
    }

    #[test]
    fn texts_are_copied_out_of_their_chunk() {
        let long = "x".repeat(1 << 20);
        let whole: ArrayRef = Arc::new(StringArray::from(vec!["a short text of this row", &long]));
        let one = whole.slice(0, 1);
        let field = Field::new("C", DataType::Utf8, true);
        let (row, before) = (&row("text", 0, 0), 0);
        let out = convert(&one, &field, At { row, before }, &DataType::Utf8View).unwrap();
        assert!(out.get_array_memory_size() < 1 << 10);
    }
}
