//! Conversion of a column to the type of a target, in which no value becomes another one or null.

use datafusion::arrow::array::{Array, ArrayRef};
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::util::display::array_value_to_string;

use crate::error::{Error, Result};

/// Characters of a bad value that an error shows.
const SHOWN_CHARS: usize = 80;

/// `column`, called `name`, as `to`; `before` rows came before it, so that an error can number its
/// row.
///
/// # Errors
/// A value that `to` cannot hold: which one, in which row.
pub(crate) fn strictly(
    doing: &str,
    name: &str,
    column: &ArrayRef,
    to: &DataType,
    before: u64,
) -> Result<ArrayRef> {
    if column.data_type() == to {
        return Ok(column.clone());
    }
    let options = |safe| CastOptions {
        safe,
        ..CastOptions::default()
    };
    let error = match cast_with_options(column, to, &options(false)) {
        Ok(cast) => return Ok(cast),
        Err(error) => error,
    };
    let lenient = cast_with_options(column, to, &options(true)).ok();
    let bad = lenient
        .and_then(|cast| (0..column.len()).find(|row| column.is_valid(*row) && cast.is_null(*row)));
    let Some(row) = bad else {
        return Err(Error::invalid(format!(
            "{doing}: column {name} is {}, which does not become {to}; cast it in the query",
            column.data_type()
        ))
        .with_source(error));
    };
    let value = array_value_to_string(column, row).unwrap_or_default();
    let shown: String = value.chars().take(SHOWN_CHARS).collect();
    let cut = if shown.len() < value.len() { "..." } else { "" };
    Err(Error::invalid(format!(
        "{doing}: column {name}, row {}: '{shown}'{cut} is no value of type {to}; correct it, or \
         say with try_cast in the query that such values become null",
        before + row as u64 + 1
    ))
    .with_source(error))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{Int64Array, StringArray};

    use super::*;

    #[test]
    fn a_bad_value_is_named_and_never_null() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("7"), None, Some("7x")]));
        let check = |column: &ArrayRef, to: DataType, expected: &str| {
            let error = strictly("writing t", "n", column, &to, 10).unwrap_err();
            let error = error.to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(
            &texts,
            DataType::Int32,
            "column n, row 13: '7x' is no value",
        );
        let big: ArrayRef = Arc::new(Int64Array::from(vec![1, 1 << 40]));
        check(&big, DataType::Int32, "row 12: '1099511627776'");
        check(&big, DataType::Date32, "");
        let fine = strictly("", "n", &texts.slice(0, 2), &DataType::Int32, 0).unwrap();
        assert_eq!(fine.null_count(), 1);
        let long: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(500)]));
        check(&long, DataType::Int32, "xxx'... is no value");
    }
}
