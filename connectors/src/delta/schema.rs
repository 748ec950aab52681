//! The columns of a Delta table as Delta declares them.

use datafusion::arrow::datatypes::{DataType, Field, Schema};
use deltalake::kernel::StructField;
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;

use crate::declared::plain_type;
use crate::error::{Error, Result};

/// The fields as Delta declares them. Every column is nullable: NOT NULL would be an invariant
/// that other writers must support.
pub(super) fn delta_fields(schema: &Schema) -> Result<Vec<StructField>> {
    schema
        .fields()
        .iter()
        .map(|field| {
            let plain = match plain_type(field.data_type()) {
                // A moment is one of UTC there, wherever it is shown.
                DataType::Timestamp(unit, Some(_)) => DataType::Timestamp(unit, Some("UTC".into())),
                other => other,
            };
            let plain = Field::new(field.name(), plain, true);
            (&plain)
                .try_into_kernel()
                .map_err(|e: datafusion::arrow::error::ArrowError| {
                    Error::invalid(format!(
                        "column {} has type {}, which Delta Lake cannot hold: {e}",
                        field.name(),
                        field.data_type()
                    ))
                    .with_source(e)
                })
        })
        .collect()
}
