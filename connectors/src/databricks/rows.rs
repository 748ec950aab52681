//! Rows as text for a statement: every value as a string in JSON, given its type by the server.
//!
//! One parameter holds all rows of a statement, so neither the limit on the number of parameters
//! nor the quoting of any value matters.

use std::fmt::Write;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringViewArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, SchemaRef};

use super::catalog::ColumnInfo;
use crate::error::{Error, ErrorKind, Result};
use crate::sql::dialect::DATABRICKS;

/// Text after which a statement is sent. The API takes 16 MiB.
pub(super) const PIECE_BYTES: usize = 4 << 20;
/// Text that one row may have.
const MAX_ROW_BYTES: usize = 14 << 20;
/// The column that numbers the rows of one INSERT.
pub(super) const ROW: &str = "casebook_row";
/// The parameter that holds the rows.
pub(super) const PARAMETER: &str = "rows";

/// The columns that are written, in the table's order.
#[derive(Debug, Clone)]
pub(super) struct Columns {
    columns: Vec<Column>,
}

#[derive(Debug, Clone)]
struct Column {
    /// Quoted.
    name: String,
    sql_type: String,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Binary,
    Other,
}

impl Columns {
    /// The columns of `schema` with the types that the catalog knows them by.
    pub(super) fn new(schema: &SchemaRef, known: &[ColumnInfo], table: &str) -> Result<Self> {
        let column = |field: &Arc<Field>| {
            let known = known
                .iter()
                .find(|c| c.name == *field.name())
                .ok_or_else(|| {
                    Error::invalid(format!(
                        "the catalog does not know column {} of {table}; create the table again",
                        field.name()
                    ))
                })?;
            let kind = match known.type_name.as_str() {
                "STRING" | "CHAR" => Kind::Text,
                "BINARY" => Kind::Binary,
                "ARRAY" | "MAP" | "STRUCT" | "VARIANT" | "INTERVAL" => {
                    return Err(Error::new(
                        ErrorKind::Unsupported,
                        format!(
                            "column {} of {table} has type {}, which cannot be written through a \
                             warehouse",
                            field.name(),
                            known.type_text
                        ),
                    ));
                }
                _ => Kind::Other,
            };
            Ok(Column {
                name: DATABRICKS.quoted(field.name()),
                sql_type: known.type_text.clone(),
                kind,
            })
        };
        let columns = schema.fields().iter().map(column).collect::<Result<_>>()?;
        Ok(Self { columns })
    }

    /// The names with commas, each after `prefix`.
    pub(super) fn names(&self, prefix: &str) -> String {
        let names = self.columns.iter().map(|c| format!("{prefix}{}", c.name));
        names.collect::<Vec<_>>().join(", ")
    }

    /// The columns of a staging table.
    pub(super) fn declared(&self) -> String {
        let columns = self
            .columns
            .iter()
            .map(|c| format!("{} {}", c.name, c.sql_type));
        columns.collect::<Vec<_>>().join(", ")
    }

    /// A query that yields the rows of the parameter.
    pub(super) fn query(&self) -> String {
        let fields: Vec<String> = (0..self.columns.len())
            .map(|i| format!("c{i}:string"))
            .collect();
        let values: Vec<String> = self
            .columns
            .iter()
            .enumerate()
            .map(|(i, column)| {
                let Column { name, sql_type, .. } = column;
                match column.kind {
                    Kind::Text => format!("r.c{i} AS {name}"),
                    Kind::Binary => format!("unhex(r.c{i}) AS {name}"),
                    Kind::Other => format!("CAST(r.c{i} AS {sql_type}) AS {name}"),
                }
            })
            .collect();
        // FAILFAST: otherwise what cannot be read becomes null.
        format!(
            "SELECT CAST(r.n AS BIGINT) AS {ROW}, {} FROM (SELECT explode(from_json(:{PARAMETER}, \
             'array<struct<n:string,{}>>', map('mode', 'FAILFAST'))) AS r)",
            values.join(", "),
            fields.join(",")
        )
    }

    /// The values of `batch` as texts, by column.
    pub(super) fn texts(&self, batch: &RecordBatch) -> Result<Vec<StringViewArray>> {
        let columns = self.columns.iter().zip(batch.columns());
        columns
            .map(|(column, values)| {
                text(column.kind, values).map_err(|e| {
                    Error::while_doing(format!("writing column {} as text", column.name), e)
                })
            })
            .collect()
    }
}

