//! Rows as text for a statement: every value as a string in JSON, given its type by the server.
//!
//! One parameter holds all rows of a statement, so neither the limit on the number of parameters
//! nor the quoting of any value matters.

use std::fmt::Write;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringViewArray};
use datafusion::arrow::datatypes::DataType;

use super::types::{TYPE_NAME, TYPE_TEXT, word};
use crate::cast;
use crate::error::{Error, ErrorKind, Result};
use crate::sql::staging::{NUMBER, Staging, column};

/// What the rows of a statement may have in its request, unless a single one has more. The API takes
/// 16 MiB.
const PIECE_BYTES: usize = 4 << 20;
/// What one row may have there.
const MAX_ROW_BYTES: usize = 14 << 20;
/// The parameter that holds the rows.
pub(super) const PARAMETER: &str = "rows";

/// The columns that are staged, in order.
#[derive(Debug, Clone)]
pub(super) struct Encoder {
    columns: Vec<Column>,
}

#[derive(Debug, Clone)]
struct Column {
    /// As it is staged.
    name: String,
    /// Its key in JSON.
    key: String,
    /// For errors.
    shown: String,
    sql_type: String,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Binary,
    Other,
}

impl Encoder {
    /// For the rows of `staging`, with the types that the catalog knows.
    ///
    /// # Errors
    /// A type that cannot be written so.
    pub(super) fn new(staging: &Staging) -> Result<Self> {
        let mut columns = vec![];
        for (i, target) in staging.target_columns().iter().enumerate() {
            let kind = match word(target, TYPE_NAME) {
                "STRING" | "CHAR" => Kind::Text,
                "BINARY" => Kind::Binary,
                "ARRAY" | "MAP" | "STRUCT" | "VARIANT" | "INTERVAL" => {
                    return Err(Error::new(
                        ErrorKind::Unsupported,
                        format!(
                            "column {} of {} has type {}, which cannot be written through a \
                             warehouse",
                            target.own.name(),
                            staging.target.join("."),
                            word(target, TYPE_TEXT)
                        ),
                    ));
                }
                _ => Kind::Other,
            };
            columns.push(Column {
                name: column(i),
                key: format!("c{i}"),
                shown: target.field.name().clone(),
                sql_type: word(target, TYPE_TEXT).to_owned(),
                kind,
            });
        }
        columns.push(Column {
            name: NUMBER.to_owned(),
            key: "n".to_owned(),
            shown: NUMBER.to_owned(),
            sql_type: "BIGINT".to_owned(),
            kind: Kind::Other,
        });
        Ok(Self { columns })
    }

    /// A query that yields the rows of the parameter.
    pub(super) fn query(&self) -> String {
        let fields: Vec<String> = self
            .columns
            .iter()
            .map(|column| format!("{}:string", column.key))
            .collect();
        let values: Vec<String> = self
            .columns
            .iter()
            .map(|column| {
                let Column {
                    name,
                    key,
                    sql_type,
                    ..
                } = column;
                match column.kind {
                    Kind::Text => format!("r.{key} AS {name}"),
                    Kind::Binary => format!("unhex(r.{key}) AS {name}"),
                    Kind::Other => format!("CAST(r.{key} AS {sql_type}) AS {name}"),
                }
            })
            .collect();
        // FAILFAST: otherwise what cannot be read becomes null.
        format!(
            "SELECT {} FROM (SELECT explode(from_json(:{PARAMETER}, 'array<struct<{}>>', \
             map('mode', 'FAILFAST'))) AS r)",
            values.join(", "),
            fields.join(",")
        )
    }

    /// The values of `batch` as texts, by column.
    pub(super) fn texts(&self, batch: &RecordBatch) -> Result<Vec<StringViewArray>> {
        let columns = self.columns.iter().zip(batch.columns());
        columns
            .map(|(column, values)| text(column, values))
            .collect()
    }

