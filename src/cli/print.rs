//! Rows on standard output, page by page: no result is held whole.

use std::sync::Arc;

use casebook::{Error, ErrorKind, Result};
use casebook_connectors::csv::CsvEncoder;
use clap::ValueEnum;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::json::WriterBuilder;
use datafusion::arrow::json::writer::LineDelimited;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::arrow::util::pretty::pretty_format_batches;

use super::json_floats::JsonFloats;
use super::{output, terminal};

/// Rows of a page; column widths are those of the page.
const PAGE_ROWS: usize = 100;
/// Longer cells are cut in tables; the other formats print them whole.
const CELL_CHARS: usize = 100;

/// How rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Aligned columns; long cells are cut
    Table,
    /// Comma-separated, with a header
    Csv,
    /// One JSON object per line; "NaN", "Infinity" and "-Infinity" are texts there
    Jsonl,
}

/// Prints the batches of one statement.
pub(super) struct Printer {
    format: Format,
    schema: SchemaRef,
    rows: usize,
    /// Rows of a table that wait for a full page.
    page: Vec<RecordBatch>,
}

impl Printer {
    pub(super) fn new(format: Format, schema: SchemaRef) -> Self {
        Self {
            format,
            schema,
            rows: 0,
            page: vec![],
        }
    }

    pub(super) fn print(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let first = self.rows == 0;
        self.rows += batch.num_rows();
        match self.format {
            Format::Table => {
                self.page.push(batch.clone());
                let waiting: usize = self.page.iter().map(RecordBatch::num_rows).sum();
                if waiting >= PAGE_ROWS {
                    self.table()
                } else {
                    Ok(())
                }
            }
            Format::Csv => {
                let text = CsvEncoder::plain().encode(batch, first).map_err(failed)?;
                output::bytes(&text)
            }
            Format::Jsonl => {
                let builder = WriterBuilder::new().with_encoder_factory(Arc::new(JsonFloats));
                let mut writer = builder.build::<_, LineDelimited>(vec![]);
                writer.write(batch).map_err(failed)?;
                writer.finish().map_err(failed)?;
                output::bytes(&writer.into_inner())
            }
        }
    }

    fn table(&mut self) -> Result<()> {
        let Some(first) = self.page.first() else {
            return Ok(());
        };
        let batch = concat_batches(&first.schema(), &self.page).map_err(failed)?;
        self.page.clear();
        for start in (0..batch.num_rows()).step_by(PAGE_ROWS) {
            let page = batch.slice(start, PAGE_ROWS.min(batch.num_rows() - start));
            let columns = page
                .columns()
                .iter()
                .map(cut)
                .collect::<Result<Vec<ArrayRef>>>()?;
            let names = self.schema.fields().iter().map(|f| terminal::out(f.name()));
            let page = RecordBatch::try_from_iter(names.zip(columns)).map_err(failed)?;
            let text = pretty_format_batches(&[page]).map_err(failed)?;
            output::line(&text.to_string())?;
        }
        Ok(())
    }

    /// Says how many rows there were, where that is not part of the data.
    pub(super) fn finish(mut self) -> Result<()> {
        self.table()?;
        if self.format == Format::Csv && self.rows == 0 && !self.schema.fields().is_empty() {
            // The names of the columns, which no row brought along.
            let empty = RecordBatch::new_empty(Arc::clone(&self.schema));
            let text = CsvEncoder::plain().encode(&empty, true).map_err(failed)?;
            output::bytes(&text)?;
        }
        if self.format == Format::Table && !self.schema.fields().is_empty() {
            let rows = if self.rows == 1 { "row" } else { "rows" };
            output::line(&format!("{} {rows}", self.rows))?;
        }
        Ok(())
    }
}

/// The column as text with long cells cut; plans keep their line breaks.
fn cut(column: &ArrayRef) -> Result<ArrayRef> {
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(column, &options).map_err(failed)?;
    let is_plan = column.as_string_opt::<i32>().is_some();
    let cells = (0..column.len()).map(|row| {
        let text = formatter.value(row).to_string();
        let text = match text.chars().count() > CELL_CHARS && !is_plan {
            true => text.chars().take(CELL_CHARS - 1).chain(['…']).collect(),
            false => text,
        };
        terminal::out(&text).into_owned()
    });
    Ok(Arc::new(cells.map(Some).collect::<StringArray>()))
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    let message = format!("printing rows: {error}");
    Error::new(ErrorKind::Unavailable, message).with_source(error)
}
