//! One input row as a document: identity, header, text, kept values.

use std::sync::Arc;

use casebook_qa::identity::{document_id, textless_document_id};
use casebook_qa::prompt::{TitleField, header};
use datafusion::arrow::array::{Array, AsArray, RecordBatch, StringViewArray};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};

/// How `QaTable` lays out the columns it asks its input for: text, id?, titles, kept ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputColumns {
    /// True if the second column is the document's id.
    pub has_id: bool,
    /// Names of the title columns.
    pub title: Vec<String>,
    /// Number of kept columns.
    pub keep: usize,
}

/// A document on its way to generation.
#[derive(Debug, Clone)]
pub struct Document {
    /// The id column's value, else a hash: of the text, so that rows with the same text are one
    /// document; without a text, of the header and of whether it is null or empty.
    pub id: Arc<str>,
    /// True if the id is a hash.
    pub id_is_hash: bool,
    /// Header lines above the text in every prompt; may be empty.
    pub header: String,
    /// The text; empty if it was null.
    pub text: Arc<str>,
    /// Values of the kept columns.
    pub keep: Vec<ScalarValue>,
}

impl InputColumns {
    /// The document in `row` of `batch`. Its text is copied, so that the batch can go.
    pub fn document(&self, batch: &RecordBatch, row: usize) -> Result<Document> {
        let written = strings(batch, 0)?.map_value(row);
        let text: Arc<str> = written.unwrap_or_default().into();
        let given = match self.has_id {
            true => strings(batch, 1)?.map_value(row).map(str::to_owned),
            false => None,
        };
        let id_is_hash = given.is_none();
        let first_title = 1 + usize::from(self.has_id);
        let mut fields = vec![];
        for (n, name) in self.title.iter().enumerate() {
            if let Some(value) = strings(batch, first_title + n)?.map_value(row) {
                fields.push(TitleField {
                    column: name.clone(),
                    value: value.to_owned(),
                });
            }
        }
        let header = header(&fields);
        let id = given.unwrap_or_else(|| match text.is_empty() {
            true => textless_document_id(written.is_none(), &header),
            false => document_id(&text),
        });
        let first_keep = first_title + self.title.len();
        let keep = (0..self.keep)
            .map(|n| ScalarValue::try_from_array(batch.column(first_keep + n), row))
            .collect::<Result<_>>()?;
        Ok(Document {
            id: id.into(),
            id_is_hash,
            header,
            text,
            keep,
        })
    }
}

trait MapValue {
    /// The value at `row`, if it is not null.
    fn map_value(&self, row: usize) -> Option<&str>;
}

impl MapValue for StringViewArray {
    fn map_value(&self, row: usize) -> Option<&str> {
        (!self.is_null(row)).then(|| self.value(row))
    }
}

fn strings(batch: &RecordBatch, i: usize) -> Result<&StringViewArray> {
    batch.column(i).as_string_view_opt().ok_or_else(|| {
        DataFusionError::Internal(format!(
            "docs_to_qa asked its input for text in column {i} and got {}",
            batch.column(i).data_type()
        ))
    })
}