    /// Row `at` of `texts`.
    ///
    /// # Errors
    /// One that no statement can hold.
    pub(super) fn row(&self, texts: &[StringViewArray], at: usize) -> Result<Row> {
        let mut json = String::new();
        let mut open = '{';
        for (column, text) in self.columns.iter().zip(texts) {
            if text.is_valid(at) {
                let value = serde_json::to_string(text.value(at));
                let value = value.map_err(|e| Error::while_doing("writing a row as JSON", e))?;
                // Writing to a String cannot fail.
                write!(json, "{open}\"{}\":{value}", column.key).ok();
                open = ',';
            }
        }
        json.push('}');
        // The request is JSON in its turn, with a backslash before each of these.
        let escaped = memchr::memchr2_iter(b'"', b'\\', json.as_bytes()).count();
        match json.len() + escaped {
            bytes if bytes > MAX_ROW_BYTES => Err(Error::new(
                ErrorKind::Exhausted,
                format!(
                    "a row has {bytes} bytes, more than a statement of a warehouse can hold; \
                     write to an external Delta table, or leave the long column out"
                ),
            )),
            bytes => Ok(Row { json, bytes }),
        }
    }
}

fn text(column: &Column, values: &ArrayRef) -> Result<StringViewArray> {
    let to = match column.kind {
        Kind::Binary => DataType::BinaryView,
        _ => DataType::Utf8View,
    };
    let values = cast::strictly("writing rows", &column.shown, values, &to, 0)?;
    let Some(bytes) = values.as_binary_view_opt() else {
        return Ok(values.as_string_view().clone());
    };
    let hex = |bytes: &[u8]| {
        bytes.iter().fold(String::new(), |mut out, byte| {
            // Writing to a String cannot fail.
            write!(out, "{byte:02X}").ok();
            out
        })
    };
    Ok(bytes.iter().map(|b| b.map(hex)).collect())
}

/// A row as JSON.
#[derive(Debug)]
pub(super) struct Row {
    json: String,
    /// What it takes up in a request.
    bytes: usize,
}

/// Rows that wait to be sent.
#[derive(Debug, Default)]
pub(super) struct Piece {
    json: String,
    /// What they take up in a request.
    bytes: usize,
}

impl Piece {
    /// True if `row` goes into the same statement.
    pub(super) fn takes(&self, row: &Row) -> bool {
        self.is_empty() || self.bytes + row.bytes <= PIECE_BYTES
    }

    pub(super) fn add(&mut self, row: Row) {
        self.json.push(if self.is_empty() { '[' } else { ',' });
        self.json.push_str(&row.json);
        self.bytes += row.bytes + 1;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.json.is_empty()
    }

