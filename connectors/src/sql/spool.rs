//! Rows that wait for a slow statement: kept in a file on the local disk, so that their source is
//! let go.
//!
//! A model may take hours for what was read in a second. Meanwhile the source would keep a
//! transaction open, and with it rows that nobody may clean up; or its result would be given up
//! before it was read. So once rows have waited for `spool.after_secs` in all, the rest of them is
//! read as fast as it comes, and handed out from the file in order. What is beyond
//! `spool.max_bytes` is not read: the source is let go as well, what was kept still comes, and
//! after it an error that says how to read the rest. A statement with a LIMIT may never get there.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::ipc::reader::StreamReader;
use datafusion::arrow::ipc::writer::StreamWriter;
use datafusion::common::runtime::SpawnedTask;
use datafusion::error::{DataFusionError, Result};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::timeout;

use super::exchange::Rows;
use crate::connector::{Connector, OptionSpec};
use crate::error::{Error, ErrorKind};
use crate::options::{TableOptions, parse_value};

/// The option that says when rows go to the disk. The shortest life of a result is an hour, which
/// leaves most of it to read the rest; where a transaction is open meanwhile, it is sooner.
pub(crate) const AFTER: OptionSpec = OptionSpec {
    key: "spool.after_secs",
    secret: false,
    default: "600",
    doc: "seconds that rows may wait in all for a slow statement; then the rest of them is read \
          into a file on the local disk (where TMPDIR says), and the source is let go",
};
/// The option that says how much of them.
pub(crate) const MAX_BYTES: OptionSpec = OptionSpec {
    key: "spool.max_bytes",
    secret: false,
    default: "4294967296",
    doc: "bytes of that file; a statement that comes to rows beyond it ends with an error; 0: no \
          file, rows wait at the source",
};

/// Bytes after which a file is followed by another, so that the disk gets back what was taken.
const FILE_BYTES: u64 = 64 << 20;
/// Files at most, for any `spool.max_bytes`.
const MAX_FILES: u64 = 32;
/// Batches that wait beside the file: one, so that little is read for a little.
const AHEAD: usize = 1;

/// When and how much is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SpoolLimits {
    /// How long rows may wait in all.
    pub(crate) after: Duration,
    /// Bytes in the file; 0: there is none.
    pub(crate) max_bytes: u64,
}

impl SpoolLimits {
    /// Rows wait at the source.
    pub(crate) const NONE: Self = Self {
        after: Duration::ZERO,
        max_bytes: 0,
    };

    /// From `spool.*` among `options` of a table of `connector`, whose list says what is meant by
    /// default.
    ///
    /// # Errors
    /// What is no number.
    pub(crate) fn parse(
        connector: &Connector,
        options: &TableOptions,
    ) -> crate::error::Result<Self> {
        let number = |spec: OptionSpec, expected: &str| {
            let own = connector.options.iter().find(|own| own.key == spec.key);
            let default = own.unwrap_or(&spec).default;
            parse_value(spec.key, options.get(spec.key).unwrap_or(default), expected)
        };
        Ok(Self {
            after: Duration::from_secs(number(AFTER, "a number of seconds")?),
            max_bytes: number(MAX_BYTES, "a number of bytes")?,
        })
    }
}

/// `rows`, which come while `doing` something, kept within `limits` while they wait. Nothing is
/// asked for before the first is; dropped, it drops `rows`.
pub(crate) fn spooled(rows: Rows, doing: &str, limits: SpoolLimits) -> Rows {
    if limits.max_bytes == 0 {
        return rows;
    }
    let doing = doing.to_owned();
    let started = async move {
        let (sender, receiver) = channel(AHEAD);
        let task = SpawnedTask::spawn(pass_on(rows, sender, doing.clone(), limits));
        let state = (receiver, task, doing);
        stream::try_unfold(
            state,
            async |(mut receiver, task, doing): (Receiver<_>, _, _)| match receiver.recv().await {
                Some(batch) => Ok(Some((batch?, (receiver, task, doing)))),
                None => match task.join().await {
                    Ok(()) => Ok(None),
                    Err(lost) => Err(Error::while_doing(doing, lost).into()),
                },
            },
        )
    };
    stream::once(started).flatten().boxed()
}

