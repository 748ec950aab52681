//! Rows on their way into folders such as `court=First`: the library's writer knows no nulls there, and
//! would write 0, an empty text or 1970 in their place.

use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray, RecordBatch, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::arrow::error::ArrowError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;

use crate::error::{Error, Result};

/// The value of a folder that stands for null.
pub(crate) const NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// `rows` with the columns `names`, which become folders, as texts without nulls. If files `keep` these
/// columns they stay as they are, and a null is an error.
pub(crate) fn written(
    rows: SendableRecordBatchStream,
    names: Vec<String>,
    keep: bool,
) -> SendableRecordBatchStream {
    let schema = rows.schema();
    let written = rows.map(move |batch| Ok(as_text(&batch?, &names, keep)?));
    Box::pin(RecordBatchStreamAdapter::new(schema, written))
}

fn as_text(batch: &RecordBatch, names: &[String], keep: bool) -> Result<RecordBatch> {
    let schema = batch.schema();
    let mut fields: Vec<FieldRef> = schema.fields().iter().cloned().collect();
    let mut columns = batch.columns().to_vec();
    for (field, column) in fields.iter_mut().zip(&mut columns) {
        let name = field.name().clone();
        if !names.contains(&name) {
            continue;
        }
        let doing = || format!("making folders of column {name}");
        let failed = |e: ArrowError| Error::while_doing(doing(), e);
        let texts = cast(column, &DataType::Utf8).map_err(failed)?;
        let texts = texts.as_string::<i32>();
        if texts.iter().flatten().any(|text| text == NULL) {
            return Err(Error::invalid(format!(
                "column {name} has the text {NULL}, which stands for null in the name of a folder; \
                 leave the rows out or change the text"
            )));
        }
        if keep && texts.null_count() > 0 {
            return Err(Error::invalid(format!(
                "column {name} has nulls, for which there is no folder while the files keep the \
                 column; leave such rows out, or SET \
                 datafusion.execution.keep_partition_by_columns = false"
            )));
        }
        if !keep {
            let texts = texts.iter().map(|text| Some(text.unwrap_or(NULL)));
            *column = Arc::new(texts.collect::<StringArray>());
            *field = Arc::new(Field::new(name, DataType::Utf8, true));
        }
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
        .map_err(|e| Error::while_doing("making folders of columns", e))
}
