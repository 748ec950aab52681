//! Narrow columns as arrays of rows, which the driver fills in one call: their layout, and their way
//! into Arrow columns.

use odbc_api::Bit;
use odbc_api::buffers::{AnyColumnBufferSlice, BufferDesc};
use odbc_api::sys::{Date, Timestamp};

use super::builders::ColumnBuilder;
use super::types::Fetch;
use crate::error::Result;

/// Widest text column, in characters, that is fetched in arrays.
const NARROW_CHARS: usize = 1024;

/// The layout of columns that are fetched as `fetch` says, texts as UTF-8 or UTF-16; none if one
/// may be wide.
pub(super) fn layout(fetch: &[Fetch], utf8: bool) -> Option<Vec<BufferDesc>> {
    let nullable = true;
    let columns = fetch.iter().map(|fetch| match *fetch {
        Fetch::Integer => Some(BufferDesc::I64 { nullable }),
        Fetch::Float32 => Some(BufferDesc::F32 { nullable }),
        Fetch::Float64 => Some(BufferDesc::F64 { nullable }),
        Fetch::Boolean => Some(BufferDesc::Bit { nullable }),
        Fetch::Date => Some(BufferDesc::Date { nullable }),
        Fetch::Timestamp(_) => Some(BufferDesc::Timestamp { nullable }),
        Fetch::Text(Some(chars)) if chars <= NARROW_CHARS => Some(match utf8 {
            // A character is at most four bytes, or two units of UTF-16.
            true => BufferDesc::Text {
                max_str_len: chars * 4,
            },
            false => BufferDesc::WText {
                max_str_len: chars * 2,
            },
        }),
        Fetch::Text(_) | Fetch::Bytes => None,
    });
    columns.collect()
}

/// Appends the first `rows` values of `array` to `column`.
pub(super) fn append(
    column: &mut ColumnBuilder,
    fetch: Fetch,
    array: AnyColumnBufferSlice<'_>,
    rows: usize,
) -> Result<()> {
    match fetch {
        Fetch::Integer => cells::<i64>(array, rows).for_each(|v| column.integer(v)),
        Fetch::Float32 => cells::<f32>(array, rows).for_each(|v| column.float32(v)),
        Fetch::Float64 => cells::<f64>(array, rows).for_each(|v| column.float64(v)),
        Fetch::Boolean => cells::<Bit>(array, rows).for_each(|v| column.boolean(v)),
        Fetch::Date => cells::<Date>(array, rows).try_for_each(|v| column.date(v))?,
        Fetch::Timestamp(_) => {
            cells::<Timestamp>(array, rows).try_for_each(|v| column.timestamp(v))?;
        }
        Fetch::Text(_) | Fetch::Bytes => {
            if let Some(texts) = array.as_text() {
                (0..rows).try_for_each(|i| column.text(texts.get(i)))?;
            } else if let Some(texts) = array.as_wide_text() {
                (0..rows).try_for_each(|i| column.wide_text(texts.get(i)))?;
            }
        }
    }
    Ok(())
}

/// The first `rows` values of an array of T.
fn cells<'a, T: odbc_api::Pod>(
    array: AnyColumnBufferSlice<'a>,
    rows: usize,
) -> impl Iterator<Item = Option<T>> + 'a {
    let values = array.as_nullable_slice::<T>();
    values
        .into_iter()
        .flatten()
        .map(Option::<&T>::copied)
        .take(rows)
}