/// Passes rows on as they are taken, until they have waited too long.
async fn pass_on(
    mut rows: Rows,
    sender: Sender<Result<RecordBatch>>,
    doing: String,
    limits: SpoolLimits,
) {
    let mut waited = Duration::ZERO;
    loop {
        let begun = Instant::now();
        let place = timeout(limits.after.saturating_sub(waited), sender.reserve()).await;
        waited += begun.elapsed();
        match place {
            // Only now is more asked for.
            Ok(Ok(place)) => match rows.next().await {
                Some(batch) => place.send(batch),
                None => return,
            },
            Ok(Err(_)) => return,
            Err(_) => break,
        }
    }
    if let Err(error) = keep(rows, &sender, &doing, limits).await {
        sender.send(Err(error)).await.ok();
    }
}

/// Reads the rest of `rows` as fast as it comes and passes it on as it is taken.
async fn keep(
    rows: Rows,
    sender: &Sender<Result<RecordBatch>>,
    doing: &str,
    limits: SpoolLimits,
) -> Result<()> {
    let mut spool = Spool::open(doing, limits).await?;
    let mut source = Some(rows);
    let mut last = Ok(());
    loop {
        tokio::select! {
            biased;
            place = sender.reserve(), if !spool.is_empty() => {
                let Ok(place) = place else { return Ok(()) };
                place.send(Ok(spool.take().await?));
            }
            batch = next(&mut source), if source.is_some() => match batch {
                Ok(Some(batch)) => match sender.try_reserve() {
                    Ok(place) if spool.is_empty() => place.send(Ok(batch)),
                    _ if spool.bytes >= limits.max_bytes => {
                        source = None;
                        last = Err(too_much(doing, limits));
                    }
                    _ => spool.put(batch).await?,
                },
                // The source is let go before what was kept is taken.
                end => {
                    source = None;
                    last = end.map(drop);
                }
            },
            else => return last,
        }
    }
}

async fn next(source: &mut Option<Rows>) -> Result<Option<RecordBatch>> {
    match source {
        Some(rows) => rows.try_next().await,
        None => Ok(None),
    }
}

fn too_much(doing: &str, limits: SpoolLimits) -> DataFusionError {
    let error = Error::new(
        ErrorKind::Exhausted,
        format!(
            "{doing}: while the statement was busy with the rows before, more came than the {} \
             bytes of spool.max_bytes; raise it, or read the table in pieces (as WHERE id BETWEEN \
             1 AND 100000; together they are no snapshot of one moment), or let rows wait at the \
             source with 'spool.max_bytes' '0'",
            limits.max_bytes
        ),
    );
    // Hours may pass until the statement comes to it.
    log::warn!(target: "casebook", "{error}; what was kept is used first");
    error.into()
}

/// Batches in files without names, each batch where the one before ends. A file goes when its last
/// batch is taken.
struct Spool {
    doing: String,
    /// The one that is written to.
    file: Arc<File>,
    /// Where the next batch goes in it.
    end: u64,
    /// Where in it no further one begins.
    file_bytes: u64,
    /// The kept batches: their files, where they begin there, and how many bytes they have.
    kept: VecDeque<(Arc<File>, u64, usize)>,
    /// Bytes of them.
    bytes: u64,
}

impl Spool {
    async fn open(doing: &str, limits: SpoolLimits) -> Result<Self> {
        let doing = format!(
            "{doing}: keeping rows in a file in {}",
            std::env::temp_dir().display()
        );
        Ok(Self {
            file: new_file(&doing).await?,
            doing,
            end: 0,
            file_bytes: FILE_BYTES.max(limits.max_bytes / MAX_FILES),
            kept: VecDeque::new(),
            bytes: 0,
        })
    }

    fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Keeps `batch`, after all others.
    async fn put(&mut self, batch: RecordBatch) -> Result<()> {
        if self.end >= self.file_bytes {
            (self.file, self.end) = (new_file(&self.doing).await?, 0);
        }
        let (file, at) = (Arc::clone(&self.file), self.end);
        let length = on_disk(&self.doing, move || {
            let bytes = encoded(&batch)?;
            let mut file = &*file;
            file.seek(SeekFrom::Start(at))?;
            file.write_all(&bytes)?;
            Ok(bytes.len())
        });
        let length = length.await?;
        self.kept.push_back((Arc::clone(&self.file), at, length));
        self.end += length as u64;
        self.bytes += length as u64;
        Ok(())
    }

