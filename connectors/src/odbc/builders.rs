//! Values of a driver to Arrow columns of the declared types. A value that a column cannot hold is
//! an error that names column, row and value, never another value.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayBuilder, ArrayRef, BinaryViewBuilder, BooleanBuilder, Date32Builder,
    Decimal128Builder, Float32Builder, Float64Builder, Int64Builder, RecordBatch,
    RecordBatchOptions, StringViewBuilder,
};
use datafusion::arrow::datatypes::{DataType, Decimal128Type, DecimalType, FieldRef, SchemaRef};
use odbc_api::Bit;
use odbc_api::sys::{Date, Timestamp};

use super::calendar;
use super::types::Fetch;
use crate::cast;
use crate::error::{Error, Result};
use crate::sql::columns::{Column, Columns};

/// One batch in the making.
pub(super) struct BatchBuilder {
    pub(super) columns: Vec<ColumnBuilder>,
    schema: SchemaRef,
    rows: usize,
}

impl BatchBuilder {
    /// For `columns`, fetched as `fetch` says while `doing` something.
    pub(super) fn new(columns: &Columns, fetch: &[Fetch], doing: &str) -> Self {
        let doing: Arc<str> = doing.into();
        let fields = columns.iter().zip(fetch);
        Self {
            columns: fields
                .map(|(column, fetch)| ColumnBuilder::new(column, *fetch, &doing))
                .collect(),
            schema: Arc::clone(columns.schema()),
            rows: 0,
        }
    }

    /// Counts `rows` that every column has got.
    pub(super) fn add_rows(&mut self, rows: usize) {
        self.rows += rows;
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of texts and bytes so far.
    pub(super) fn bytes(&self) -> usize {
        self.columns.iter().map(|c| c.bytes).sum()
    }

    /// The batch; the builder begins the next one.
    pub(super) fn finish(&mut self) -> Result<RecordBatch> {
        let arrays = self.columns.iter_mut().map(ColumnBuilder::finish);
        let arrays = arrays.collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        self.rows = 0;
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)
            .map_err(|e| Error::while_doing("building a batch of ODBC rows", e))
    }
}

/// One column in the making.
pub(super) struct ColumnBuilder {
    /// The type in which the driver gives the values.
    own: DataType,
    field: FieldRef,
    doing: Arc<str>,
    values: Values,
    bytes: usize,
    /// Rows of the batches before.
    before: u64,
}

enum Values {
    Integer(Int64Builder),
    Float32(Float32Builder),
    Float64(Float64Builder),
    Boolean(BooleanBuilder),
    Date(Date32Builder),
    Timestamp(Int64Builder, i64),
    Text(StringViewBuilder),
    Decimal(Decimal128Builder, i8),
    Bytes(BinaryViewBuilder),
}

impl ColumnBuilder {
    fn new(column: &Column, fetch: Fetch, doing: &Arc<str>) -> Self {
        let own = column.own.data_type().clone();
        let values = match (fetch, &own) {
            (Fetch::Integer, _) => Values::Integer(Int64Builder::new()),
            (Fetch::Float32, _) => Values::Float32(Float32Builder::new()),
            (Fetch::Float64, _) => Values::Float64(Float64Builder::new()),
            (Fetch::Boolean, _) => Values::Boolean(BooleanBuilder::new()),
            (Fetch::Date, _) => Values::Date(Date32Builder::new()),
            (Fetch::Timestamp(per_second), _) => Values::Timestamp(Int64Builder::new(), per_second),
            (Fetch::Text(_), DataType::Decimal128(_, scale)) => {
                let builder = Decimal128Builder::new().with_data_type(own.clone());
                Values::Decimal(builder, *scale)
            }
            (Fetch::Text(_), _) => Values::Text(StringViewBuilder::new()),
            (Fetch::Bytes, _) => Values::Bytes(BinaryViewBuilder::new()),
        };
        Self {
            own,
            field: Arc::clone(&column.field),
            doing: Arc::clone(doing),
            values,
            bytes: 0,
            before: 0,
        }
    }

