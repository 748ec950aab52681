//! Arrow's own conversions of what Snowflake sends, strict, with errors that name the column.

use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array};
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::{DataType, Int64Type};

use super::messages::RowType;
use crate::error::{Error, ErrorKind, Result};

/// Arrow's own conversion.
pub(super) fn plain(array: &ArrayRef, target: &DataType, row: &RowType) -> Result<ArrayRef> {
    let strict = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    cast_with_options(array, target, &strict).map_err(|e| {
        Error::new(
            ErrorKind::Unsupported,
            format!(
                "reading column {} ({}) as {target}: {e}; leave it out of the query, read it \
                 through a view that casts it, or declare another type in CREATE EXTERNAL TABLE",
                row.name, row.kind
            ),
        )
        .with_source(e)
    })
}

/// Whole numbers of any width.
pub(super) fn integers(array: &ArrayRef, row: &RowType) -> Result<Int64Array> {
    Ok(plain(array, &DataType::Int64, row)?
        .as_primitive::<Int64Type>()
        .clone())
}

/// A column whose arrays make no sense.
pub(super) fn broken(row: &RowType, what: &str) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!("reading column {} ({}): {what}", row.name, row.kind),
    )
}
