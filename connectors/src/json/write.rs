//! Rows on their way into JSON files: JSON has no NaN and no infinity, and the library would write
//! null in their place.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float16Type, Float32Type, Float64Type, SchemaRef};
use datafusion::arrow::error::ArrowError;
use datafusion::datasource::sink::{DataSink, DataSinkExec};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType};
use futures::StreamExt;

use crate::error::Error;

/// The library's writer, which is given only what it can write.
#[derive(Debug)]
pub(super) struct JsonTextSink(pub(super) DataSinkExec);

impl DisplayAs for JsonTextSink {
    fn fmt_as(&self, t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.sink().fmt_as(t, f)
    }
}

#[async_trait]
impl DataSink for JsonTextSink {
    fn metrics(&self) -> Option<MetricsSet> {
        self.0.sink().metrics()
    }

    fn schema(&self) -> &SchemaRef {
        self.0.sink().schema()
    }

    async fn write_all(
        &self,
        data: SendableRecordBatchStream,
        context: &Arc<TaskContext>,
    ) -> Result<u64> {
        let schema = data.schema();
        let mut before = 0;
        let checked = data.map(move |batch| {
            let batch = batch?;
            check(&batch, before)?;
            before += batch.num_rows() as u64;
            Ok(batch)
        });
        let checked = RecordBatchStreamAdapter::new(schema, checked);
        self.0.sink().write_all(Box::pin(checked), context).await
    }
}

/// `before` is the number of rows that came earlier.
fn check(batch: &RecordBatch, before: u64) -> Result<(), Error> {
    let schema = batch.schema();
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        let found = not_finite(column, &|_| true);
        let found = found.map_err(|e| {
            let name = field.name();
            Error::while_doing(
                format!("looking for numbers that JSON lacks in column {name}"),
                e,
            )
        })?;
        if let Some((row, value)) = found {
            return Err(Error::invalid(format!(
                "column {}, row {}: {value} cannot be written as JSON; leave the row out, or write \
                 null or a text",
                field.name(),
                before + row as u64 + 1
            )));
        }
    }
    Ok(())
}

/// True for types with floating numbers at any depth.
fn has_floats(data_type: &DataType) -> bool {
    use DataType::*;
    match data_type {
        Struct(fields) => fields.iter().any(|field| has_floats(field.data_type())),
        List(inner)
        | LargeList(inner)
        | ListView(inner)
        | LargeListView(inner)
        | FixedSizeList(inner, _)
        | Map(inner, _)
        | RunEndEncoded(_, inner) => has_floats(inner.data_type()),
        Dictionary(_, values) => has_floats(values),
        Union(fields, _) => fields
            .iter()
            .any(|(_, field)| has_floats(field.data_type())),
        other => other.is_floating(),
    }
}

