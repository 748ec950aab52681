//! Timestamps and times as Snowflake sends them, as one type.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::datatypes::{DataType, TimeUnit};

use super::plain::At;
use crate::error::{Error, Result};

/// Decimal digits of a nanosecond.
const NANO_DIGITS: u32 = 9;

/// `array`, whose numbers have `scale` digits after the second, as the timestamp or time `target`.
///
/// # Errors
/// A moment that the target cannot hold, because it is too far away or too precise.
pub(super) fn convert(
    array: &ArrayRef,
    scale: u32,
    at: At<'_>,
    target: &DataType,
) -> Result<ArrayRef> {
    let digits = match target {
        DataType::Timestamp(TimeUnit::Second, _) => 0,
        DataType::Timestamp(TimeUnit::Millisecond, _) => 3,
        DataType::Timestamp(TimeUnit::Microsecond, _) => 6,
        _ => NANO_DIGITS,
    };
    let moments = Moments::new(array, scale, at)?;
    let values: ArrayRef = Arc::new(Int64Array::from(moments.in_units(digits, at)?));
    // Between integers and moments of the same unit, Arrow's conversion keeps the number.
    at.plain(&values, target)
}

/// Seconds and nanoseconds of each row.
struct Moments {
    seconds: Int64Array,
    nanoseconds: Option<Int64Array>,
    /// Digits after the second in `seconds`.
    scale: u32,
}

impl Moments {
    /// One number of 10^-scale seconds, or `{epoch, fraction, timezone}` of which the last two may
    /// be absent. The epoch is in UTC whatever the time zone, which is only for display.
    fn new(array: &ArrayRef, scale: u32, at: At<'_>) -> Result<Self> {
        if scale > NANO_DIGITS {
            return Err(at.broken("its scale is more than 9"));
        }
        let Some(parts) = array.as_struct_opt() else {
            return Ok(Self {
                seconds: at.integers(array)?,
                nanoseconds: None,
                scale,
            });
        };
        let epoch = parts
            .column_by_name("epoch")
            .ok_or_else(|| at.broken("it has no epoch"))?;
        let fraction = parts.column_by_name("fraction");
        let nulls = parts.nulls();
        let seconds = at.integers(epoch)?;
        let seconds = match nulls {
            None => seconds,
            // The parts of a null struct need not be null themselves.
            Some(nulls) => {
                let both = NullBuffer::union(seconds.nulls(), Some(nulls));
                Int64Array::new(seconds.values().clone(), both)
            }
        };
        Ok(Self {
            seconds,
            nanoseconds: fraction.map(|f| at.integers(f)).transpose()?,
            scale: if fraction.is_some() { 0 } else { scale },
        })
    }

    /// Each row in units of 10^-digits seconds.
    fn in_units(&self, digits: u32, at: At<'_>) -> Result<Vec<Option<i64>>> {
        let per_second = 10i128.pow(digits);
        let sent = 10i128.pow(self.scale);
        let nano = 10i128.pow(NANO_DIGITS);
        let rows = (0..self.seconds.len()).map(|i| {
            if self.seconds.is_null(i) {
                return Ok(None);
            }
            let fraction = match &self.nanoseconds {
                Some(n) if !n.is_null(i) => i128::from(n.value(i)),
                _ => 0,
            };
            let nanoseconds = i128::from(self.seconds.value(i)) * (nano / sent) + fraction;
            let unit = nano / per_second;
            let exact = nanoseconds % unit == 0;
            let value = i64::try_from(nanoseconds / unit).ok().filter(|_| exact);
            value.map(Some).ok_or_else(|| {
                Error::invalid(format!(
                    "reading column {}: row {} has a time, {} seconds and {} nanoseconds from 1970, \
                     that does not fit its type; declare the column in CREATE EXTERNAL TABLE with \
                     another precision, such as TIMESTAMP(6) for years after 2262 or TIMESTAMP(9) \
                     for nanoseconds",
                    at.row.name,
                    at.before + i as u64 + 1,
                    nanoseconds.div_euclid(nano),
                    nanoseconds.rem_euclid(nano)
                ))
            })
        });
        rows.collect()
    }
}