    /// The first batch that is kept, and no longer.
    async fn take(&mut self) -> Result<RecordBatch> {
        let Some((file, at, length)) = self.kept.pop_front() else {
            let why = ArrowError::IpcError("no batch is kept".into());
            return Err(Error::while_doing(&self.doing, why).into());
        };
        self.bytes -= length as u64;
        let batch = on_disk(&self.doing, move || {
            let mut file = &*file;
            file.seek(SeekFrom::Start(at))?;
            let mut bytes = vec![0; length];
            file.read_exact(&mut bytes)?;
            let mut batches = StreamReader::try_new(Cursor::new(bytes), None)?;
            let batch = batches.next().transpose()?;
            batch.ok_or_else(|| ArrowError::IpcError("a batch is missing".into()))
        });
        let batch = batch.await?;
        if self.kept.is_empty() {
            // From the beginning again.
            self.end = 0;
        }
        Ok(batch)
    }
}

/// A file that nobody else can read: the documents are not theirs.
async fn new_file(doing: &str) -> Result<Arc<File>> {
    on_disk(doing, || Ok(Arc::new(tempfile::tempfile()?))).await
}

async fn on_disk<T: Send + 'static>(
    doing: &str,
    work: impl FnOnce() -> std::result::Result<T, ArrowError> + Send + 'static,
) -> Result<T> {
    let done = SpawnedTask::spawn_blocking(work).join().await;
    let done = done.map_err(|e| Error::while_doing(doing, e))?;
    Ok(done.map_err(|error| match error {
        // Of a full disk, the system's own error tells.
        ArrowError::IoError(_, cause) => Error::while_doing(doing, cause),
        error => Error::while_doing(doing, error),
    })?)
}

