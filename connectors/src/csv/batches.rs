//! Cells to Arrow batches, bounded by bytes as well as rows.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, AsArray, RecordBatch, RecordBatchOptions, StringViewBuilder,
};
use datafusion::arrow::datatypes::{DataType, SchemaRef};

use super::columns::{Columns, Wanted};
use super::decoder::{CellSink, Position};
use super::encoder::without_escape;
use super::header::{Header, cell_name};
use super::layout::CsvLayout;
use super::typed;
use crate::error::{Error, Result};

/// What the records of a file are to become.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// Schema of the columns that are read.
    pub(super) schema: SchemaRef,
    pub(super) wanted: Wanted,
    pub(super) batch_rows: usize,
}

/// Builds batches of the columns that are read and hands them to `emit`, which returns false when
/// no more are wanted.
pub(super) struct BatchSink<F> {
    target: Target,
    layout: CsvLayout,
    /// None until the header was read.
    columns: Option<Columns>,
    header: Header,
    builders: Vec<StringViewBuilder>,
    rows: usize,
    bytes: usize,
    first: Position,
    /// The record has text after the delimiter that ends it.
    overfull: bool,
    emit: F,
}

impl<F: FnMut(RecordBatch) -> bool> BatchSink<F> {
    /// `columns` are those of the records, none if the header comes first.
    pub(super) fn new(
        target: Target,
        layout: CsvLayout,
        columns: Option<Columns>,
        emit: F,
    ) -> Self {
        let fields = target.schema.fields().iter();
        Self {
            builders: fields.map(|_| StringViewBuilder::new()).collect(),
            target,
            layout,
            columns,
            header: vec![],
            rows: 0,
            bytes: 0,
            first: Position::default(),
            overfull: false,
            emit,
        }
    }

    /// Passes on what is left.
    pub(super) fn finish(mut self) -> Result<()> {
        self.flush()?;
        Ok(())
    }

    fn flush(&mut self) -> Result<bool> {
        if self.rows == 0 {
            return Ok(true);
        }
        let schema = Arc::clone(&self.target.schema);
        let mut columns = Vec::with_capacity(self.builders.len());
        for (i, field) in schema.fields().iter().enumerate() {
            let text: ArrayRef = Arc::new(self.builders[i].finish());
            columns.push(match field.data_type() {
                DataType::Utf8View => text,
                other => self.parse(&text, other, field.name())?,
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        let batch = RecordBatch::try_new_with_options(schema, columns, &options).map_err(|e| {
            Error::invalid(format!("records from {} on: {e}", self.first.record)).with_source(e)
        })?;
        (self.rows, self.bytes) = (0, 0);
        Ok((self.emit)(batch))
    }

    /// Parses a declared type; the error names the first bad value, or the first that the type does not
    /// hold exactly.
    fn parse(&self, text: &ArrayRef, to: &DataType, name: &str) -> Result<ArrayRef> {
        let first = &self.first;
        let at = format!(
            "column {name}, records from {} on (byte {})",
            first.record, first.byte
        );
        let formats = &self.layout.formats;
        let parsed = typed::parse(text, to, formats).map_err(|e| {
            Error::invalid(format!(
                "{at}: {e}; declare the column as VARCHAR to read it as it is, or name what means \
                 null as format.null_value or format.null_regex"
            ))
            .with_source(e)
        })?;
        match typed::changed(text, &parsed, formats) {
            Ok(None) => Ok(parsed),
            Ok(Some(row)) => Err(Error::invalid(format!(
                "{at}: '{}' is more than {to} holds; declare a type that does, or VARCHAR",
                text.as_string_view().value(row)
            ))),
            Err(e) => Err(Error::while_doing(at, e)),
        }
    }

    /// A record may be short or long only if that is allowed, or a delimiter ends it.
    fn check_length(&self, cells: usize, columns: &Columns, at: Position) -> Result<()> {
        let expected = columns.places.len();
        let limits = &self.layout.limits;
        let ends = columns.trailing && cells == expected + 1 && !self.overfull;
        let short = cells < expected && (limits.allow_ragged || self.layout.truncated);
        if cells == expected || ends || short || (cells > expected && limits.allow_ragged) {
            return Ok(());
        }
        let first = match self.layout.has_header() {
            true => "header",
            false => "table",
        };
        let option = match cells < expected {
            true => "format.truncated_rows or csv.allow_ragged",
            false => "csv.allow_ragged",
        };
        Err(Error::invalid(format!(
            "record {} (byte {}) has {cells} cells, the {first} {expected}; a delimiter or quote \
             may be missing, format.delimiter or format.escape may be another, or set {option} to \
             true",
            at.record, at.byte
        )))
    }
}

impl<F: FnMut(RecordBatch) -> bool> CellSink for BatchSink<F> {
    fn wants(&self, column: usize) -> bool {
        match &self.columns {
            None => true,
            Some(columns) => match columns.places.get(column) {
                Some(place) => place.is_some(),
                None => columns.trailing && column == columns.places.len(),
            },
        }
    }

    fn cell(&mut self, column: usize, text: Option<&str>, quoted: bool) -> Result<()> {
        let Some(columns) = &self.columns else {
            self.header.push(cell_name(text));
            return Ok(());
        };
        let Some(place) = columns.places.get(column) else {
            self.overfull = text.is_some();
            return Ok(());
        };
        if let Some(place) = place {
            let nulls = &self.layout.nulls;
            let is_null = |text: &&str| (!quoted && nulls.is_plain(text)) || nulls.is_any(text);
            let mut text = text.filter(|text| !is_null(text));
            if self.layout.escape_formulas {
                text = text.map(without_escape);
            }
            self.builders[*place].append_option(text);
            self.bytes += text.map_or(0, str::len);
        }
        Ok(())
    }

    fn record(&mut self, cells: usize, at: Position) -> Result<bool> {
        let Some(columns) = &self.columns else {
            self.columns = Some(self.target.wanted.by_name(&self.header)?);
            return Ok(true);
        };
        if cells != columns.places.len() {
            self.check_length(cells, columns, at)?;
            for place in columns.places.iter().skip(cells).flatten() {
                self.builders[*place].append_null();
            }
        }
        for place in &columns.absent {
            self.builders[*place].append_null();
        }
        self.overfull = false;
        if self.rows == 0 {
            self.first = at;
        }
        self.rows += 1;
        if self.rows >= self.target.batch_rows.max(1)
            || self.bytes >= self.layout.limits.batch_bytes
        {
            return self.flush();
        }
        Ok(true)
    }
}
