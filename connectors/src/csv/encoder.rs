//! Batches to the text of a CSV file, so that our reader gives them back equal.
//!
//! What makes a value itself again: an empty text has quotes and a null has none, and whatever the
//! reader would take for something else has quotes. A value that no quotes can save is refused.

use datafusion::arrow::array::{Array, RecordBatch, StringViewArray};
use datafusion::common::parsers::CsvQuoteStyle;

use super::header::check_is_text;
use super::layout::CsvLayout;
use super::options::OwnOptions;
use super::typed;
use crate::error::{Error, Result, beginning};

/// What a spreadsheet takes for the beginning of a formula.
const FORMULA: &[char] = &['=', '+', '-', '@', '\t', '\r', '\n'];

/// What the reader drops where it drops blanks.
const BLANKS: &[char] = &[' ', '\t'];

/// Writes batches as CSV.
#[derive(Debug)]
pub struct CsvEncoder {
    layout: CsvLayout,
    has_header: bool,
    /// Values that could not be read back are refused.
    strict: bool,
}

/// A cell that is about to be written.
#[derive(Clone, Copy)]
struct Cell<'a> {
    column: &'a str,
    /// None: null.
    text: Option<&'a str>,
    /// What a value is, not a name.
    is_value: bool,
    is_text: bool,
    is_number: bool,
    /// It begins a record.
    first: bool,
}

impl CsvEncoder {
    /// For output that people and other programs read: commas, quotes where needed, a header.
    pub fn plain() -> Self {
        Self {
            strict: false,
            ..Self::new(CsvLayout::standard(OwnOptions::default()))
        }
    }

    pub(super) fn new(layout: CsvLayout) -> Self {
        Self {
            has_header: layout.has_header(),
            layout,
            strict: true,
        }
    }

    /// The records of `batch`, after the header if they are the first ones.
    ///
    /// # Errors
    /// A value that would be read back as another one, named by its column.
    pub fn encode(&self, batch: &RecordBatch, first: bool) -> Result<Vec<u8>> {
        let mut out = vec![];
        let schema = batch.schema();
        let fields = schema.fields();
        if first && self.has_header {
            for (i, field) in fields.iter().enumerate() {
                if self.strict && field.name().trim().is_empty() {
                    return Err(Error::invalid(format!(
                        "column {} has no name; name it with AS",
                        i + 1
                    )));
                }
                let cell = Cell {
                    column: field.name(),
                    text: Some(field.name()),
                    is_value: false,
                    is_text: true,
                    is_number: false,
                    first: i == 0,
                };
                self.cell(&mut out, cell)?;
            }
            self.end_record(&mut out);
        }
        let columns = batch.columns().iter().zip(fields);
        let columns = columns.map(|(column, field)| {
            if self.strict {
                typed::check_writable(field.name(), field.data_type())?;
            }
            typed::texts(field.name(), column, &self.layout.formats, self.strict)
        });
        let columns = columns.collect::<Result<Vec<StringViewArray>>>()?;
        for row in 0..batch.num_rows() {
            for (i, (texts, field)) in columns.iter().zip(fields).enumerate() {
                let cell = Cell {
                    column: field.name(),
                    text: texts.is_valid(row).then(|| texts.value(row)),
                    is_value: true,
                    is_text: typed::is_text(field.data_type()),
                    is_number: field.data_type().is_numeric(),
                    first: i == 0,
                };
                self.cell(&mut out, cell)?;
            }
            self.end_record(&mut out);
        }
        Ok(out)
    }

    fn end_record(&self, out: &mut Vec<u8>) {
        out.push(self.layout.dialect.terminator.unwrap_or(b'\n'));
    }

