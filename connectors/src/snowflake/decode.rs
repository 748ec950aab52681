//! Arrow IPC streams of a result to batches of the declared schema, bounded by rows and bytes.

use std::sync::Arc;

use bytes::Bytes;
use datafusion::arrow::array::{Array, RecordBatch, RecordBatchOptions};
use datafusion::arrow::buffer::Buffer;
use datafusion::arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::ipc::reader::StreamDecoder;
use datafusion::arrow::ipc::writer::StreamWriter;

use super::arrays::convert;
use super::messages::RowType;
use super::plain::At;
use super::types::arrow_type;
use crate::declared::same_class;
use crate::error::{Error, ErrorKind, Result};
use crate::guard::caught;

/// Bytes of the mark at the end of a stream that the library writes.
const END_MARK_BYTES: usize = 8;
/// Bytes of values in a batch, unless a single row is larger.
const BATCH_BYTES: usize = 8 << 20;

/// What the batches of a result are to look like.
#[derive(Debug)]
pub(super) struct Layout {
    /// For errors: `reading "DB"."S"."T"`.
    doing: String,
    schema: SchemaRef,
    rowtype: Vec<RowType>,
    batch_rows: usize,
}

impl Layout {
    /// # Errors
    /// Columns of `rowtype` that are not those of `schema`, which may be empty: then rows are only
    /// counted.
    pub(super) fn new(
        doing: &str,
        schema: &SchemaRef,
        rowtype: Vec<RowType>,
        batch_rows: usize,
    ) -> Result<Self> {
        let same = schema.fields().is_empty()
            || (schema.fields().len() == rowtype.len()
                && schema
                    .fields()
                    .iter()
                    .zip(&rowtype)
                    .all(|(f, row)| same_class(f.data_type(), &arrow_type(row))));
        match same {
            true => Ok(Self {
                doing: doing.to_owned(),
                schema: Arc::clone(schema),
                rowtype,
                batch_rows: batch_rows.max(1),
            }),
            false => Err(Error::invalid(format!(
                "{doing}: its columns have changed since CREATE EXTERNAL TABLE; create it again \
                 to see the new ones"
            ))),
        }
    }

    /// Rows `from..from + rows` of `batch` in the declared types; `before` came before them.
    fn piece(
        &self,
        batch: &RecordBatch,
        from: usize,
        rows: usize,
        before: u64,
    ) -> Result<RecordBatch> {
        let sent = batch.schema();
        let fields = self.schema.fields().iter().zip(sent.fields());
        let columns = fields
            .zip(&self.rowtype)
            .zip(batch.columns())
            .map(|(((target, sent), row), column)| {
                let at = At { row, before };
                convert(&column.slice(from, rows), sent, at, target.data_type())
            })
            .collect::<Result<Vec<_>>>()
            .map_err(|e| Error::new(e.kind(), format!("{}: {e}", self.doing)).with_source(e))?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            .map_err(|e| Error::while_doing(&self.doing, e))
    }

    fn corrupt(&self, what: &str) -> Error {
        Error::new(
            ErrorKind::Corrupt,
            format!(
                "{}: a part of the result is damaged ({what}); run the statement again",
                self.doing
            ),
        )
    }
}

/// One IPC stream: the inline rows or a chunk.
pub(super) struct Decoder {
    layout: Arc<Layout>,
    decoder: StreamDecoder,
    input: Buffer,
    /// A batch of the stream, and how many of its rows were passed on.
    batch: Option<(RecordBatch, usize)>,
    rows: u64,
    /// Rows of the result before those of this stream.
    before: u64,
    expected: Option<u64>,
}

impl Decoder {
    /// `before` rows came before; `expected` is the number of these, where the server said it.
    ///
    /// # Errors
    /// A stream that does not begin with a schema.
    pub(super) fn new(
        layout: Arc<Layout>,
        input: Bytes,
        before: u64,
        expected: Option<u64>,
    ) -> Result<Self> {
        let mut input = Buffer::from(input);
        let begun = caught(layout.doing.trim_start_matches("reading "), || {
            begin(&mut input)
        })?;
        let decoder = begun.map_err(|e| layout.corrupt(&e.to_string()))?;
        Ok(Self {
            layout,
            decoder,
            input,
            batch: None,
            rows: 0,
            before,
            expected,
        })
    }

