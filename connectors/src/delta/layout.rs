//! How rows are laid out in the files of a table: names and numbers of the columns, and pieces
//! that the encoder can take.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use deltalake::kernel::engine::arrow_conversion::TryIntoArrow;
use deltalake::table::state::DeltaTableState;

use crate::error::{Error, ErrorKind, Result};

/// Bytes of rows given to the encoder at once. Its text offsets are 32 bits wide.
const PIECE_BYTES: usize = 256 << 20;

/// The columns of files, partition columns among them.
pub(super) struct Layout {
    pub(super) columns: SchemaRef,
    /// As they are called in `columns`.
    pub(super) partition_columns: Vec<String>,
    /// True if the table maps columns to other names.
    pub(super) mapped: bool,
}

impl Layout {
    /// Of the table with `state` at `location`.
    pub(super) fn new(state: &DeltaTableState, location: &str) -> Result<Self> {
        let doing = || format!("reading the columns of the Delta table at '{location}'");
        let logical: Schema =
            state.schema().as_ref().try_into_arrow().map_err(
                |e: datafusion::arrow::error::ArrowError| Error::while_doing(doing(), e),
            )?;
        let mapped = state
            .metadata()
            .configuration()
            .get("delta.columnMapping.mode")
            .is_some_and(|mode| mode != "none");
        let fields = logical.fields().iter();
        let physical = fields
            .map(|field| physical_field(field, mapped, location))
            .collect::<Result<Vec<_>>>()?;
        let partition_columns = state.metadata().partition_columns().iter();
        let partition_columns = partition_columns
            .map(|name| match logical.index_of(name) {
                Ok(at) => Ok(physical[at].name().clone()),
                Err(e) => Err(Error::while_doing(doing(), e)),
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            columns: Arc::new(Schema::new(physical)),
            partition_columns,
            mapped,
        })
    }
}

/// `field` as it is in files: under its physical name and number where the table maps columns.
fn physical_field(field: &Field, mapped: bool, location: &str) -> Result<Field> {
    let plain = Field::new(field.name(), field.data_type().clone(), field.is_nullable());
    if !mapped {
        return Ok(plain);
    }
    let setting = |name: &str| {
        let key = format!("delta.columnMapping.{name}");
        field.metadata().get(&key).cloned().ok_or_else(|| {
            Error::new(
                ErrorKind::Corrupt,
                format!(
                    "column {} of the Delta table at '{location}' has no {key}, though the table \
                     maps columns",
                    field.name()
                ),
            )
        })
    };
    if holds_struct(field.data_type()) {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "rows cannot be added to the Delta table at '{location}': it maps column names, \
                 and its column {} is nested; write to a table without column mapping",
                field.name()
            ),
        ));
    }
    let id = ("PARQUET:field_id".to_owned(), setting("id")?);
    Ok(plain
        .with_name(setting("physicalName")?)
        .with_metadata(HashMap::from([id])))
}

fn holds_struct(data_type: &DataType) -> bool {
    match data_type {
        DataType::Struct(_) | DataType::Map(_, _) => true,
        DataType::List(item) | DataType::LargeList(item) => holds_struct(item.data_type()),
        _ => false,
    }
}

/// `batch` in pieces of at most [`PIECE_BYTES`], or of one row.
pub(super) fn pieces(batch: RecordBatch) -> Vec<RecordBatch> {
    let rows = batch.num_rows();
    if rows < 2 || bytes(&batch) <= PIECE_BYTES {
        return vec![batch];
    }
    let half = rows / 2;
    let mut out = pieces(batch.slice(0, half));
    out.extend(pieces(batch.slice(half, rows - half)));
    out
}

/// Bytes of the values in `batch`, without those of rows that were sliced off.
pub(super) fn bytes(batch: &RecordBatch) -> usize {
    let sizes = batch
        .columns()
        .iter()
        .map(|column| match column.data_type() {
            DataType::Utf8View => {
                let views = column.as_string_view().views().iter();
                views.map(|view| *view as u32 as usize + 16).sum()
            }
            DataType::BinaryView => {
                let views = column.as_binary_view().views().iter();
                views.map(|view| *view as u32 as usize + 16).sum()
            }
            _ => column.to_data().get_slice_memory_size().unwrap_or(0),
        });
    sizes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::{StringViewArray, UInt32Array};
    use datafusion::arrow::compute::take;

    #[test]
    fn a_batch_of_long_texts_is_cut_into_pieces_that_hold_every_row() {
        let text = "x".repeat(1 << 20);
        let one = StringViewArray::from_iter_values([text]);
        let texts = take(&one, &UInt32Array::from(vec![0; 600]), None).unwrap();
        let schema = Schema::new(vec![Field::new("t", DataType::Utf8View, true)]);
        let batch = RecordBatch::try_new(Arc::new(schema), vec![texts]).unwrap();
        let cut = pieces(batch);
        assert_eq!(cut.iter().map(RecordBatch::num_rows).sum::<usize>(), 600);
        assert!(cut.len() > 2);
        assert!(cut.iter().all(|piece| bytes(piece) <= PIECE_BYTES));
    }
}
