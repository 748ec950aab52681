//! Schemas of Delta tables against declared ones. Types are compared by class: systems widen.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use deltalake::kernel::StructField;
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;

use crate::error::{Error, Result};

/// `base` followed by the columns of `more` that it does not have.
pub(super) fn with_columns(base: &SchemaRef, more: &Schema) -> Result<SchemaRef> {
    let mut fields: Vec<Arc<Field>> = base.fields().iter().cloned().collect();
    for field in more.fields() {
        if base.column_with_name(field.name()).is_none() {
            fields.push(Arc::clone(field));
        }
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// The fields as Delta declares them. Every column is nullable: NOT NULL would be an invariant
/// that other writers must support.
pub(super) fn delta_fields(schema: &Schema) -> Result<Vec<StructField>> {
    schema
        .fields()
        .iter()
        .map(|field| {
            let plain = Field::new(field.name(), plain_type(field.data_type()), true);
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

fn plain_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::Dictionary(_, value) => plain_type(value),
        other => other.clone(),
    }
}

/// An error that lists how the table at `location` differs from what was declared.
pub(super) fn check_same(declared: &Schema, found: &Schema, location: &str) -> Result<()> {
    let mut differences = vec![];
    for (i, field) in declared.fields().iter().enumerate() {
        match found.column_with_name(field.name()) {
            None => differences.push(format!("{} is missing", field.name())),
            Some((at, _)) if at != i => {
                differences.push(format!(
                    "{} is column {}, not {}",
                    field.name(),
                    at + 1,
                    i + 1
                ));
            }
            Some((_, other)) if class(field.data_type()) != class(other.data_type()) => {
                differences.push(format!(
                    "{} has type {}, not {}",
                    field.name(),
                    other.data_type(),
                    field.data_type()
                ));
            }
            Some(_) => {}
        }
    }
    for field in found.fields() {
        if declared.column_with_name(field.name()).is_none() {
            differences.push(format!("{} is not declared", field.name()));
        }
    }
    match differences.is_empty() {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "the table at '{location}' has other columns than declared: {}; choose another \
             location or declare the columns that it has",
            differences.join("; ")
        ))),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Class {
    Text,
    Integer,
    Float,
    Other(DataType),
}

fn class(data_type: &DataType) -> Class {
    match plain_type(data_type) {
        DataType::Utf8 => Class::Text,
        other if other.is_integer() => Class::Integer,
        other if other.is_floating() => Class::Float,
        other => Class::Other(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_listed() {
        let a = Schema::new(vec![
            Field::new("x", DataType::Utf8View, true),
            Field::new("y", DataType::Int32, true),
        ]);
        let same = Schema::new(vec![
            Field::new("x", DataType::Utf8, true),
            Field::new("y", DataType::Int64, true),
        ]);
        assert!(check_same(&a, &same, "t").is_ok());
        let other = Schema::new(vec![
            Field::new("y", DataType::Utf8, true),
            Field::new("z", DataType::Utf8, true),
        ]);
        let text = check_same(&a, &other, "t").unwrap_err().to_string();
        for part in ["x is missing", "y is column 1, not 2", "z is not declared"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