fn encoded(batch: &RecordBatch) -> std::result::Result<Vec<u8>, ArrowError> {
    let columns = batch.columns().iter().map(|column| -> ArrayRef {
        match column.data_type() {
            // Views are written with all that their buffers hold, also of other rows.
            DataType::Utf8View => Arc::new(column.as_string_view().gc()),
            DataType::BinaryView => Arc::new(column.as_binary_view().gc()),
            _ => Arc::clone(column),
        }
    });
    let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let batch = RecordBatch::try_new_with_options(batch.schema(), columns.collect(), &rows)?;
    let mut writer = StreamWriter::try_new(vec![], &batch.schema())?;
    writer.write(&batch)?;
    writer.finish()?;
    writer.into_inner()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use datafusion::arrow::array::StringViewArray;
    use datafusion::arrow::datatypes::Schema;
    use tokio::sync::Notify;

    use super::*;

    /// A source of numbered batches that says how many were taken and whether it is still held.
    struct Source {
        taken: AtomicUsize,
        let_go: Notify,
    }

    struct LetGo(Arc<Source>);

    impl Drop for LetGo {
        fn drop(&mut self) {
            self.0.let_go.notify_one();
        }
    }

    fn batch(i: usize) -> RecordBatch {
        let texts: ArrayRef = Arc::new(StringViewArray::from(vec![
            Some(format!("text {i} of more than twelve bytes")),
            None,
            Some("short".into()),
        ]));
        let whole = RecordBatch::try_from_iter_with_nullable([("t", texts, true)]).unwrap();
        whole.slice(0, 2)
    }

    /// `count` batches, then what `last` says.
    fn source(count: usize, last: Option<&'static str>) -> (Arc<Source>, Rows) {
        let source = Arc::new(Source {
            taken: AtomicUsize::new(0),
            let_go: Notify::new(),
        });
        let held = LetGo(Arc::clone(&source));
        let rows = stream::unfold((0, held), move |(i, held)| async move {
            if i < count {
                held.0.taken.fetch_add(1, Ordering::SeqCst);
                return Some((Ok(batch(i)), (i + 1, held)));
            }
            let last = last.filter(|_| i == count)?;
            Some((Err(Error::invalid(last).into()), (i + 1, held)))
        });
        (source, rows.boxed())
    }

    fn limits(after: Duration, max_bytes: u64) -> SpoolLimits {
        SpoolLimits { after, max_bytes }
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn a_slow_statement_lets_its_source_go_and_gets_all_rows_in_order() {
        let (source, rows) = source(50, None);
        let mut rows = spooled(rows, "reading t", limits(Duration::ZERO, 1 << 30));
        let first = rows.next().await.unwrap().unwrap();
        assert_eq!(first, batch(0));
        // Not one row more is asked for meanwhile.
        source.let_go.notified().await;
        assert_eq!(source.taken.load(Ordering::SeqCst), 50);
        let rest: Vec<RecordBatch> = rows.try_collect().await.unwrap();
        assert_eq!(rest, (1..50).map(batch).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_statement_that_keeps_up_reads_one_batch_ahead() {
        for max_bytes in [0, 1 << 30] {
            let (source, rows) = source(50, None);
            let mut rows = spooled(rows, "reading t", limits(HOUR, max_bytes));
            assert_eq!(source.taken.load(Ordering::SeqCst), 0);
            for i in 0..10 {
                assert_eq!(rows.next().await.unwrap().unwrap(), batch(i));
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
                let taken = source.taken.load(Ordering::SeqCst);
                assert!(taken <= i + 2, "{taken} after {}", i + 1);
            }
            drop(rows);
            source.let_go.notified().await;
        }
    }

    #[tokio::test]
    async fn what_is_beyond_the_file_is_refused_after_what_it_holds() {
        let one = encoded(&batch(0)).unwrap().len() as u64;
        let (source, rows) = source(50, None);
        let mut rows = spooled(rows, "reading t", limits(Duration::ZERO, one * 9 + 1));
        assert_eq!(rows.next().await.unwrap().unwrap(), batch(0));
        source.let_go.notified().await;
        let mut read = 1;
        let error = loop {
            match rows.next().await.unwrap() {
                Ok(next) => assert_eq!(next, batch(read)),
                Err(error) => break error.to_string(),
            }
            read += 1;
        };
        assert!((10..15).contains(&read), "{read}");
        for part in ["reading t", "spool.max_bytes", "in pieces"] {
            assert!(error.contains(part), "{error}");
        }
        assert!(rows.next().await.is_none());
    }

    #[tokio::test]
    async fn an_error_comes_after_the_rows_before_it() {
        for after in [Duration::ZERO, HOUR] {
            let (_, rows) = source(5, Some("it broke"));
            let all: Vec<_> = spooled(rows, "reading t", limits(after, 1 << 30))
                .collect()
                .await;
            assert_eq!(all.len(), 6);
            assert!(all[..5].iter().all(Result::is_ok));
            let error = all[5].as_ref().unwrap_err().to_string();
            assert!(error.contains("it broke"), "{error}");
        }
    }

    #[tokio::test]
    async fn rows_without_columns_are_still_counted() {
        let rows = RecordBatchOptions::new().with_row_count(Some(7));
        let none = Arc::new(Schema::empty());
        let batch = RecordBatch::try_new_with_options(none, vec![], &rows).unwrap();
        let mut spool = Spool::open("reading t", limits(HOUR, 100)).await.unwrap();
        for _ in 0..3 {
            spool.put(batch.clone()).await.unwrap();
        }
        assert_eq!(spool.take().await.unwrap().num_rows(), 7);
        assert!(spool.bytes > 0 && !spool.is_empty());
        for _ in 0..2 {
            spool.take().await.unwrap();
        }
        assert_eq!((spool.end, spool.bytes, spool.is_empty()), (0, 0, true));
    }

    #[tokio::test]
    async fn the_disk_gets_back_what_was_taken() {
        let mut spool = Spool::open("reading t", limits(HOUR, 100)).await.unwrap();
        spool.file_bytes = 1;
        for i in 0..5 {
            spool.put(batch(i)).await.unwrap();
        }
        let first = Arc::downgrade(&spool.kept[0].0);
        for i in 0..5 {
            assert!(i > 0 || first.upgrade().is_some());
            assert_eq!(spool.take().await.unwrap(), batch(i));
            assert!(first.upgrade().is_none());
        }
        assert_eq!(spool.bytes, 0);
        assert!(spool.take().await.is_err());
    }

    /// More comes in all than the file may hold, never more at a time, and it is never empty.
    #[tokio::test]
    async fn only_what_waits_counts() {
        let one = encoded(&batch(0)).unwrap().len() as u64;
        let ahead = Arc::new(tokio::sync::Semaphore::new(5));
        let gate = Arc::clone(&ahead);
        let rows = stream::iter(0..50).then(move |i| {
            let gate = Arc::clone(&gate);
            async move {
                gate.acquire().await.unwrap().forget();
                Ok(batch(i))
            }
        });
        let mut rows = spooled(rows.boxed(), "reading t", limits(Duration::ZERO, one * 9));
        for i in 0..50 {
            // Nothing is read before the first row is asked for.
            while i > 0 && ahead.available_permits() > 0 {
                tokio::task::yield_now().await;
            }
            assert_eq!(rows.next().await.unwrap().unwrap(), batch(i), "{i}");
            ahead.add_permits(usize::from(i < 45));
        }
        assert!(rows.next().await.is_none());
    }
}
