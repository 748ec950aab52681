//! Types of Databricks columns: what they are in Arrow, and how a SELECT gets them there.

use std::sync::Arc;

use datafusion::arrow::array::{RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::{DataType, Field, SchemaRef, TimeUnit};

use super::catalog::ColumnInfo;
use crate::cast;
use crate::error::{Error, ErrorKind, Result};
use crate::sql::columns::{Column, Columns};
use crate::sql::dialect::DATABRICKS;

/// The words of the catalog for a column's type, in the metadata of its own field.
pub(super) const TYPE_NAME: &str = "type_name";
pub(super) const TYPE_TEXT: &str = "type_text";

/// The columns that the catalog, or the manifest of a result, describes. Nothing is NOT NULL: views
/// promise nothing.
pub(super) fn columns(known: &[ColumnInfo]) -> Columns {
    let columns = known.iter().map(|info| {
        let words = [(TYPE_NAME, &info.type_name), (TYPE_TEXT, &info.type_text)];
        let words = words.map(|(key, word)| (key.to_owned(), word.clone()));
        let field = Field::new(&info.name, arrow_type(info), true);
        Column {
            own: Arc::new(field.clone().with_metadata(words.into())),
            field: Arc::new(field),
            // There `=` does not see the spaces at the end, with which such values come.
            comparable: info.type_name != "CHAR",
        }
    });
    Columns::new(columns.collect())
}

/// A word of the catalog for the type of `column`.
pub(super) fn word<'c>(column: &'c Column, key: &str) -> &'c str {
    let word = column.own.metadata().get(key);
    word.map_or("", String::as_str)
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

/// What the rows are selected from, if that is not `table` itself: a query that brings its columns
/// into the form that [`columns`] says.
pub(super) fn source(table: &str, columns: &Columns) -> Option<String> {
    let mut plain = true;
    let selected: Vec<String> = columns
        .iter()
        .map(|column| {
            let name = DATABRICKS.quoted(column.own.name());
            match expression(column, &name) {
                None => name,
                Some(expression) => {
                    plain = false;
                    format!("{expression} AS {name}")
                }
            }
        })
        .collect();
    let selected = selected.join(", ");
    (!plain).then(|| format!("(SELECT {selected} FROM {table}) AS t"))
}

/// How a column is selected that does not come as it is.
fn expression(column: &Column, name: &str) -> Option<String> {
    match word(column, TYPE_NAME) {
        "ARRAY" | "MAP" | "STRUCT" | "VARIANT" => Some(format!("to_json({name})")),
        // With another collation, comparisons that are sent would find other rows than ours.
        "STRING" | "CHAR"
            if word(column, TYPE_TEXT)
                .to_ascii_uppercase()
                .contains("COLLATE") =>
        {
            Some(format!("{name} COLLATE UTF8_BINARY"))
        }
        "STRING" | "CHAR" | "BOOLEAN" | "BYTE" | "SHORT" | "INT" | "LONG" | "FLOAT" | "DOUBLE"
        | "DATE" | "TIMESTAMP" | "TIMESTAMP_NTZ" | "BINARY" | "DECIMAL" => None,
        _ => Some(format!("CAST({name} AS STRING)")),
    }
}

/// The rows of `batch` in the declared types; `before` rows came before. The server's own types
/// vary between results.
pub(super) fn convert(
    batch: &RecordBatch,
    schema: &SchemaRef,
    what: &str,
    before: u64,
) -> Result<RecordBatch> {
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
    let columns = schema.fields().iter().zip(batch.columns());
    let columns = columns
        .map(|(field, column)| {
            cast::strictly(what, field.name(), column, field.data_type(), before)
        })
        .collect::<Result<Vec<_>>>()?;
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &rows)
        .map_err(|e| Error::while_doing(format!("{what}: converting rows"), e))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(types: &[(&str, &str)]) -> Columns {
        let known: Vec<ColumnInfo> = types
            .iter()
            .enumerate()
            .map(|(i, (name, text))| {
                serde_json::from_value(json!({"name": format!("c{i}"), "type_name": name,
                    "type_text": text, "type_precision": 12, "type_scale": 2}))
                .unwrap()
            })
            .collect();
        columns(&known)
    }

    #[test]
    fn every_column_has_a_type() {
        let columns = of(&[
            ("LONG", "bigint"),
            ("STRING", "string"),
            ("DECIMAL", "decimal(12,2)"),
            ("TIMESTAMP", "timestamp"),
            ("VARIANT", "variant"),
        ]);
        let types: Vec<String> = columns
            .schema()
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
        assert_eq!(source("t", &of(&[("LONG", "bigint")])), None);
        let mixed = of(&[
            ("LONG", "bigint"),
            ("ARRAY", "array<int>"),
            ("STRING", "string collate UTF8_LCASE"),
            ("INTERVAL", "interval day"),
        ]);
        assert_eq!(
            source("t", &mixed).unwrap(),
            "(SELECT `c0`, to_json(`c1`) AS `c1`, `c2` COLLATE UTF8_BINARY AS `c2`, \
             CAST(`c3` AS STRING) AS `c3` FROM t) AS t"
        );
    }

    /// There `'a ' = 'a'` for such a column, and it comes as `'a '`.
    #[test]
    fn padded_texts_are_compared_here() {
        let types = of(&[
            ("CHAR", "char(4)"),
            ("STRING", "string"),
            ("STRING", "varchar(4)"),
        ]);
        let compared: Vec<bool> = types.iter().map(|c| c.comparable).collect();
        assert_eq!(compared, [false, true, true]);
    }
}