fn text(
    kind: Kind,
    values: &ArrayRef,
) -> Result<StringViewArray, datafusion::arrow::error::ArrowError> {
    if kind == Kind::Binary {
        let bytes = cast(values, &DataType::BinaryView)?;
        let hex = |bytes: &[u8]| {
            bytes.iter().fold(String::new(), |mut out, byte| {
                // Writing to a String cannot fail.
                write!(out, "{byte:02X}").ok();
                out
            })
        };
        return Ok(bytes.as_binary_view().iter().map(|b| b.map(hex)).collect());
    }
    Ok(cast(values, &DataType::Utf8View)?.as_string_view().clone())
}

/// Rows that wait to be sent.
#[derive(Debug, Default)]
pub(super) struct Piece {
    json: String,
}

impl Piece {
    /// Adds row `at` of `columns` as the row `number` of the INSERT.
    pub(super) fn add(
        &mut self,
        number: u64,
        columns: &[StringViewArray],
        at: usize,
    ) -> Result<()> {
        let start = self.json.len();
        let open = if start == 0 { '[' } else { ',' };
        write!(self.json, "{open}{{\"n\":\"{number}\"").ok();
        for (i, column) in columns.iter().enumerate() {
            if column.is_valid(at) {
                let value = serde_json::to_string(column.value(at));
                let value = value.map_err(|e| Error::while_doing("writing a row as JSON", e))?;
                write!(self.json, ",\"c{i}\":{value}").ok();
            }
        }
        self.json.push('}');
        match self.json.len() - start {
            bytes if bytes > MAX_ROW_BYTES => Err(Error::new(
                ErrorKind::Exhausted,
                format!(
                    "a row has {bytes} bytes, more than a statement of a warehouse can hold; \
                     write to an external Delta table, or leave the long column out"
                ),
            )),
            _ => Ok(()),
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.json.len() >= PIECE_BYTES
    }

    pub(super) fn is_empty(&self) -> bool {
        self.json.is_empty()
    }

    /// The rows as one JSON array; none are left.
    pub(super) fn take(&mut self) -> String {
        let mut json = std::mem::take(&mut self.json);
        if json.is_empty() {
            json.push('[');
        }
        json.push(']');
        json
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{Date32Array, Float64Array, Int32Array, StringArray};
    use datafusion::arrow::datatypes::Schema;
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_keep_their_values_as_text() {
        let schema = Arc::new(Schema::new(vec![
            Field::new("a", DataType::Utf8, true),
            Field::new("b", DataType::Int32, true),
            Field::new("c", DataType::Float64, true),
            Field::new("d", DataType::Date32, true),
        ]));
        let known: Vec<ColumnInfo> = serde_json::from_value(json!([
            {"name": "a", "type_name": "STRING", "type_text": "string"},
            {"name": "b", "type_name": "INT", "type_text": "int"},
            {"name": "c", "type_name": "DOUBLE", "type_text": "double"},
            {"name": "d", "type_name": "DATE", "type_text": "date"},
        ]))
        .unwrap();
        let columns = Columns::new(&schema, &known, "t").unwrap();
        let batch = RecordBatch::try_new(
            schema,
            vec![
                Arc::new(StringArray::from(vec![Some("O'N\\\"é\n"), None])),
                Arc::new(Int32Array::from(vec![1, -2])),
                Arc::new(Float64Array::from(vec![0.1, f64::NAN])),
                Arc::new(Date32Array::from(vec![Some(0), None])),
            ],
        )
        .unwrap();
        let texts = columns.texts(&batch).unwrap();
        let mut piece = Piece::default();
        assert_eq!(piece.take(), "[]");
        piece.add(0, &texts, 0).unwrap();
        piece.add(1, &texts, 1).unwrap();
        let rows: serde_json::Value = serde_json::from_str(&piece.take()).unwrap();
        assert_eq!(
            rows,
            json!([{"n": "0", "c0": "O'N\\\"é\n", "c1": "1", "c2": "0.1", "c3": "1970-01-01"},
                {"n": "1", "c1": "-2", "c2": "NaN"}])
        );
        assert!(piece.is_empty());
        assert_eq!(columns.names("s."), "s.`a`, s.`b`, s.`c`, s.`d`");
        assert_eq!(
            columns.query(),
            "SELECT CAST(r.n AS BIGINT) AS casebook_row, r.c0 AS `a`, CAST(r.c1 AS int) AS `b`, \
             CAST(r.c2 AS double) AS `c`, CAST(r.c3 AS date) AS `d` FROM (SELECT \
             explode(from_json(:rows, 'array<struct<n:string,c0:string,c1:string,c2:string,\
             c3:string>>', map('mode', 'FAILFAST'))) AS r)"
        );
    }
}