    /// Rows of the result up to where this is.
    pub(super) fn reached(&self) -> u64 {
        self.before + self.rows
    }

    /// The next batch; None after the last row.
    ///
    /// # Errors
    /// A damaged stream, or one with fewer or more rows than the server said: a short result is
    /// never passed off as a whole one.
    pub(super) fn next(&mut self) -> Result<Option<RecordBatch>> {
        let layout = Arc::clone(&self.layout);
        caught(layout.doing.trim_start_matches("reading "), || {
            self.decode()
        })?
    }

    fn decode(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some((batch, from)) = self.batch.take()
                && from < batch.num_rows()
            {
                let rows = fitting(&batch, from, self.layout.batch_rows);
                let piece = self
                    .layout
                    .piece(&batch, from, rows, self.before + self.rows)?;
                self.rows += rows as u64;
                self.batch = Some((batch, from + rows));
                return Ok(Some(piece));
            }
            let decoded = self.decoder.decode(&mut self.input);
            match decoded.map_err(|e| self.layout.corrupt(&e.to_string()))? {
                Some(batch) => {
                    self.check(&batch)?;
                    self.batch = Some((batch, 0));
                }
                None => return self.finish().map(|()| None),
            }
        }
    }

    fn check(&self, batch: &RecordBatch) -> Result<()> {
        match batch.num_columns() == self.layout.rowtype.len() {
            true => Ok(()),
            false => Err(self.layout.corrupt("it has another number of columns")),
        }
    }

    fn finish(&mut self) -> Result<()> {
        let ended = self.decoder.finish();
        ended.map_err(|e| self.layout.corrupt(&e.to_string()))?;
        match self.expected {
            Some(expected) if expected != self.rows => Err(self
                .layout
                .corrupt(&format!("it holds {} rows, not {expected}", self.rows))),
            _ => Ok(()),
        }
    }
}

/// A decoder that has read the schema at the start of `input`, and takes nulls in every part of a
/// struct: the parts of a timestamp are declared as never null, yet those of a null timestamp are,
/// which other readers do not mind.
fn begin(input: &mut Buffer) -> Result<StreamDecoder, ArrowError> {
    let Some(length) = schema_bytes(input).filter(|length| *length < input.len()) else {
        return Ok(StreamDecoder::new());
    };
    // The decoder looks at a message only when it sees that there is more behind it.
    let mut probe = StreamDecoder::new();
    probe.decode(&mut input.slice_with_length(0, length + 1))?;
    let Some(sent) = probe.schema() else {
        return Ok(StreamDecoder::new());
    };
    let fields = sent.fields().iter().map(|f| f.as_ref().clone());
    let relaxed: Vec<Field> = fields.map(with_null_parts).collect();
    let relaxed = Schema::new_with_metadata(relaxed, sent.metadata().clone());
    let mut decoder = StreamDecoder::new();
    if relaxed == *sent {
        return Ok(decoder);
    }
    *input = input.slice(length);
    let mut written = StreamWriter::try_new(vec![], &relaxed)?.into_inner()?;
    written.truncate(written.len() - END_MARK_BYTES);
    decoder.decode(&mut Buffer::from(written))?;
    Ok(decoder)
}

fn with_null_parts(field: Field) -> Field {
    let DataType::Struct(parts) = field.data_type() else {
        return field;
    };
    let parts: Fields = parts
        .iter()
        .map(|part| part.as_ref().clone().with_nullable(true))
        .collect();
    field.with_data_type(DataType::Struct(parts))
}

