//! Arrow's own conversions of what Snowflake sends, strict, with errors that name column, row and
//! value.

use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array};
use datafusion::arrow::datatypes::{DataType, Int64Type};

use super::messages::RowType;
use crate::cast;
use crate::error::{Error, ErrorKind, Result};

/// The column of an array.
#[derive(Debug, Clone, Copy)]
pub(super) struct At<'r> {
    /// As the server declares it.
    pub(super) row: &'r RowType,
    /// Rows of the result before the array.
    pub(super) before: u64,
}

impl At<'_> {
    /// Arrow's own conversion.
    pub(super) fn plain(self, array: &ArrayRef, target: &DataType) -> Result<ArrayRef> {
        cast::strictly("converting", &self.row.name, array, target, self.before)
    }

    /// Whole numbers of any width.
    pub(super) fn integers(self, array: &ArrayRef) -> Result<Int64Array> {
        let integers = self.plain(array, &DataType::Int64)?;
        Ok(integers.as_primitive::<Int64Type>().clone())
    }

    /// Arrays that make no sense.
    pub(super) fn broken(self, what: &str) -> Error {
        let RowType { name, kind, .. } = self.row;
        Error::new(
            ErrorKind::Corrupt,
            format!("reading column {name} ({kind}): {what}"),
        )
    }
}
