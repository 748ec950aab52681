//! The rows of a query as batches, on a thread of their own that ends when nobody wants them.
//!
//! Where every column is narrow the driver fills whole arrays of rows; where a column may hold any
//! length, rows come one by one and their values in the order of the columns, which every driver
//! can do. A batch is passed on at [`BATCH_BYTES`] or the session's number of rows. A result that
//! breaks off is an error: the end of the rows is a message of its own.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::error::DataFusionError;
use futures::{StreamExt, TryStreamExt, stream};
use odbc_api::buffers::{BufferDesc, ColumnarDynBuffer};
use odbc_api::handles::StatementImpl;
use odbc_api::{Cursor, CursorImpl, CursorRow, Nullable};
use tokio::sync::mpsc;

use super::arrays::{append, layout};
use super::builders::{BatchBuilder, ColumnBuilder};
use super::connection;
use super::long_values::{Bytes, LongValue, Utf8, Utf16};
use super::running::{Running, StopWhenDropped};
use super::server_cursor::ServerCursor;
use super::session::Session;
use super::settings::Settings;
use super::types::Fetch;
use crate::error::{Error, ErrorKind, Result};
use crate::sql::exchange::{Query, Rows};

/// Bytes of texts after which a batch is passed on, whatever its number of rows.
const BATCH_BYTES: usize = 16 << 20;
/// Batches that may wait, beside the one being built.
const BATCHES_AHEAD: usize = 1;
/// Bytes of one array of rows.
const ARRAY_BYTES: usize = 4 << 20;

/// The rows of `query`. Nothing is sent before they are polled; dropped, they end the thread at the
/// next batch.
pub(super) fn rows(settings: Settings, query: Query) -> Rows {
    let started = async move {
        let doing = query.doing.clone();
        let running = Running::new(settings.clone(), query.dialect);
        let receiver = start(settings, query, Arc::clone(&running)).await?;
        let state = (receiver, StopWhenDropped(running), doing);
        let rows = stream::try_unfold(state, async |(mut receiver, running, doing)| {
            let batch = match receiver.recv().await {
                Some(message) => message?,
                // The thread ended without a word.
                None => {
                    return Err(Error::new(
                        ErrorKind::Internal,
                        format!("{doing}: the ODBC driver failed in the middle of the rows"),
                    )
                    .into());
                }
            };
            Ok::<_, DataFusionError>(batch.map(|batch| (batch, (receiver, running, doing))))
        });
        Ok::<_, DataFusionError>(rows)
    };
    stream::once(started).try_flatten().boxed()
}

/// A batch, or none after the last one.
type Message = Result<Option<RecordBatch>>;

/// Starts reading. The receiver gets batches, then an error or the end.
async fn start(
    settings: Settings,
    query: Query,
    running: Arc<Running>,
) -> Result<mpsc::Receiver<Message>> {
    let permit = connection::permit(&settings).await?;
    let (sender, receiver) = mpsc::channel(BATCHES_AHEAD);
    let read = move || {
        let last = Reader::new(&settings, &query, &sender).read(&running);
        running.has_ended();
        drop(permit);
        // Nobody may be there any more.
        sender.blocking_send(last.map(|()| None)).ok();
    };
    let thread = std::thread::Builder::new().name("casebook-odbc-reader".into());
    thread
        .spawn(read)
        .map_err(|e| Error::while_doing("starting an ODBC reader", e))?;
    Ok(receiver)
}

struct Reader<'q> {
    settings: &'q Settings,
    query: &'q Query,
    /// How each column is fetched.
    fetch: Vec<Fetch>,
    sender: &'q mpsc::Sender<Message>,
    batch: BatchBuilder,
    /// Rows read.
    read: usize,
    /// Bytes of texts in the batches that were passed on.
    passed_on: usize,
}

/// Where the driver puts values.
enum Buffers {
    Arrays(ColumnarDynBuffer),
    Values(LongValues),
}

/// Whether the receiver is still there and the limit not reached.
#[derive(PartialEq)]
enum Wanted {
    More,
    Nothing,
}

impl<'q> Reader<'q> {
    fn new(settings: &'q Settings, query: &'q Query, sender: &'q mpsc::Sender<Message>) -> Self {
        let columns = query.columns.iter();
        let fetch: Vec<Fetch> = columns.map(|c| Fetch::of(query.dialect, &c.own)).collect();
        Self {
            settings,
            query,
            sender,
            batch: BatchBuilder::new(&query.columns, &fetch, &query.doing),
            fetch,
            read: 0,
            passed_on: 0,
        }
    }

    fn read(&mut self, running: &Running) -> Result<()> {
        let session = Session::open(self.settings)?;
        running.begins(&session);
        let Query {
            doing, statement, ..
        } = self.query;
        let mut buffers = self.buffers().map_err(|e| session.failed(doing, e))?;
        if self.query.dialect.server_cursor {
            let mut cursor = ServerCursor::open(&session, doing, &statement.sql)?;
            while let Some(block) = cursor.next_block(self.read, self.bytes())? {
                if self.append(&session, doing, block, &mut buffers)? == Wanted::Nothing {
                    break;
                }
            }
        } else {
            let rows = session.query(doing, &statement.sql)?;
            self.append(&session, doing, rows, &mut buffers)?;
        }
        self.flush().map(drop)
    }