/// The length of the first message, which is the schema and has no body; None if it is cut off.
/// The mark before its size is absent in streams of old writers.
fn schema_bytes(input: &[u8]) -> Option<usize> {
    let word = |at: usize| {
        let bytes = input.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    let length = match word(0)? {
        u32::MAX => 8 + word(4)? as usize,
        size => 4 + size as usize,
    };
    (length <= input.len()).then_some(length)
}

/// How many rows from `from` on make a batch: at most `limit`, and [`BATCH_BYTES`] of values.
fn fitting(batch: &RecordBatch, from: usize, limit: usize) -> usize {
    let mut rows = limit.min(batch.num_rows() - from);
    while rows > 1 && bytes_of(batch, from, rows) > BATCH_BYTES {
        rows = rows.div_ceil(2);
    }
    rows
}

fn bytes_of(batch: &RecordBatch, from: usize, rows: usize) -> usize {
    let columns = batch.columns().iter();
    columns
        .map(|c| {
            let slice = c.slice(from, rows);
            // A layout whose slices cannot be measured counts as a whole.
            let size = slice.to_data().get_slice_memory_size();
            size.unwrap_or_else(|_| slice.get_array_memory_size())
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{ArrayRef, Int8Array, StringArray};

    use super::*;

    fn ipc(texts: &[String]) -> Vec<u8> {
        let n: ArrayRef = Arc::new(Int8Array::from(vec![1; texts.len()]));
        let t: ArrayRef = Arc::new(StringArray::from(texts.to_vec()));
        let batch = RecordBatch::try_from_iter([("N", n), ("T", t)]).unwrap();
        let mut writer = StreamWriter::try_new(vec![], &batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        writer.into_inner().unwrap()
    }

    fn rowtype() -> Vec<RowType> {
        let row = |name: &str, kind: &str| RowType {
            name: name.into(),
            kind: kind.into(),
            precision: Some(9),
            ..RowType::default()
        };
        vec![row("N", "fixed"), row("T", "text")]
    }

    fn decode(bytes: Vec<u8>, rows: u64, batch_rows: usize) -> Result<Vec<usize>> {
        let schema = Arc::new(Schema::new(vec![
            Field::new("n", DataType::Int64, true),
            Field::new("t", DataType::Utf8View, true),
        ]));
        let layout = Layout::new("reading t", &schema, rowtype(), batch_rows)?;
        let mut decoder = Decoder::new(Arc::new(layout), bytes.into(), 0, Some(rows))?;
        let mut sizes = vec![];
        while let Some(batch) = decoder.next()? {
            sizes.push(batch.num_rows());
        }
        Ok(sizes)
    }

    #[test]
    fn batches_are_bounded_by_rows_and_bytes() {
        let short: Vec<String> = (0..10).map(|i| i.to_string()).collect();
        assert_eq!(decode(ipc(&short), 10, 4).unwrap(), [4, 4, 2]);
        let long: Vec<String> = (0..6).map(|_| "x".repeat(5 << 20)).collect();
        assert_eq!(decode(ipc(&long), 6, 100).unwrap(), [1; 6]);
    }

    #[test]
    fn every_truncation_is_an_error() {
        let whole = ipc(&["a".into(), "b".into()]);
        assert_eq!(decode(whole.clone(), 2, 9).unwrap(), [2]);
        // Without its end mark a stream is whole; with anything less it is not.
        for end in 0..whole.len() - 8 {
            let error = decode(whole[..end].to_vec(), 2, 9).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{end}: {error}");
        }
        assert!(decode(whole, 3, 9).is_err());
    }

    #[test]
    fn changed_columns_are_an_error() {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
        let error = Layout::new("reading t", &schema, rowtype(), 9).unwrap_err();
        assert!(error.to_string().contains("create it again"), "{error}");
    }

    #[test]
    fn no_bit_flip_of_a_chunk_panics() {
        let texts: Vec<String> = (0..20).map(|i| format!("text number {i}")).collect();
        let whole = ipc(&texts);
        let mut refused = 0;
        for at in 0..whole.len() {
            for bit in [0, 3, 7] {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                if let Err(error) = decode(bytes, 20, 7) {
                    assert!(error.to_string().starts_with("reading t"), "{error}");
                    refused += 1;
                }
            }
        }
        assert!(refused > whole.len() / 4, "{refused} of {}", whole.len());
    }
}