    /// The rows as one JSON array; none are left.
    pub(super) fn take(&mut self) -> String {
        let mut json = std::mem::take(self).json;
        if json.is_empty() {
            json.push('[');
        }
        json.push(']');
        json
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{Date32Array, Float64Array, Int64Array, StringArray};
    use serde_json::json;

    use super::super::catalog::ColumnInfo;
    use super::super::types;
    use super::*;
    use crate::sql::dialect::DATABRICKS;
    use crate::sql::exchange::Described;

    #[test]
    fn rows_keep_their_values_as_text() {
        let known: Vec<ColumnInfo> = serde_json::from_value(json!([
            {"name": "a", "type_name": "STRING", "type_text": "string"},
            {"name": "b", "type_name": "INT", "type_text": "int"},
            {"name": "c", "type_name": "DOUBLE", "type_text": "double"},
            {"name": "d", "type_name": "DATE", "type_text": "date"},
        ]))
        .unwrap();
        let columns = types::columns(&known);
        let described = Described {
            way: "",
            detail: String::new(),
            dialect: &DATABRICKS,
            name: vec!["t".into()],
            from: None,
            columns: Ok(columns.clone()),
            stored_name: str::to_owned,
            resends: true,
        };
        let encoder = Encoder::new(&Staging::new(&described, &columns, 7)).unwrap();
        let rows: [ArrayRef; 5] = [
            Arc::new(StringArray::from(vec![Some("O'N\\\"é\n"), None])),
            Arc::new(Int64Array::from(vec![1, -2])),
            Arc::new(Float64Array::from(vec![0.1, f64::NAN])),
            Arc::new(Date32Array::from(vec![Some(0), None])),
            Arc::new(Int64Array::from(vec![0, 1])),
        ];
        let named = rows.into_iter().enumerate();
        let batch = RecordBatch::try_from_iter(named.map(|(i, c)| (i.to_string(), c))).unwrap();
        let texts = encoder.texts(&batch).unwrap();
        let mut piece = Piece::default();
        assert_eq!(piece.take(), "[]");
        piece.add(encoder.row(&texts, 0).unwrap());
        piece.add(encoder.row(&texts, 1).unwrap());
        let rows: serde_json::Value = serde_json::from_str(&piece.take()).unwrap();
        assert_eq!(
            rows,
            json!([{"n": "0", "c0": "O'N\\\"é\n", "c1": "1", "c2": "0.1", "c3": "1970-01-01"},
                {"n": "1", "c1": "-2", "c2": "NaN"}])
        );
        assert!(piece.is_empty());
        assert_eq!(
            encoder.query(),
            "SELECT r.c0 AS C1, CAST(r.c1 AS int) AS C2, CAST(r.c2 AS double) AS C3, CAST(r.c3 AS \
             date) AS C4, CAST(r.n AS BIGINT) AS casebook_row FROM (SELECT \
             explode(from_json(:rows, 'array<struct<c0:string,c1:string,c2:string,c3:string,\
             n:string>>', map('mode', 'FAILFAST'))) AS r)"
        );
    }

    #[test]
    fn no_request_is_larger_than_the_api_takes() {
        const MIB: usize = 1 << 20;
        let known: Vec<ColumnInfo> = serde_json::from_value(json!([
            {"name": "a", "type_name": "STRING", "type_text": "string"},
        ]))
        .unwrap();
        let columns = types::columns(&known);
        let described = Described {
            way: "",
            detail: String::new(),
            dialect: &DATABRICKS,
            name: vec!["t".into()],
            from: None,
            columns: Ok(columns.clone()),
            stored_name: str::to_owned,
            resends: true,
        };
        let encoder = Encoder::new(&Staging::new(&described, &columns, 7)).unwrap();
        // What the statements hold, as the request writes them.
        let sent = |texts: &[String]| -> Result<Vec<usize>> {
            let texts: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
            let batch = RecordBatch::try_from_iter([("a", texts)]).unwrap();
            let texts = encoder.texts(&batch)?;
            let (mut piece, mut sizes) = (Piece::default(), vec![]);
            let mut take = |piece: &mut Piece| {
                let request = serde_json::to_string(&piece.take()).unwrap();
                sizes.push(request.len());
            };
            for at in 0..batch.num_rows() {
                let row = encoder.row(&texts, at)?;
                if !piece.takes(&row) {
                    take(&mut piece);
                }
                piece.add(row);
            }
            take(&mut piece);
            Ok(sizes)
        };
        // A row that is nearly too long, behind a statement that is nearly full.
        let small = "x".repeat(MIB / 2);
        let mut rows = vec![small; 7];
        rows.push("x".repeat(13 * MIB));
        let sizes = sent(&rows).unwrap();
        assert_eq!(sizes.len(), 2);
        assert!(sizes.iter().all(|s| *s < 16 * MIB), "{sizes:?}");
        // A quote has four bytes there, a line break three.
        let sizes = sent(&vec!["\"\n".repeat(MIB / 7); 9]).unwrap();
        assert_eq!(sizes.len(), 3);
        assert!(sizes.iter().all(|s| *s <= PIECE_BYTES + 100), "{sizes:?}");
        let error = sent(&["\"".repeat(4 * MIB)]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exhausted);
        assert!(sent(&["\"".repeat(3 * MIB)]).is_ok());
    }
}
