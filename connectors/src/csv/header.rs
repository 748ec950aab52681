//! The header of a CSV file as a schema, and the refusal of what is not CSV.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::decoder::{CellSink, Position};
use crate::error::{Error, Result};

/// Takes the first record and stops.
#[derive(Debug, Default)]
pub(super) struct HeaderSink {
    names: Vec<Option<String>>,
    done: bool,
}

impl HeaderSink {
    /// The names, once the first record has ended.
    pub(super) fn names(&self) -> Option<&[Option<String>]> {
        self.done.then_some(&self.names)
    }
}

impl CellSink for HeaderSink {
    fn wants(&self, _: usize) -> bool {
        true
    }

    fn cell(&mut self, _: usize, text: Option<&str>) -> Result<()> {
        self.names.push(text.map(|t| t.trim().to_owned()));
        Ok(())
    }

    fn record(&mut self, _: usize, _: Position) -> Result<bool> {
        self.done = true;
        Ok(false)
    }
}

/// All columns as text. Without a header row they are called `column_1` and so on.
pub(super) fn schema(names: &[Option<String>], has_header: bool) -> Result<SchemaRef> {
    let mut seen = HashSet::new();
    let mut fields = vec![];
    for (i, name) in names.iter().enumerate() {
        let name = match (has_header, name) {
            (false, _) => format!("column_{}", i + 1),
            (true, Some(name)) if !name.is_empty() => name.clone(),
            (true, _) => {
                return Err(Error::invalid(format!(
                    "column {} has no name in the header; name it, or say OPTIONS \
                     ('format.has_header' 'false') if the first record is data",
                    i + 1
                )));
            }
        };
        if !seen.insert(name.clone()) {
            return Err(Error::invalid(format!(
                "the header names '{name}' twice; rename one of the columns"
            )));
        }
        fields.push(Field::new(name, DataType::Utf8View, true));
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// Refuses files that are something else, by their first bytes.
pub(super) fn check_is_text(start: &[u8]) -> Result<()> {
    const MAGIC: &[(&[u8], &str, &str)] = &[
        (b"PAR1", "a Parquet file", "say STORED AS PARQUET"),
        (
            b"\x1f\x8b",
            "compressed with gzip",
            "say OPTIONS ('format.compression' 'gzip')",
        ),
        (
            b"\x28\xb5\x2f\xfd",
            "compressed with zstd",
            "say OPTIONS ('format.compression' 'zstd')",
        ),
        (
            b"BZh",
            "compressed with bzip2",
            "say OPTIONS ('format.compression' 'bzip2')",
        ),
        (
            b"PK\x03\x04",
            "a ZIP archive or spreadsheet",
            "unpack it, or export it as CSV",
        ),
        (b"\x89PNG", "a PNG picture", "give a CSV file"),
        (b"%PDF", "a PDF document", "give a CSV file"),
        (b"\x7fELF", "a program", "give a CSV file"),
        (b"\xff\xfe", "UTF-16 text", "convert it to UTF-8"),
        (b"\xfe\xff", "UTF-16 text", "convert it to UTF-8"),
    ];
    if let Some((_, what, advice)) = MAGIC.iter().find(|(magic, ..)| start.starts_with(magic)) {
        return Err(Error::invalid(format!(
            "this is not CSV but {what}; {advice}"
        )));
    }
    let head = &start[..start.len().min(512)];
    if head.iter().filter(|b| **b == 0).count() > head.len() / 16 {
        return Err(Error::invalid(
            "this is not CSV but binary data; give a CSV file",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(texts: &[&str]) -> Vec<Option<String>> {
        texts
            .iter()
            .map(|t| (!t.is_empty()).then(|| (*t).to_owned()))
            .collect()
    }

    #[test]
    fn names_must_be_there_once() {
        let schema_of = |texts: &[&str], header| schema(&names(texts), header);
        assert_eq!(schema_of(&["a", "b"], true).unwrap().fields().len(), 2);
        assert!(
            schema_of(&["a", ""], true)
                .unwrap_err()
                .to_string()
                .contains("column 2")
        );
        assert!(
            schema_of(&["a", "a"], true)
                .unwrap_err()
                .to_string()
                .contains("'a' twice")
        );
        assert_eq!(
            schema_of(&["1", "1"], false).unwrap().field(1).name(),
            "column_2"
        );
    }

    #[test]
    fn other_files_are_named() {
        assert!(check_is_text(b"id,text\n").is_ok());
        assert!(
            check_is_text(b"PAR1\x15")
                .unwrap_err()
                .to_string()
                .contains("STORED AS PARQUET")
        );
        assert!(
            check_is_text(b"\x1f\x8b\x08")
                .unwrap_err()
                .to_string()
                .contains("gzip")
        );
        assert!(check_is_text(&[0, 1, 2, 0, 0, 0, 0, 5]).is_err());
    }
}
