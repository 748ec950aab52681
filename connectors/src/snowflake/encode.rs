//! Rows as the values of one INSERT: an array of texts per column.
//!
//! Every value is sent as a text, which Snowflake converts to the column's type; the formats are
//! fixed when the session starts.

use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Schema, SchemaRef};
use serde_json::{Map, Value, json};

use crate::cast;
use crate::error::{Error, ErrorKind, Result};

/// Values in one INSERT. From 65,280 on, Snowflake's drivers put them into a file instead.
const MAX_VALUES: usize = 60_000;
/// Bytes of text in one INSERT, unless a single row is larger.
const MAX_BYTES: usize = 8 << 20;

/// The rows of the next INSERT.
#[derive(Debug)]
pub(super) struct Binding {
    columns: Vec<Vec<Value>>,
    bytes: usize,
}

impl Binding {
    pub(super) fn new(columns: usize) -> Self {
        Self {
            columns: vec![vec![]; columns],
            bytes: 0,
        }
    }

    /// The number of rows.
    pub(super) fn rows(&self) -> usize {
        self.columns.first().map_or(0, Vec::len)
    }

    /// Takes rows of `batch` from `from` on until it is full; returns how many.
    pub(super) fn fill(&mut self, batch: &TextBatch, from: usize) -> usize {
        let mut row = from;
        while row < batch.0.num_rows() && !self.is_full(batch, row) {
            for (values, texts) in self.columns.iter_mut().zip(batch.0.columns()) {
                let texts = texts.as_string_view();
                values.push(match texts.is_null(row) {
                    true => Value::Null,
                    false => Value::String(texts.value(row).to_owned()),
                });
            }
            self.bytes += batch.row_bytes(row);
            row += 1;
        }
        row - from
    }

    fn is_full(&self, batch: &TextBatch, row: usize) -> bool {
        let values = (self.rows() + 1) * self.columns.len();
        self.rows() > 0 && (values > MAX_VALUES || self.bytes + batch.row_bytes(row) > MAX_BYTES)
    }

    /// The rows as Snowflake takes them; none are left.
    pub(super) fn take(&mut self) -> Value {
        self.bytes = 0;
        let columns = self.columns.iter_mut().enumerate().map(|(i, values)| {
            let values = std::mem::take(values);
            (
                (i + 1).to_string(),
                json!({"type": "TEXT", "value": values}),
            )
        });
        Value::Object(columns.collect::<Map<_, _>>())
    }
}

/// Rows whose columns are all texts.
pub(super) struct TextBatch(RecordBatch);

