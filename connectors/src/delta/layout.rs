//! How rows are laid out in the files of a table: names and numbers of the columns.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use deltalake::kernel::engine::arrow_conversion::TryIntoArrow;
use deltalake::table::state::DeltaTableState;

use crate::error::{Error, ErrorKind, Result};

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