    pub(super) fn integer(&mut self, value: Option<i64>) {
        if let Values::Integer(builder) = &mut self.values {
            builder.append_option(value);
        }
    }

    pub(super) fn float32(&mut self, value: Option<f32>) {
        if let Values::Float32(builder) = &mut self.values {
            builder.append_option(value);
        }
    }

    pub(super) fn float64(&mut self, value: Option<f64>) {
        if let Values::Float64(builder) = &mut self.values {
            builder.append_option(value);
        }
    }

    pub(super) fn boolean(&mut self, value: Option<Bit>) {
        if let Values::Boolean(builder) = &mut self.values {
            builder.append_option(value.map(|bit| bit.0 != 0));
        }
    }

    pub(super) fn date(&mut self, value: Option<Date>) -> Result<()> {
        let days = value.map(|d| calendar::days(&d).ok_or_else(|| self.bad(&format!("{d:?}"))));
        let days = days.transpose()?;
        if let Values::Date(builder) = &mut self.values {
            builder.append_option(days);
        }
        Ok(())
    }

    pub(super) fn timestamp(&mut self, value: Option<Timestamp>) -> Result<()> {
        let Values::Timestamp(builder, per_second) = &mut self.values else {
            return Ok(());
        };
        let ticks = value.map(|t| calendar::ticks(&t, *per_second).ok_or(t));
        match ticks.transpose() {
            Ok(ticks) => builder.append_option(ticks),
            Err(time) => return Err(self.bad(&format!("{time:?}"))),
        }
        Ok(())
    }

    pub(super) fn text(&mut self, value: Option<&[u8]>) -> Result<()> {
        let text = match value.map(std::str::from_utf8).transpose() {
            Ok(text) => text,
            Err(error) => {
                let what = "a text that is not UTF-8; have the driver send UTF-8";
                return Err(self.refused(what).with_source(error));
            }
        };
        self.str(text)
    }

    pub(super) fn wide_text(&mut self, value: Option<&[u16]>) -> Result<()> {
        let text = value.map(String::from_utf16).transpose();
        let text = text.map_err(|e| self.refused("a text that is not UTF-16").with_source(e))?;
        self.str(text.as_deref())
    }

