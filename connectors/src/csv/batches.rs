//! Cells to Arrow batches, bounded by bytes as well as rows.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, StringViewBuilder};
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::{DataType, SchemaRef};

use super::decoder::{CellSink, Position};
use crate::csv_limits::CsvLimits;
use crate::error::{Error, Result};

/// Builds batches of the projected columns and hands them to `emit`, which returns false when no
/// more are wanted.
pub(super) struct BatchSink<F> {
    /// Schema of the projected columns.
    schema: SchemaRef,
    /// For each column of the file, its place among the projected ones.
    places: Vec<Option<usize>>,
    builders: Vec<StringViewBuilder>,
    limits: CsvLimits,
    batch_rows: usize,
    rows: usize,
    bytes: usize,
    first: Position,
    skip_records: u64,
    emit: F,
}

impl<F: FnMut(RecordBatch) -> bool> BatchSink<F> {
    /// `columns` is the number of columns of the file, `projection` the wanted ones in order.
    pub(super) fn new(
        schema: SchemaRef,
        columns: usize,
        projection: &[usize],
        limits: CsvLimits,
        batch_rows: usize,
        skip_header: bool,
        emit: F,
    ) -> Self {
        let mut places = vec![None; columns];
        for (place, column) in projection.iter().enumerate() {
            places[*column] = Some(place);
        }
        let builders = projection
            .iter()
            .map(|_| StringViewBuilder::new())
            .collect();
        Self {
            schema,
            places,
            builders,
            limits,
            batch_rows: batch_rows.max(1),
            rows: 0,
            bytes: 0,
            first: Position::default(),
            skip_records: u64::from(skip_header),
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
        let mut columns = Vec::with_capacity(self.builders.len());
        for (builder, field) in self.builders.iter_mut().zip(self.schema.fields()) {
            let text: ArrayRef = Arc::new(builder.finish());
            columns.push(match field.data_type() {
                DataType::Utf8View => text,
                other => typed(&text, other, field.name(), self.first)?,
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            .map_err(|e| {
                Error::invalid(format!("records from {} on: {e}", self.first.record)).with_source(e)
            })?;
        (self.rows, self.bytes) = (0, 0);
        Ok((self.emit)(batch))
    }
}

/// Parses a declared type; the error names the first bad value.
fn typed(text: &ArrayRef, to: &DataType, name: &str, first: Position) -> Result<ArrayRef> {
    let strict = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    cast_with_options(text, to, &strict).map_err(|e| {
        Error::invalid(format!(
            "column {name}, records from {} on (byte {}): {e}; declare the column as VARCHAR to \
             read it as it is",
            first.record, first.byte
        ))
        .with_source(e)
    })
}

impl<F: FnMut(RecordBatch) -> bool> CellSink for BatchSink<F> {
    fn wants(&self, column: usize) -> bool {
        self.skip_records == 0 && self.places.get(column).is_some_and(Option::is_some)
    }

    fn cell(&mut self, column: usize, text: Option<&str>) -> Result<()> {
        if let Some(Some(place)) = self.places.get(column) {
            self.builders[*place].append_option(text);
            self.bytes += text.map_or(0, str::len);
        }
        Ok(())
    }

    fn record(&mut self, columns: usize, at: Position) -> Result<bool> {
        if self.skip_records > 0 {
            self.skip_records -= 1;
            return Ok(true);
        }
        let expected = self.places.len();
        if columns != expected {
            if !self.limits.allow_ragged {
                return Err(Error::invalid(format!(
                    "record {} (byte {}) has {columns} cells, the header {expected}; a delimiter \
                     or quote may be missing, or set csv.allow_ragged to true",
                    at.record, at.byte
                )));
            }
            for place in self.places.iter().skip(columns).flatten() {
                self.builders[*place].append_null();
            }
        }
        if self.rows == 0 {
            self.first = at;
        }
        self.rows += 1;
        if self.rows >= self.batch_rows || self.bytes >= self.limits.batch_bytes {
            return self.flush();
        }
        Ok(true)
    }
}