impl TextBatch {
    /// `batch` as texts; by position.
    ///
    /// # Errors
    /// A type whose text Snowflake would not convert back.
    pub(super) fn new(batch: &RecordBatch, schema: &Schema) -> Result<Self> {
        let columns = schema.fields().iter().zip(batch.columns());
        let columns = columns.map(|(field, column)| {
            check_type(field.name(), column.data_type())?;
            cast::strictly("writing rows", field.name(), column, &DataType::Utf8View, 0)
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let named = schema.fields().iter().zip(columns);
        let named = named.map(|(field, column)| (field.name().as_str(), column));
        RecordBatch::try_from_iter_with_nullable(named.map(|(n, c)| (n, c, true)))
            .map(Self)
            .map_err(|e| Error::while_doing("converting rows to text", e))
    }

    /// The number of rows.
    pub(super) fn rows(&self) -> usize {
        self.0.num_rows()
    }

    /// The rows from `from` on under the names of `schema`, by position.
    pub(super) fn columns(&self, schema: &SchemaRef, from: usize) -> Result<RecordBatch> {
        let rows = self.0.slice(from, self.0.num_rows() - from);
        RecordBatch::try_new(Arc::clone(schema), rows.columns().to_vec())
            .map_err(|e| Error::while_doing("naming the columns of a file", e))
    }

    /// Bytes of text in the rows from `from` on.
    pub(super) fn bytes(&self, from: usize) -> usize {
        (from..self.0.num_rows())
            .map(|row| self.row_bytes(row))
            .sum()
    }

    fn row_bytes(&self, row: usize) -> usize {
        let columns = self.0.columns().iter();
        columns
            .map(|c| c.as_string_view())
            .map(|c| {
                if c.is_null(row) {
                    0
                } else {
                    c.value(row).len()
                }
            })
            .sum()
    }
}

/// # Errors
/// A type that INSERT does not take.
pub(super) fn check_type(name: &str, data_type: &DataType) -> Result<()> {
    use DataType::{
        Boolean, Date32, Date64, Decimal128, LargeUtf8, Null, Time32, Time64, Timestamp, Utf8,
        Utf8View,
    };
    let text = matches!(
        data_type,
        Boolean
            | Date32
            | Date64
            | Decimal128(..)
            | LargeUtf8
            | Null
            | Time32(_)
            | Time64(_)
            | Timestamp(..)
            | Utf8
            | Utf8View
    );
    match text || data_type.is_integer() || data_type.is_floating() {
        true => Ok(()),
        false => Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "column {name} has type {data_type}, which INSERT into Snowflake does not take; \
                 cast it to text"
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{
        ArrayRef, Date32Array, Float32Array, Float64Array, Int32Array, StringArray,
        TimestampMicrosecondArray,
    };

    use super::*;

    fn texts(columns: Vec<ArrayRef>) -> TextBatch {
        let named = columns.into_iter().enumerate();
        let batch = RecordBatch::try_from_iter(named.map(|(i, c)| (format!("c{i}"), c))).unwrap();
        TextBatch::new(&batch, &batch.schema()).unwrap()
    }

    #[test]
    fn values_become_texts_that_mean_the_same() {
        let batch = texts(vec![
            Arc::new(Int32Array::from(vec![Some(7), None])),
            Arc::new(Float32Array::from(vec![0.1, f32::NAN])),
            Arc::new(Float64Array::from(vec![1e-300, -0.0])),
            Arc::new(Date32Array::from(vec![Some(-1), None])),
            Arc::new(TimestampMicrosecondArray::from(vec![Some(1_500_000), None])),
            Arc::new(StringArray::from(vec!["é\\'\0", ""])),
        ]);
        let mut binding = Binding::new(6);
        assert_eq!(binding.fill(&batch, 0), 2);
        let bound = binding.take();
        let value = |column: &str| bound[column]["value"].clone();
        assert_eq!(value("1"), json!(["7", null]));
        assert_eq!(value("2"), json!(["0.1", "NaN"]));
        assert_eq!(value("3")[0].as_str().unwrap().parse(), Ok(1e-300));
        assert_eq!(value("4"), json!(["1969-12-31", null]));
        assert_eq!(value("5"), json!(["1970-01-01T00:00:01.500", null]));
        assert_eq!(value("6"), json!(["é\\'\0", ""]));
        assert_eq!(binding.rows(), 0);
    }

    #[test]
    fn an_insert_is_bounded_by_values_and_bytes() {
        let narrow = texts(vec![Arc::new(Int32Array::from_iter_values(0..100_000))]);
        let mut binding = Binding::new(1);
        assert_eq!(binding.fill(&narrow, 0), MAX_VALUES);
        binding.take();
        assert_eq!(binding.fill(&narrow, MAX_VALUES), 100_000 - MAX_VALUES);
        let long = "x".repeat(MAX_BYTES / 2 + 1);
        let longer = "x".repeat(MAX_BYTES * 2);
        let wide = texts(vec![Arc::new(StringArray::from_iter_values([
            &long, &long, &longer,
        ]))]);
        for (from, taken) in [(0, 1), (1, 1), (2, 1)] {
            let mut binding = Binding::new(1);
            assert_eq!(binding.fill(&wide, from), taken);
        }
    }

    #[test]
    fn bytes_are_refused() {
        assert!(check_type("c", &DataType::Binary).is_err());
    }
}
