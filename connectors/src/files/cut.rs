//! The rows of one INSERT, cut where the file that they go into becomes too large.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use datafusion::arrow::array::RecordBatch;
use datafusion::error::Result;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::TryStreamExt;
use tokio::sync::Mutex;

use crate::sizes::{bytes, pieces};

/// Bytes of rows that the writer is given at once, which it may hold some of before it writes.
const PIECE_BYTES: usize = 16 << 20;

/// Rows for one file after the other.
pub(super) struct Cut {
    rows: Arc<Mutex<Rows>>,
    bound: u64,
    /// Bytes that were written of the file.
    written: Arc<AtomicU64>,
}

struct Rows {
    rows: SendableRecordBatchStream,
    /// Come, but not given to a file.
    next: VecDeque<RecordBatch>,
    ended: bool,
}

impl Rows {
    /// True if `next` has rows.
    async fn look(&mut self) -> Result<bool> {
        while self.next.is_empty() && !self.ended {
            match self.rows.try_next().await? {
                Some(batch) => self.next.extend(pieces(batch, PIECE_BYTES)),
                None => self.ended = true,
            }
        }
        Ok(!self.next.is_empty())
    }
}

impl Cut {
    /// A file ends when it has `bound` bytes of `rows`, or when so many were `written`: a text may be
    /// longer than what it shows.
    pub(super) fn new(
        rows: SendableRecordBatchStream,
        bound: Option<u64>,
        written: Arc<AtomicU64>,
    ) -> Self {
        let rows = Rows {
            rows,
            next: VecDeque::new(),
            ended: false,
        };
        Self {
            rows: Arc::new(Mutex::new(rows)),
            bound: bound.unwrap_or(u64::MAX),
            written,
        }
    }

    /// The rows of the next file.
    pub(super) async fn file(&self) -> SendableRecordBatchStream {
        self.written.store(0, Ordering::Relaxed);
        let schema = self.rows.lock().await.rows.schema();
        let (bound, written) = (self.bound, Arc::clone(&self.written));
        let start = (Arc::clone(&self.rows), 0);
        let of_file = futures::stream::try_unfold(start, move |(rows, given)| {
            let full = given >= bound || written.load(Ordering::Relaxed) >= bound;
            async move {
                let mut all = rows.lock().await;
                if full || !all.look().await? {
                    return Ok(None);
                }
                let next = all.next.pop_front();
                drop(all);
                Ok(next.map(|batch| {
                    let given = given + bytes(&batch) as u64;
                    (batch, (rows, given))
                }))
            }
        });
        Box::pin(RecordBatchStreamAdapter::new(schema, of_file))
    }

    /// True if there are rows for another file. Waits for them.
    pub(super) async fn has_more(&self) -> Result<bool> {
        self.rows.lock().await.look().await
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{ArrayRef, Int64Array};

    use super::*;

    /// The rows of each file of `batches`; `grows` is what the writer makes of a batch.
    async fn files(batches: &[usize], bound: Option<u64>, grows: u64) -> Vec<usize> {
        let batch = |rows: &usize| {
            let values: ArrayRef = Arc::new(Int64Array::from(vec![7; *rows]));
            RecordBatch::try_from_iter([("a", values)]).unwrap()
        };
        let batches: Vec<RecordBatch> = batches.iter().map(batch).collect();
        let schema = batch(&0).schema();
        let rows = futures::stream::iter(batches.into_iter().map(Ok));
        let rows = Box::pin(RecordBatchStreamAdapter::new(schema, rows));
        let written = Arc::new(AtomicU64::new(0));
        let cut = Cut::new(rows, bound, Arc::clone(&written));
        let mut found = vec![];
        loop {
            let mut file = cut.file().await;
            let mut count = 0;
            while let Some(batch) = file.try_next().await.unwrap() {
                count += batch.num_rows();
                written.fetch_add(grows, Ordering::Relaxed);
            }
            found.push(count);
            if !cut.has_more().await.unwrap() {
                return found;
            }
        }
    }

    #[tokio::test]
    async fn a_file_ends_at_its_bound_and_no_row_is_lost() {
        // Eight bytes a row.
        assert_eq!(files(&[10, 10, 10], None, 0).await, [30]);
        assert_eq!(files(&[10, 10, 10], Some(1), 0).await, [10, 10, 10]);
        assert_eq!(files(&[10, 10, 10], Some(160), 0).await, [20, 10]);
        assert_eq!(files(&[10, 10, 10], Some(240), 0).await, [30]);
        assert_eq!(files(&[10, 10, 10], Some(1000), 500).await, [20, 10]);
        assert_eq!(files(&[], Some(1), 0).await, [0]);
        assert_eq!(files(&[0, 0, 5], Some(8), 0).await, [5]);
    }

    #[tokio::test]
    async fn a_batch_larger_than_a_piece_is_cut() {
        let rows = 3 * PIECE_BYTES / 8;
        let found = files(&[rows], Some(PIECE_BYTES as u64), 0).await;
        assert_eq!(found.iter().sum::<usize>(), rows);
        assert!(found.len() > 1, "{found:?}");
    }
}
