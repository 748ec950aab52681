//! Batches on their way from the thread that reads to the stream that takes them.
//!
//! A model may take hours for what was read in a second. Meanwhile the source would keep a
//! transaction open, and with it rows that nobody may clean up. So a reader that waits for long
//! reads the rest into a file on the local disk, up to a bound, and the source is let go; what is
//! beyond the bound waits there, as the whole of it would.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Seek, SeekFrom, Write};
use std::thread;
use std::time::{Duration, Instant};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::ipc::reader::StreamReader;
use datafusion::arrow::ipc::writer::StreamWriter;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use uuid::Uuid;

use crate::error::{Error, Result};

/// A batch, or none after the last one.
pub(super) type Message = Result<Option<RecordBatch>>;

/// Between two looks whether a batch is wanted: an eighth of what was waited so far.
const SHORTEST_LOOK: Duration = Duration::from_micros(50);
const LONGEST_LOOK: Duration = Duration::from_millis(20);

/// When and how much is read ahead into a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct SpoolLimits {
    /// How long a reader waits before it does.
    pub(super) after: Duration,
    /// Bytes of batches in the file.
    pub(super) max_bytes: usize,
}

/// Where a reader puts its batches.
pub(super) struct Outlet {
    sender: mpsc::Sender<Message>,
    limits: SpoolLimits,
    spool: Option<Spool>,
}

impl Outlet {
    pub(super) fn new(sender: mpsc::Sender<Message>, limits: SpoolLimits) -> Self {
        Self {
            sender,
            limits,
            spool: None,
        }
    }

    /// Passes `batch` on, or keeps it; false if nobody wants batches any more.
    ///
    /// # Errors
    /// A disk that is full.
    pub(super) fn pass(&mut self, batch: RecordBatch) -> Result<bool> {
        if self.sender.is_closed() {
            return Ok(false);
        }
        let batch = match &self.spool {
            Some(_) => batch,
            None => match self.wait(batch) {
                Ok(wanted) => return Ok(wanted),
                Err(batch) => batch,
            },
        };
        let spool = match &mut self.spool {
            Some(spool) => spool,
            none => none.insert(Spool::new(&batch)?),
        };
        spool.write(&batch)?;
        match spool.bytes >= self.limits.max_bytes {
            true => self.empty(),
            false => Ok(true),
        }
    }