/// The first value that JSON does not have, in a row that `counts`: what lies below a null does not.
///
/// # Errors
/// A type whose values are not known here.
fn not_finite(
    column: &ArrayRef,
    counts: &dyn Fn(usize) -> bool,
) -> Result<Option<(usize, f64)>, ArrowError> {
    if !has_floats(column.data_type()) {
        return Ok(None);
    }
    let first = |values: &mut dyn Iterator<Item = Option<f64>>| {
        let mut values = values.enumerate();
        values.find_map(|(row, value)| {
            let value = value.filter(|value| !value.is_finite() && counts(row))?;
            Some((row, value))
        })
    };
    // The lists and maps of rows, one by one.
    let each = |inner: &dyn Fn(usize) -> ArrayRef| {
        for row in (0..column.len()).filter(|row| column.is_valid(*row) && counts(*row)) {
            if let Some((_, value)) = not_finite(&inner(row), &|_| true)? {
                return Ok(Some((row, value)));
            }
        }
        Ok(None)
    };
    Ok(match column.data_type() {
        DataType::Float64 => first(&mut column.as_primitive::<Float64Type>().iter()),
        DataType::Float32 => {
            let values = column.as_primitive::<Float32Type>().iter();
            first(&mut values.map(|v| v.map(f64::from)))
        }
        DataType::Float16 => {
            let values = column.as_primitive::<Float16Type>().iter();
            first(&mut values.map(|v| v.map(f64::from)))
        }
        DataType::Struct(_) => {
            let fields = column.as_struct().columns();
            let counts = |row| column.is_valid(row) && counts(row);
            for field in fields {
                if let Some(found) = not_finite(field, &counts)? {
                    return Ok(Some(found));
                }
            }
            None
        }
        DataType::List(_) => return each(&|row| column.as_list::<i32>().value(row)),
        DataType::LargeList(_) => return each(&|row| column.as_list::<i64>().value(row)),
        DataType::ListView(_) => return each(&|row| column.as_list_view::<i32>().value(row)),
        DataType::LargeListView(_) => return each(&|row| column.as_list_view::<i64>().value(row)),
        DataType::FixedSizeList(_, _) => {
            return each(&|row| column.as_fixed_size_list().value(row));
        }
        DataType::Map(_, _) => return each(&|row| Arc::new(column.as_map().value(row))),
        DataType::Dictionary(_, values) => return not_finite(&cast(column, values)?, counts),
        DataType::RunEndEncoded(_, values) => {
            return not_finite(&cast(column, values.data_type())?, counts);
        }
        other => {
            let message = format!("numbers in a {other} are not looked at; cast the column");
            return Err(ArrowError::NotYetImplemented(message));
        }
    })
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{DictionaryArray, Float64Builder};
    use datafusion::arrow::array::{
        FixedSizeListArray, Float32Array, Float64Array, Int32Array, LargeListArray, ListArray,
        MapBuilder, StringBuilder, StructArray,
    };
    use datafusion::arrow::buffer::NullBuffer;
    use datafusion::arrow::datatypes::{Field, Fields, Int32Type};

    use super::*;

    fn found(column: &ArrayRef) -> Option<(usize, f64)> {
        not_finite(column, &|_| true).unwrap()
    }

    #[test]
    fn what_json_does_not_have_is_named() {
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.0), None, Some(f64::NAN)]));
        let batch = RecordBatch::try_from_iter([("score", floats)]).unwrap();
        let error = check(&batch, 10).unwrap_err().to_string();
        assert!(error.contains("column score, row 13: NaN"), "{error}");
        let fine: ArrayRef = Arc::new(Float64Array::from(vec![1.0]));
        assert_eq!(found(&fine), None);
    }

    #[test]
    fn it_is_found_at_any_depth() {
        let infinite = Some((2, f64::INFINITY));
        let lists = || {
            vec![
                Some(vec![Some(1.0), None]),
                None,
                Some(vec![Some(2.0), Some(f64::INFINITY)]),
            ]
        };
        let list = ListArray::from_iter_primitive::<Float64Type, _, _>(lists());
        let large = LargeListArray::from_iter_primitive::<Float32Type, _, _>(
            lists().into_iter().map(|l| {
                l.map(|l| {
                    l.into_iter()
                        .map(|v| v.map(|v| v as f32))
                        .collect::<Vec<_>>()
                })
            }),
        );
        let fixed = FixedSizeListArray::from_iter_primitive::<Float64Type, _, _>(lists(), 2);
        let mut map = MapBuilder::new(None, StringBuilder::new(), Float64Builder::new());
        for row in lists() {
            for value in row.iter().flatten() {
                map.keys().append_value("k");
                map.values().append_option(*value);
            }
            map.append(row.is_some()).unwrap();
        }
        let keys = Int32Array::from(vec![Some(0), None, Some(1)]);
        let values = Float64Array::from(vec![1.0, f64::INFINITY]);
        let words = DictionaryArray::<Int32Type>::new(keys, Arc::new(values));
        let columns: [ArrayRef; 5] = [
            Arc::new(list),
            Arc::new(large),
            Arc::new(fixed),
            Arc::new(map.finish()),
            Arc::new(words),
        ];
        for column in columns {
            assert_eq!(found(&column), infinite, "{}", column.data_type());
            assert_eq!(found(&column.slice(0, 2)), None, "{}", column.data_type());
            let field = Field::new("x", column.data_type().clone(), true);
            let inside = StructArray::from(vec![(Arc::new(field), Arc::clone(&column))]);
            let inside: ArrayRef = Arc::new(inside);
            assert_eq!(found(&inside), infinite, "{}", column.data_type());
            assert_eq!(found(&inside.slice(2, 1)), Some((0, f64::INFINITY)));
        }
    }

    #[test]
    fn what_lies_below_a_null_does_not_count() {
        let fields = Fields::from(vec![Field::new("x", DataType::Float32, true)]);
        let values: ArrayRef = Arc::new(Float32Array::from(vec![f32::NAN, 1.0]));
        let nulls = NullBuffer::from(vec![false, true]);
        let below: ArrayRef = Arc::new(StructArray::new(fields, vec![values], Some(nulls)));
        assert_eq!(found(&below), None);
    }
}