    fn cell(&self, out: &mut Vec<u8>, cell: Cell<'_>) -> Result<()> {
        let dialect = &self.layout.dialect;
        if !cell.first {
            out.push(dialect.delimiter);
        }
        let Some(text) = cell.text else {
            out.extend_from_slice(self.layout.nulls.written().as_bytes());
            return Ok(());
        };
        let mut text = text;
        if cell.is_text && cell.is_value {
            text = self.trimmed(text);
        }
        let escaped;
        if self.layout.escape_formulas && cell.is_text && cell.is_value && is_formula(text) {
            escaped = format!("'{text}");
            text = &escaped;
        }
        if cell.is_value && self.layout.nulls.is_any(text) {
            return Err(self.refused(cell, "would be read as null because of format.null_regex"));
        }
        if !dialect.newlines && text.contains(['\n', '\r']) {
            return Err(self.refused(
                cell,
                "holds a line break, and format.newlines_in_values is false",
            ));
        }
        let special = self.is_special(text, cell.first, out.is_empty());
        let quoted = match self.layout.writing.quote_style {
            CsvQuoteStyle::Always => true,
            CsvQuoteStyle::NonNumeric => special || !cell.is_number,
            CsvQuoteStyle::Necessary => special,
            CsvQuoteStyle::Never if special => {
                return Err(self.refused(cell, "needs quotes, and format.quote_style is never"));
            }
            CsvQuoteStyle::Never => false,
        };
        match quoted {
            true => self.quoted(out, text, cell),
            false => {
                out.extend_from_slice(text.as_bytes());
                Ok(())
            }
        }
    }

    fn quoted(&self, out: &mut Vec<u8>, text: &str, cell: Cell<'_>) -> Result<()> {
        let dialect = &self.layout.dialect;
        out.push(dialect.quote);
        for byte in text.bytes() {
            if byte == dialect.quote {
                match (dialect.escape, self.layout.writing.doubles) {
                    (Some(escape), false) => out.push(escape),
                    _ if dialect.double_quote => out.push(dialect.quote),
                    _ => {
                        return Err(self.refused(
                            cell,
                            "holds a quote, which can be neither doubled (format.double_quote is \
                             false) nor escaped (there is no format.escape)",
                        ));
                    }
                }
            } else if Some(byte) == dialect.escape {
                out.push(byte);
            }
            out.push(byte);
        }
        out.push(dialect.quote);
        Ok(())
    }

    /// The text without the blanks that are not to be written.
    fn trimmed<'a>(&self, text: &'a str) -> &'a str {
        let dialect = &self.layout.dialect;
        let text = match dialect.leading {
            Some(true) => text.trim_start_matches(BLANKS),
            _ => text,
        };
        match dialect.trailing {
            Some(true) => text.trim_end_matches(BLANKS),
            _ => text,
        }
    }

    /// True for what would be read as something else without quotes.
    fn is_special(&self, text: &str, first: bool, first_of_file: bool) -> bool {
        let dialect = &self.layout.dialect;
        let special = |byte: u8| {
            matches!(byte, b'\n' | b'\r')
                || byte == dialect.delimiter
                || byte == dialect.quote
                || [dialect.escape, dialect.terminator].contains(&Some(byte))
        };
        self.layout.nulls.is_plain(text)
            || text.bytes().any(special)
            || (first && dialect.comment.is_some_and(|c| text.as_bytes()[0] == c))
            || (first_of_file
                && (text.starts_with('\u{feff}') || check_is_text(text.as_bytes()).is_err()))
    }

    fn refused(&self, cell: Cell<'_>, why: &str) -> Error {
        const SHOWN: usize = 40;
        let shown = beginning(cell.text.unwrap_or_default(), SHOWN);
        Error::invalid(format!(
            "column {}: the text {shown:?} {why}; change the option or the text",
            cell.column
        ))
    }
}

/// True for a text that a spreadsheet would run, or that looks as one does which was made safe.
fn is_formula(text: &str) -> bool {
    text.trim_start_matches('\'').starts_with(FORMULA)
}

/// The text that [`CsvEncoder`] wrote for a formula with a `'` before it.
pub(super) fn without_escape(text: &str) -> &str {
    match text.strip_prefix('\'') {
        Some(rest) if is_formula(rest) => rest,
        _ => text,
    }
}