    /// Passes on what was kept; false if nobody wants batches any more. The source may be gone.
    pub(super) fn empty(&mut self) -> Result<bool> {
        let Some(spool) = self.spool.take() else {
            return Ok(true);
        };
        for batch in spool.read()? {
            let batch = batch.map_err(failed)?;
            if self.sender.blocking_send(Ok(Some(batch))).is_err() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The last word.
    pub(super) fn end(self, last: Result<()>) {
        self.sender.blocking_send(last.map(|()| None)).ok();
    }

    /// Passes `batch` on when it is wanted; gives it back if that takes too long.
    fn wait(&self, batch: RecordBatch) -> std::result::Result<bool, RecordBatch> {
        let mut message = Ok(Some(batch));
        let begun = Instant::now();
        loop {
            message = match self.sender.try_send(message) {
                Ok(()) => return Ok(true),
                Err(TrySendError::Closed(_)) => return Ok(false),
                Err(TrySendError::Full(message)) => message,
            };
            let waited = begun.elapsed();
            if waited >= self.limits.after
                && self.limits.max_bytes > 0
                && let Ok(Some(batch)) = message
            {
                return Err(batch);
            }
            thread::sleep((waited / 8).clamp(SHORTEST_LOOK, LONGEST_LOOK));
        }
    }
}

/// Batches in a file that has no name any more, where the system can do that.
struct Spool {
    writer: StreamWriter<BufWriter<File>>,
    bytes: usize,
}

impl Spool {
    fn new(first: &RecordBatch) -> Result<Self> {
        let name = format!("casebook-spool-{}", Uuid::new_v4().simple());
        let path = std::env::temp_dir().join(name);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt;
            // Nobody else's documents.
            options.mode(0o600);
        }
        let opened = options.open(&path);
        let file = opened.map_err(|e| {
            Error::while_doing(format!("making the file {} for rows", path.display()), e)
        })?;
        if cfg!(unix) {
            std::fs::remove_file(&path).ok();
        }
        let writer = StreamWriter::try_new(BufWriter::new(file), &first.schema());
        Ok(Self {
            writer: writer.map_err(failed)?,
            bytes: 0,
        })
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.bytes += batch.get_array_memory_size();
        self.writer.write(batch).map_err(failed)
    }

    fn read(self) -> Result<StreamReader<BufReader<File>>> {
        let io = |e| Error::while_doing("keeping rows in a local file", e);
        let mut buffered = self.writer.into_inner().map_err(failed)?;
        buffered.flush().map_err(io)?;
        let mut file = buffered.into_inner().map_err(|e| io(e.into_error()))?;
        file.seek(SeekFrom::Start(0)).map_err(io)?;
        StreamReader::try_new(BufReader::new(file), None).map_err(failed)
    }
}

fn failed(error: ArrowError) -> Error {
    match error {
        // Of a full disk, the system's own error tells.
        ArrowError::IoError(_, cause) => Error::while_doing("keeping rows in a local file", cause),
        error => Error::while_doing("keeping rows in a local file", error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{ArrayRef, AsArray, StringViewArray};

    use super::*;

    fn batch(i: usize) -> RecordBatch {
        let texts: ArrayRef = Arc::new(StringViewArray::from(vec![
            Some(format!("text {i} of more than twelve bytes")),
            None,
        ]));
        RecordBatch::try_from_iter_with_nullable([("t", texts, true)]).unwrap()
    }

    /// The numbers of the batches that come when `count` are passed to one who is not listening.
    fn read(max_bytes: usize, count: usize) -> (Vec<RecordBatch>, bool) {
        let (sender, mut receiver) = mpsc::channel(1);
        let limits = SpoolLimits {
            after: Duration::from_millis(20),
            max_bytes,
        };
        let (passed, all_passed) = std::sync::mpsc::channel();
        let reader = thread::spawn(move || {
            let mut outlet = Outlet::new(sender, limits);
            let all = (0..count).all(|i| outlet.pass(batch(i)).unwrap());
            passed.send(()).unwrap();
            outlet.empty().unwrap();
            outlet.end(Ok(()));
            all
        });
        // Bounded only by the test: the reader is done before the first batch is taken.
        let done = all_passed.recv_timeout(Duration::from_millis(500)).is_ok();
        let mut batches = vec![];
        while let Some(message) = receiver.blocking_recv() {
            batches.extend(message.unwrap());
        }
        assert!(reader.join().unwrap());
        (batches, done)
    }

    #[test]
    fn a_slow_reader_lets_the_source_go_and_gets_all_rows_in_order() {
        let expected: Vec<RecordBatch> = (0..50).map(batch).collect();
        let size = batch(0).get_array_memory_size();
        // All fit; some fit; none may be kept.
        for (max_bytes, lets_go) in [(1 << 30, true), (size * 10, false), (0, false)] {
            let (batches, done) = read(max_bytes, 50);
            assert_eq!(batches, expected, "{max_bytes}");
            assert_eq!(done, lets_go, "{max_bytes}");
        }
        assert_eq!(expected[7].column(0).as_string_view().value(0).len(), 32);
    }

    #[test]
    fn nobody_is_served_after_leaving() {
        let (sender, receiver) = mpsc::channel(1);
        let limits = SpoolLimits {
            after: Duration::ZERO,
            max_bytes: 1 << 20,
        };
        let mut outlet = Outlet::new(sender, limits);
        assert!(outlet.pass(batch(0)).unwrap());
        assert!(outlet.pass(batch(1)).unwrap());
        drop(receiver);
        assert!(!outlet.pass(batch(2)).unwrap());
        assert!(!outlet.empty().unwrap());
    }
}
