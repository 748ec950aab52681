//! Arrow rows as arrays of statement parameters, in pieces of bounded size: an array is as wide as
//! its longest text times its rows, so long answers travel in few rows at a time.

use std::ops::Range;

use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type,
    Int64Type, TimeUnit, TimestampMicrosecondType, TimestampNanosecondType,
};
use odbc_api::buffers::BoxColumnBuffer;
use odbc_api::handles::AsStatementRef;
use odbc_api::parameter::WithDataType;
use odbc_api::sys::{Date, Timestamp};
use odbc_api::{BindParamDesc, Bit, ColumnarBulkInserter};

use super::calendar;
use crate::error::{Error, ErrorKind, Result};

/// Bytes of all parameters of one execution.
const PIECE_BYTES: usize = 8 << 20;
/// Rows of one execution: more save no round trips worth having.
const PIECE_ROWS: usize = 1000;

/// The rows of a batch that go into one execution.
#[derive(Debug, PartialEq)]
pub(super) struct Piece {
    pub(super) rows: Range<usize>,
    /// The longest value of each column, in the units in which it is sent.
    widths: Vec<usize>,
}

/// Cuts `batch` into pieces; texts are sent as UTF-8 or as UTF-16.
pub(super) fn pieces(batch: &RecordBatch, utf8: bool) -> Vec<Piece> {
    let unit = if utf8 { 1 } else { 2 };
    let mut out = vec![];
    let mut start = 0;
    let mut widths = vec![1; batch.num_columns()];
    for row in 0..batch.num_rows() {
        let mut wider = widths.clone();
        for (width, column) in wider.iter_mut().zip(batch.columns()) {
            *width = (*width).max(value_width(column.as_ref(), row, utf8));
        }
        let rows = row - start + 1;
        let bytes = rows * wider.iter().sum::<usize>() * unit;
        if row > start && (bytes > PIECE_BYTES || rows > PIECE_ROWS) {
            out.push(Piece {
                rows: start..row,
                widths,
            });
            start = row;
            wider = vec![1; batch.num_columns()];
            for (width, column) in wider.iter_mut().zip(batch.columns()) {
                *width = (*width).max(value_width(column.as_ref(), row, utf8));
            }
        }
        widths = wider;
    }
    if batch.num_rows() > start {
        let rows = start..batch.num_rows();
        out.push(Piece { rows, widths });
    }
    out
}

fn value_width(column: &dyn Array, row: usize, utf8: bool) -> usize {
    if column.is_null(row) {
        return 1;
    }
    match column.data_type() {
        DataType::Utf8View if utf8 => column.as_string_view().value(row).len(),
        DataType::Utf8View => column.as_string_view().value(row).encode_utf16().count(),
        DataType::BinaryView => column.as_binary_view().value(row).len(),
        _ => size_of::<Timestamp>(),
    }
}

impl Piece {
    /// How the columns of `batch` are bound.
    pub(super) fn descriptions(
        &self,
        batch: &RecordBatch,
        utf8: bool,
    ) -> Result<Vec<BindParamDesc>> {
        let schema = batch.schema();
        let columns = schema.fields().iter().zip(&self.widths);
        columns
            .map(|(field, width)| {
                Ok(match field.data_type() {
                    DataType::Int16 | DataType::Int32 => BindParamDesc::i32(true),
                    DataType::Int64 => BindParamDesc::i64(true),
                    DataType::Float32 => BindParamDesc::f32(true),
                    DataType::Float64 => BindParamDesc::f64(true),
                    DataType::Boolean => BindParamDesc::bit(true),
                    DataType::Date32 => BindParamDesc::date(true),
                    DataType::Timestamp(TimeUnit::Microsecond, None) => {
                        BindParamDesc::timestamp(true, 6)
                    }
                    DataType::Timestamp(TimeUnit::Nanosecond, None) => {
                        BindParamDesc::timestamp(true, 7)
                    }
                    DataType::Decimal128(precision, scale) => {
                        BindParamDesc::decimal_as_text(*precision, *scale)
                    }
                    DataType::Utf8View if utf8 => BindParamDesc::text(*width),
                    DataType::Utf8View => BindParamDesc::wide_text(*width),
                    DataType::BinaryView => BindParamDesc::binary(*width),
                    other => {
                        return Err(Error::new(
                            ErrorKind::Internal,
                            format!("column {}: {other} is not sent over ODBC", field.name()),
                        ));
                    }
                })
            })
            .collect()
    }

