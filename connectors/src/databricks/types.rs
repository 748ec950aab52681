//! Types of Databricks columns: what they are in Arrow, and how a SELECT gets them there.

use std::sync::Arc;

use datafusion::arrow::array::{RecordBatch, RecordBatchOptions};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use super::catalog::ColumnInfo;
use crate::error::{Error, ErrorKind, Result};
use crate::sql::dialect::DATABRICKS;

/// The schema of `columns`. Nothing is NOT NULL: views promise nothing.
pub(super) fn schema(columns: &[ColumnInfo]) -> SchemaRef {
    let fields: Vec<Field> = columns
        .iter()
        .map(|column| Field::new(&column.name, arrow_type(column), true))
        .collect();
    Arc::new(Schema::new(fields))
}

/// Nested values are texts in JSON, what has no Arrow type is a text as well.
fn arrow_type(column: &ColumnInfo) -> DataType {
    match column.type_name.as_str() {
        "BOOLEAN" => DataType::Boolean,
        "BYTE" => DataType::Int8,
        "SHORT" => DataType::Int16,
        "INT" => DataType::Int32,
        "LONG" => DataType::Int64,
        "FLOAT" => DataType::Float32,
        "DOUBLE" => DataType::Float64,
        "DATE" => DataType::Date32,
        "TIMESTAMP" => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        "TIMESTAMP_NTZ" => DataType::Timestamp(TimeUnit::Microsecond, None),
        "BINARY" => DataType::BinaryView,
        "DECIMAL" => match (column.type_precision, column.type_scale) {
            (Some(precision @ 1..=38), Some(scale)) => DataType::Decimal128(precision, scale),
            // 10, 0 is what SQL means without.
            _ => DataType::Decimal128(10, 0),
        },
        _ => DataType::Utf8View,
    }
}

/// What the rows are selected from: the table, or a query that brings its columns into the form
/// that [`schema`] says.
pub(super) fn source(table: &str, columns: &[ColumnInfo]) -> String {
    if columns.iter().all(|c| expression(c).is_none()) {
        return table.to_owned();
    }
    let selected: Vec<String> = columns
        .iter()
        .map(|column| {
            let name = DATABRICKS.quoted(&column.name);
            match expression(column) {
                None => name,
                Some(expression) => format!("{expression} AS {name}"),
            }
        })
        .collect();
    format!("(SELECT {} FROM {table}) AS t", selected.join(", "))
}

/// How a column is selected that does not come as it is.
fn expression(column: &ColumnInfo) -> Option<String> {
    let name = DATABRICKS.quoted(&column.name);
    match column.type_name.as_str() {
        "ARRAY" | "MAP" | "STRUCT" | "VARIANT" => Some(format!("to_json({name})")),
        // With another collation, comparisons that are sent would find other rows than ours.
        "STRING" | "CHAR" if column.type_text.to_ascii_uppercase().contains("COLLATE") => {
            Some(format!("{name} COLLATE UTF8_BINARY"))
        }
        "STRING" | "CHAR" | "BOOLEAN" | "BYTE" | "SHORT" | "INT" | "LONG" | "FLOAT" | "DOUBLE"
        | "DATE" | "TIMESTAMP" | "TIMESTAMP_NTZ" | "BINARY" | "DECIMAL" => None,
        _ => Some(format!("CAST({name} AS STRING)")),
    }
}

/// The rows of `batch` in the declared types. The server's own types vary between results.
pub(super) fn convert(batch: &RecordBatch, schema: &SchemaRef, what: &str) -> Result<RecordBatch> {
    let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    if !schema.fields().is_empty() && batch.num_columns() != schema.fields().len() {
        return Err(Error::new(
            ErrorKind::Corrupt,
            format!(
                "{what}: the result has {} columns, not {}; the table has changed since CREATE \
                 EXTERNAL TABLE: create it again",
                batch.num_columns(),
                schema.fields().len()
            ),
        ));
    }
    let columns = schema
        .fields()
        .iter()
        .zip(batch.columns())
        .map(|(field, column)| {
            cast(column, field.data_type()).map_err(|e| {
                Error::while_doing(format!("{what}: converting column {}", field.name()), e)
            })
        })
        .collect::<Result<Vec<_>>>()?;
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &rows)
        .map_err(|e| Error::while_doing(format!("{what}: converting rows"), e))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn columns(types: &[(&str, &str)]) -> Vec<ColumnInfo> {
        types
            .iter()
            .enumerate()
            .map(|(i, (name, text))| {
                serde_json::from_value(json!({"name": format!("c{i}"), "type_name": name,
                    "type_text": text, "type_precision": 12, "type_scale": 2}))
                .unwrap()
            })
            .collect()
    }

    #[test]
    fn every_column_has_a_type() {
        let columns = columns(&[
            ("LONG", "bigint"),
            ("STRING", "string"),
            ("DECIMAL", "decimal(12,2)"),
            ("TIMESTAMP", "timestamp"),
            ("VARIANT", "variant"),
        ]);
        let types: Vec<String> = schema(&columns)
            .fields()
            .iter()
            .map(|f| f.data_type().to_string())
            .collect();
        assert_eq!(
            types,
            [
                "Int64",
                "Utf8View",
                "Decimal128(12, 2)",
                "Timestamp(µs, \"UTC\")",
                "Utf8View"
            ]
        );
    }

    #[test]
    fn plain_columns_are_selected_from_the_table() {
        assert_eq!(source("t", &columns(&[("LONG", "bigint")])), "t");
        let mixed = columns(&[
            ("LONG", "bigint"),
            ("ARRAY", "array<int>"),
            ("STRING", "string collate UTF8_LCASE"),
            ("INTERVAL", "interval day"),
        ]);
        assert_eq!(
            source("t", &mixed),
            "(SELECT `c0`, to_json(`c1`) AS `c1`, `c2` COLLATE UTF8_BINARY AS `c2`, \
             CAST(`c3` AS STRING) AS `c3` FROM t) AS t"
        );
    }
}
