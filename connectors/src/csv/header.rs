//! The header of a CSV file as a schema, and the refusal of what is not CSV.
//!
//! What it does not do: find the columns of a table in it ([`super::columns`]).

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::decoder::{CellSink, Position};
use crate::error::{Error, Result};

/// The cells of the first record, without blanks around them; a column without a name is empty.
pub(super) type Header = Vec<String>;

/// What a cell of the first record calls its column.
pub(super) fn cell_name(cell: Option<&str>) -> String {
    cell.unwrap_or_default().trim().to_owned()
}

/// Takes the first record and stops.
#[derive(Debug, Default)]
pub(super) struct HeaderSink {
    names: Header,
    done: bool,
}

impl HeaderSink {
    /// The names, once the first record has ended.
    pub(super) fn names(&self) -> Option<&Header> {
        self.done.then_some(&self.names)
    }
}

impl CellSink for HeaderSink {
    fn wants(&self, _: usize) -> bool {
        true
    }

    fn cell(&mut self, _: usize, text: Option<&str>, _: bool) -> Result<()> {
        self.names.push(cell_name(text));
        Ok(())
    }

    fn record(&mut self, _: usize, _: Position) -> Result<bool> {
        self.done = true;
        Ok(false)
    }
}

/// All columns as text. Without a header row they are called `column_1` and so on.
pub(super) fn schema(header: &Header, has_header: bool) -> SchemaRef {
    let names = match has_header {
        true => names(header).0,
        false => (1..=header.len()).map(|i| format!("column_{i}")).collect(),
    };
    let fields = names
        .into_iter()
        .map(|name| Field::new(name, DataType::Utf8View, true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The name of each column, and whether a delimiter ends the header that begins no column.
///
/// A column without a name, as the index that pandas writes, is called after its place; the second
/// of two columns with one name gets a number.
pub(super) fn names(header: &Header) -> (Vec<String>, bool) {
    let trailing = header.len() > 1 && header.last().is_some_and(String::is_empty);
    let header = &header[..header.len() - usize::from(trailing)];
    let mut names: Vec<String> = vec![];
    for (i, name) in header.iter().enumerate() {
        let (base, mut number) = match name.is_empty() {
            true => ("column", i + 1),
            false => (name.as_str(), 1),
        };
        let mut found = match name.is_empty() {
            true => format!("{base}_{number}"),
            false => name.clone(),
        };
        // A name that stands in the header itself is not given to another column.
        while names.contains(&found) || (found != *name && header.contains(&found)) {
            number += 1;
            found = format!("{base}_{number}");
        }
        names.push(found);
    }
    (names, trailing)
}

/// Refuses files that are something else, by their first bytes.
pub(super) fn check_is_text(start: &[u8]) -> Result<()> {
    const SAY_UTF16: &str = "say OPTIONS ('csv.encoding' 'utf-16')";
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
        (b"\xff\xfe", "UTF-16 text", SAY_UTF16),
        (b"\xfe\xff", "UTF-16 text", SAY_UTF16),
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

    fn named(texts: &[&str]) -> (Vec<String>, bool) {
        names(&texts.iter().map(|t| (*t).to_owned()).collect())
    }

    #[test]
    fn every_column_has_a_name_of_its_own() {
        let check = |texts: &[&str], expected: &[&str], trailing| {
            let (names, found) = named(texts);
            assert_eq!(
                (names, found),
                (expected.iter().map(|n| (*n).to_owned()).collect(), trailing)
            );
        };
        check(&["a", "b"], &["a", "b"], false);
        check(&["", "id"], &["column_1", "id"], false);
        check(&["a", "", "b"], &["a", "column_2", "b"], false);
        check(&["id", "text", ""], &["id", "text"], true);
        check(&["id", "", ""], &["id", "column_2"], true);
        check(&["d", "x", "d", "d"], &["d", "x", "d_2", "d_3"], false);
        check(&["d", "d_2", "d"], &["d", "d_2", "d_3"], false);
        check(&["", "column_1"], &["column_2", "column_1"], false);
        check(&[""], &["column_1"], false);
        let plain = schema(&vec!["1".into(), "1".into()], false);
        assert_eq!(plain.field(1).name(), "column_2");
    }

    #[test]
    fn other_files_are_named() {
        let error = |start: &[u8]| check_is_text(start).unwrap_err().to_string();
        assert!(check_is_text(b"id,text\n").is_ok());
        assert!(error(b"PAR1\x15").contains("STORED AS PARQUET"));
        assert!(error(b"\x1f\x8b\x08").contains("gzip"));
        assert!(error(b"\xff\xfea\0").contains("'csv.encoding' 'utf-16'"));
        assert!(check_is_text(&[0, 1, 2, 0, 0, 0, 0, 5]).is_err());
    }
}