    /// Puts the rows into the arrays of `inserter`, which was made for [`Self::descriptions`].
    pub(super) fn fill<S: AsStatementRef>(
        &self,
        batch: &RecordBatch,
        inserter: &mut ColumnarBulkInserter<S, WithDataType<BoxColumnBuffer>>,
    ) -> Result<()> {
        inserter.set_num_rows(self.rows.len());
        for (i, field) in batch.schema().fields().iter().enumerate() {
            let column = batch.column(i).slice(self.rows.start, self.rows.len());
            let mut target = Target { inserter, i };
            match field.data_type() {
                DataType::Int16 => {
                    target.fixed(
                        column
                            .as_primitive::<Int16Type>()
                            .iter()
                            .map(|v| v.map(i32::from)),
                    );
                }
                DataType::Int32 => target.fixed(column.as_primitive::<Int32Type>().iter()),
                DataType::Int64 => target.fixed(column.as_primitive::<Int64Type>().iter()),
                DataType::Float32 => target.fixed(column.as_primitive::<Float32Type>().iter()),
                DataType::Float64 => target.fixed(column.as_primitive::<Float64Type>().iter()),
                DataType::Boolean => {
                    target.fixed(column.as_boolean().iter().map(|v| v.map(Bit::from_bool)));
                }
                DataType::Date32 => {
                    let days = column.as_primitive::<Date32Type>();
                    let dates = days
                        .iter()
                        .map(|day| in_range(field.name(), day, calendar::date));
                    target.fixed(dates.collect::<Result<Vec<Option<Date>>>>()?.into_iter());
                }
                DataType::Timestamp(TimeUnit::Microsecond, None) => {
                    let ticks = column.as_primitive::<TimestampMicrosecondType>().iter();
                    let times = ticks
                        .map(|t| in_range(field.name(), t, |t| calendar::timestamp(t, 1_000_000)));
                    target.fixed(
                        times
                            .collect::<Result<Vec<Option<Timestamp>>>>()?
                            .into_iter(),
                    );
                }
                DataType::Timestamp(TimeUnit::Nanosecond, None) => {
                    let ticks = column.as_primitive::<TimestampNanosecondType>().iter();
                    let times = ticks.map(|t| {
                        in_range(field.name(), t, |t| calendar::timestamp(t, 1_000_000_000))
                    });
                    target.fixed(
                        times
                            .collect::<Result<Vec<Option<Timestamp>>>>()?
                            .into_iter(),
                    );
                }
                DataType::Decimal128(..) => {
                    let decimals = column.as_primitive::<Decimal128Type>();
                    let text = |row| {
                        decimals
                            .is_valid(row)
                            .then(|| decimals.value_as_string(row))
                    };
                    target.texts((0..decimals.len()).map(text));
                }
                DataType::Utf8View => target.texts(column.as_string_view().iter()),
                DataType::BinaryView => target.binaries(column.as_binary_view().iter()),
                // Refused by `descriptions`.
                _ => {}
            }
        }
        Ok(())
    }
}

fn in_range<T, U>(
    name: &str,
    value: Option<T>,
    convert: impl Fn(T) -> Option<U>,
) -> Result<Option<U>>
where
    T: Copy + std::fmt::Display,
{
    let Some(value) = value else { return Ok(None) };
    let converted = convert(value).ok_or_else(|| {
        Error::invalid(format!(
            "column {name}: {value} is in a year that ODBC cannot express"
        ))
    })?;
    Ok(Some(converted))
}

/// One array of parameters.
struct Target<'i, S> {
    inserter: &'i mut ColumnarBulkInserter<S, WithDataType<BoxColumnBuffer>>,
    i: usize,
}

impl<S: AsStatementRef> Target<'_, S> {
    fn fixed<T: odbc_api::Pod>(&mut self, values: impl Iterator<Item = Option<T>>) {
        if let Some(mut cells) = self.inserter.column_mut(self.i).as_nullable_slice::<T>() {
            values
                .enumerate()
                .for_each(|(row, value)| cells.set_cell(row, value));
        }
    }

    fn texts<T: AsRef<str>>(&mut self, values: impl Iterator<Item = Option<T>>) {
        let mut wide: Vec<u16> = vec![];
        for (row, value) in values.enumerate() {
            let text = value.as_ref().map(AsRef::as_ref);
            if let Some(mut cells) = self.inserter.column_mut(self.i).as_text() {
                cells.set_cell(row, text.map(str::as_bytes));
            } else if let Some(mut cells) = self.inserter.column_mut(self.i).as_wide_text() {
                wide.clear();
                wide.extend(text.unwrap_or_default().encode_utf16());
                cells.set_cell(row, text.map(|_| &wide[..]));
            }
        }
    }

    fn binaries<'v>(&mut self, values: impl Iterator<Item = Option<&'v [u8]>>) {
        if let Some(mut cells) = self.inserter.column_mut(self.i).as_binary() {
            values
                .enumerate()
                .for_each(|(row, value)| cells.set_cell(row, value));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{ArrayRef, StringViewArray};

    use super::*;

    fn cut(texts: &[&str], utf8: bool) -> Vec<Piece> {
        let column: ArrayRef = Arc::new(StringViewArray::from_iter_values(texts));
        pieces(&RecordBatch::try_from_iter([("c", column)]).unwrap(), utf8)
    }

    #[test]
    fn long_texts_travel_in_few_rows() {
        let long = "x".repeat(3 << 20);
        let cuts = cut(&["a", &long, &long, "b", "ž"], true);
        let rows: Vec<_> = cuts.iter().map(|p| p.rows.clone()).collect();
        assert_eq!(rows, [0..2, 2..4, 4..5]);
        assert_eq!(cuts[2].widths, [2]);
        assert_eq!(cut(&["ž🎉"], false)[0].widths, [3]);
        assert_eq!(cut(&["a"; 2500], true).len(), 3);
        assert_eq!(cut(&[], true).len(), 0);
        assert_eq!(cut(&[&"x".repeat(20 << 20)], true).len(), 1);
    }
}
