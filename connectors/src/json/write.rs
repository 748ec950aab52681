//! Rows on their way into JSON files: JSON has no NaN and no infinity, and the library would write
//! null in their place.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Float16Type, Float32Type, Float64Type, SchemaRef};
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
        if let Some((row, value)) = not_finite(column) {
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

/// The first value that JSON does not have.
fn not_finite(column: &ArrayRef) -> Option<(usize, f64)> {
    let first = |values: &mut dyn Iterator<Item = Option<f64>>| {
        let mut values = values.enumerate();
        values.find_map(|(row, value)| Some((row, value.filter(|v| !v.is_finite())?)))
    };
    match column.data_type() {
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
            let fields = column.as_struct();
            fields.columns().iter().find_map(not_finite)
        }
        DataType::List(_) => {
            let list = column.as_list::<i32>();
            let offsets = list.value_offsets();
            let (start, end) = (*offsets.first()?, *offsets.last()?);
            let inner = list.values().slice(start as usize, (end - start) as usize);
            let (at, value) = not_finite(&inner)?;
            let at = start + at as i32;
            let row = offsets
                .windows(2)
                .position(|pair| pair[0] <= at && at < pair[1]);
            Some((row.unwrap_or_default(), value))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{Float64Array, ListArray};

    use super::*;

    #[test]
    fn what_json_does_not_have_is_named() {
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.0), None, Some(f64::NAN)]));
        let batch = RecordBatch::try_from_iter([("score", floats)]).unwrap();
        let error = check(&batch, 10).unwrap_err().to_string();
        assert!(error.contains("column score, row 13: NaN"), "{error}");
        let lists = vec![
            Some(vec![Some(1.0)]),
            None,
            Some(vec![Some(2.0), Some(f64::INFINITY)]),
        ];
        let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(lists));
        assert_eq!(not_finite(&lists), Some((2, f64::INFINITY)));
        let fine: ArrayRef = Arc::new(Float64Array::from(vec![1.0]));
        assert_eq!(not_finite(&fine), None);
    }
}