    fn str(&mut self, value: Option<&str>) -> Result<()> {
        self.bytes += value.map_or(0, str::len);
        match &mut self.values {
            Values::Text(builder) => builder.append_option(value),
            Values::Decimal(builder, scale) => {
                let DataType::Decimal128(precision, _) = self.own else {
                    return Ok(());
                };
                let fits = |n: &i128| Decimal128Type::is_valid_decimal_precision(*n, precision);
                match value.map(|v| (decimal(v, *scale).filter(fits), v)) {
                    None => builder.append_null(),
                    Some((Some(number), _)) => builder.append_value(number),
                    Some((None, text)) => return Err(self.bad(text)),
                }
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn binary(&mut self, value: Option<&[u8]>) {
        self.bytes += value.map_or(0, <[u8]>::len);
        if let Values::Bytes(builder) = &mut self.values {
            builder.append_option(value);
        }
    }

    fn bad(&self, value: &str) -> Error {
        let to = self.field.data_type();
        let value = cast::cut(value);
        self.refused(&format!("'{value}', which is no {to}"))
    }

    /// The value that would come next.
    fn refused(&self, what: &str) -> Error {
        let (doing, name) = (&self.doing, self.field.name());
        let row = self.before + self.values.len() as u64 + 1;
        Error::invalid(format!(
            "{doing}: row {row} has in column {name} {what}; correct the value, or read it \
             through a view that casts it"
        ))
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        self.bytes = 0;
        let array: ArrayRef = match &mut self.values {
            Values::Integer(builder) | Values::Timestamp(builder, _) => Arc::new(builder.finish()),
            Values::Float32(builder) => Arc::new(builder.finish()),
            Values::Float64(builder) => Arc::new(builder.finish()),
            Values::Boolean(builder) => Arc::new(builder.finish()),
            Values::Date(builder) => Arc::new(builder.finish()),
            Values::Text(builder) => Arc::new(builder.finish()),
            Values::Decimal(builder, _) => Arc::new(builder.finish()),
            Values::Bytes(builder) => Arc::new(builder.finish()),
        };
        // The numbers of a timestamp are its own ticks, before another precision is asked for.
        let array = self.cast(&self.cast(&array, &self.own)?, self.field.data_type())?;
        self.before += array.len() as u64;
        Ok(array)
    }

    fn cast(&self, array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
        cast::strictly(&self.doing, self.field.name(), array, to, self.before)
    }
}

impl Values {
    /// How many there are.
    fn len(&self) -> usize {
        match self {
            Self::Integer(builder) | Self::Timestamp(builder, _) => builder.len(),
            Self::Float32(builder) => builder.len(),
            Self::Float64(builder) => builder.len(),
            Self::Boolean(builder) => builder.len(),
            Self::Date(builder) => builder.len(),
            Self::Text(builder) => builder.len(),
            Self::Decimal(builder, _) => builder.len(),
            Self::Bytes(builder) => builder.len(),
        }
    }
}

/// A decimal number as its digits; none if it has more fractional digits than `scale`.
fn decimal(text: &str, scale: i8) -> Option<i128> {
    let text = text.trim();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let scale = usize::try_from(scale).ok()?;
    let fraction = fraction.trim_end_matches('0');
    if whole.is_empty() && fraction.is_empty() && !digits.contains('0') || fraction.len() > scale {
        return None;
    }
    let zeroes = std::iter::repeat_n(b'0', scale - fraction.len());
    let mut number: i128 = 0;
    for digit in whole.bytes().chain(fraction.bytes()).chain(zeroes) {
        if !digit.is_ascii_digit() {
            return None;
        }
        number = number
            .checked_mul(10)?
            .checked_add(i128::from(digit - b'0'))?;
    }
    Some(if negative { -number } else { number })
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::Field;

    use super::*;

    #[test]
    fn decimals_are_exact_or_errors() {
        let cases = [
            ("-12.5", 2, Some(-1250)),
            (".5", 1, Some(5)),
            ("7", 0, Some(7)),
            ("1.250", 2, Some(125)),
            ("1.255", 2, None),
            ("0", 0, Some(0)),
            (".0", 1, Some(0)),
            ("", 1, None),
            ("NaN", 1, None),
            ("1e3", 1, None),
        ];
        for (text, scale, expected) in cases {
            assert_eq!(decimal(text, scale), expected, "{text}");
        }
    }

    #[test]
    fn a_value_that_does_not_fit_is_an_error() {
        let check = |data_type: DataType, text: &str| {
            let field = Arc::new(Field::new("c", data_type, true));
            let column = Column {
                own: Arc::clone(&field),
                field,
                comparable: true,
            };
            let mut column = ColumnBuilder::new(&column, Fetch::Text(None), &"reading t".into());
            // Rows are counted over batches and within one.
            column.text(None).unwrap();
            column.finish().unwrap();
            column.text(None).unwrap();
            let done = column
                .text(Some(text.as_bytes()))
                .and_then(|()| column.finish());
            done.map(|array| array.len()).map_err(|e| e.to_string())
        };
        assert_eq!(check(DataType::Int64, "9000000000000000000"), Ok(2));
        assert_eq!(check(DataType::Decimal128(38, 37), "-9.99"), Ok(2));
        for (data_type, text) in [
            (DataType::Int64, "abc"),
            (DataType::Int64, "1.5"),
            (DataType::Date32, "2026-02-30"),
            (DataType::Decimal128(3, 1), "1234.5"),
            (DataType::Decimal128(38, 37), "10"),
            (DataType::Decimal128(3, 1), "NaN"),
        ] {
            let error = check(data_type, text).unwrap_err();
            for part in ["reading t", "column c", "row 3", &format!("'{text}'")] {
                assert!(error.contains(part), "{error}");
            }
        }
    }
}