    /// Arrays where every column is narrow, else buffers for one value at a time.
    fn buffers(&self) -> std::result::Result<Buffers, odbc_api::Error> {
        let layout = match self.settings.row_by_row || self.fetch.is_empty() {
            true => None,
            false => layout(&self.fetch, self.query.dialect.utf8),
        };
        let Some(layout) = layout else {
            return Ok(Buffers::Values(LongValues::default()));
        };
        let row_bytes: usize = layout.iter().map(BufferDesc::bytes_per_row).sum();
        let rows = (ARRAY_BYTES / row_bytes).clamp(1, self.query.batch_rows.max(1));
        ColumnarDynBuffer::try_from_descs(rows, layout).map(Buffers::Arrays)
    }

    /// Appends all rows of a result, or as many as are wanted.
    fn append(
        &mut self,
        session: &Session<'_>,
        doing: &str,
        rows: CursorImpl<StatementImpl<'_>>,
        buffers: &mut Buffers,
    ) -> Result<Wanted> {
        let appended = match buffers {
            Buffers::Arrays(buffer) => self.arrays(rows, buffer),
            Buffers::Values(buffers) => self.rows(rows, buffers),
        };
        appended.map_err(|e| match e {
            Failure::Driver(e) => session.failed(doing, e),
            Failure::Value(e) => e,
        })
    }

    fn arrays(
        &mut self,
        rows: CursorImpl<StatementImpl<'_>>,
        buffer: &mut ColumnarDynBuffer,
    ) -> std::result::Result<Wanted, Failure> {
        let mut rows = rows.bind_buffer(buffer)?;
        while let Some(array) = rows.fetch_with_truncation_check(true)? {
            let left = self
                .query
                .limit
                .map_or(usize::MAX, |limit| limit - self.read);
            let rows = array.num_rows().min(left);
            let columns = self.batch.columns.iter_mut().zip(&self.fetch);
            for (i, (column, fetch)) in columns.enumerate() {
                append(column, *fetch, array.column(i), rows)?;
            }
            if self.add(rows)? == Wanted::Nothing {
                return Ok(Wanted::Nothing);
            }
        }
        Ok(Wanted::More)
    }

    fn rows(
        &mut self,
        mut rows: CursorImpl<StatementImpl<'_>>,
        buffers: &mut LongValues,
    ) -> std::result::Result<Wanted, Failure> {
        while let Some(mut row) = rows.next_row()? {
            let columns = self.batch.columns.iter_mut().zip(&self.fetch);
            for (number, (column, fetch)) in (1..).zip(columns) {
                let utf8 = self.query.dialect.utf8;
                buffers.append(column, *fetch, utf8, &mut row, number)?;
            }
            if self.add(1)? == Wanted::Nothing {
                return Ok(Wanted::Nothing);
            }
        }
        Ok(Wanted::More)
    }

    /// Bytes of texts read so far.
    fn bytes(&self) -> usize {
        self.passed_on + self.batch.bytes()
    }

    /// Counts rows; passes the batch on if it is full or the last.
    fn add(&mut self, rows: usize) -> Result<Wanted> {
        self.batch.add_rows(rows);
        self.read += rows;
        let last = self.query.limit.is_some_and(|limit| self.read >= limit);
        let full = self.batch.rows() >= self.query.batch_rows || self.batch.bytes() >= BATCH_BYTES;
        match (full || last, last) {
            (false, _) => Ok(Wanted::More),
            (true, false) => self.flush(),
            (true, true) => self.flush().map(|_| Wanted::Nothing),
        }
    }

    fn flush(&mut self) -> Result<Wanted> {
        if self.batch.rows() == 0 {
            return Ok(Wanted::More);
        }
        self.passed_on += self.batch.bytes();
        let batch = self.batch.finish()?;
        Ok(match self.sender.blocking_send(Ok(Some(batch))) {
            Ok(()) => Wanted::More,
            Err(_) => Wanted::Nothing,
        })
    }
}

/// What went wrong with one value.
enum Failure {
    Driver(odbc_api::Error),
    Value(Error),
}

impl From<odbc_api::Error> for Failure {
    fn from(error: odbc_api::Error) -> Self {
        Self::Driver(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Value(error)
    }
}

/// Buffers for values of any length, used column after column.
#[derive(Default)]
struct LongValues {
    utf8: LongValue<Utf8>,
    utf16: LongValue<Utf16>,
    bytes: LongValue<Bytes>,
}

impl LongValues {
    fn append(
        &mut self,
        column: &mut ColumnBuilder,
        fetch: Fetch,
        utf8: bool,
        row: &mut CursorRow<'_>,
        number: u16,
    ) -> std::result::Result<(), Failure> {
        match fetch {
            Fetch::Integer => column.integer(fixed(row, number)?),
            Fetch::Float32 => column.float32(fixed(row, number)?),
            Fetch::Float64 => column.float64(fixed(row, number)?),
            Fetch::Boolean => column.boolean(fixed(row, number)?),
            Fetch::Date => column.date(fixed(row, number)?)?,
            Fetch::Timestamp(_) => column.timestamp(fixed(row, number)?)?,
            Fetch::Text(_) if utf8 => column.text(self.utf8.get(row, number)?)?,
            Fetch::Text(_) => column.wide_text(self.utf16.get(row, number)?)?,
            Fetch::Bytes => column.binary(self.bytes.get(row, number)?),
        }
        Ok(())
    }
}

fn fixed<T>(row: &mut CursorRow<'_>, number: u16) -> std::result::Result<Option<T>, odbc_api::Error>
where
    T: odbc_api::Pod,
    Nullable<T>: odbc_api::parameter::CElement + odbc_api::handles::CDataMut,
{
    let mut value = Nullable::<T>::null();
    row.get_data(number, &mut value)?;
    Ok(value.into_opt())
}
