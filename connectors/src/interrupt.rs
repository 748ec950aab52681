//! What a sink does when its rows are interrupted because the user stopped the statement.
//!
//! Interrupted rows end with an error of [`ErrorKind::Interrupted`], never as if they were all of
//! them. A sink commits what came before that error only where the same statement, run again, adds
//! what is missing: when it appends by key and records no version. Anywhere else (a replaced table,
//! a recorded version, an append without a key) a part would be taken for the whole or be there
//! twice, and the interruption is an error like any other: nothing is written.

use std::error::Error as StdError;
use std::iter;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, future, stream};

use crate::error::{Error, ErrorKind};

/// Statements whose rows have come and that bring them into their targets.
static COMMITTING: AtomicUsize = AtomicUsize::new(0);

/// True while a statement of this process brings rows that have come into its target, also those
/// before an interruption. Ending the program now loses them, and with them hours of work.
pub fn is_committing() -> bool {
    COMMITTING.load(Ordering::SeqCst) > 0
}

/// Remembers that rows were interrupted, while the sink commits those before.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interruption(Arc<Held>);

#[derive(Debug, Default)]
struct Held {
    message: Mutex<Option<String>>,
    /// No more rows come, and the sink is not done with those that came.
    commits: AtomicBool,
}

impl Held {
    fn begin_to_commit(&self) {
        if !self.commits.swap(true, Ordering::SeqCst) {
            COMMITTING.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if *self.commits.get_mut() {
            COMMITTING.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// `rows`, which end at an interruption if the same statement can complete them later
/// (`completed_by_rerun`). Ask [`Interruption::end`] when they are committed.
pub(crate) fn hold_back(
    rows: SendableRecordBatchStream,
    completed_by_rerun: bool,
) -> (SendableRecordBatchStream, Interruption) {
    let interruption = Interruption::default();
    let (schema, held) = (rows.schema(), Arc::clone(&interruption.0));
    let rows = rows.take_while(move |batch| {
        let stopped = batch.as_ref().err().and_then(|e| message(e));
        let stopped = stopped.filter(|_| completed_by_rerun);
        let go_on = stopped.is_none();
        if let Some(message) = stopped {
            *held.message.lock().unwrap_or_else(|e| e.into_inner()) = Some(message);
        }
        future::ready(go_on)
    });
    let held = Arc::clone(&interruption.0);
    let end = iter::once_with(move || {
        held.begin_to_commit();
        None
    });
    let rows = rows.chain(stream::iter(end.flatten()));
    let rows = RecordBatchStreamAdapter::new(schema, rows);
    (Box::pin(rows), interruption)
}

impl Interruption {
    /// The end of a statement that has committed `added` rows to `target`: an error if they were
    /// not all.
    pub(crate) fn end(&self, added: u64, target: &str) -> Result<u64> {
        let held = self.0.message.lock();
        let held = held.unwrap_or_else(|e| e.into_inner()).take();
        match held {
            None => Ok(added),
            Some(_) => Err(Error::new(
                ErrorKind::Interrupted,
                format!(
                    "stopped: {added} new rows of what was finished are in '{target}'; run the \
                     statement again to add the rest"
                ),
            )
            .into()),
        }
    }
}

/// What an interruption says, if `error` is one.
pub(crate) fn message(error: &(dyn StdError + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(own) = cause.downcast_ref::<Error>() {
            let interrupted = own.kind() == ErrorKind::Interrupted;
            return interrupted.then(|| own.to_string());
        }
        // Errors that several readers share keep their cause to themselves.
        if let Some(shared) = cause.downcast_ref::<Arc<DataFusionError>>() {
            return message(shared.as_ref());
        }
        if let Some(DataFusionError::Shared(shared)) = cause.downcast_ref::<DataFusionError>() {
            return message(shared.as_ref());
        }
        next = cause.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::{Int64Array, RecordBatch};
    use datafusion::arrow::datatypes::{DataType, Field, Schema};
    use futures::stream;

    fn rows(last: DataFusionError) -> SendableRecordBatchStream {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        let column = Arc::new(Int64Array::from(vec![1, 2]));
        let batch = RecordBatch::try_new(Arc::clone(&schema), vec![column]).unwrap();
        let items = stream::iter([Ok(batch), Err(last)]);
        Box::pin(RecordBatchStreamAdapter::new(schema, items))
    }

    fn stopped() -> DataFusionError {
        Error::new(ErrorKind::Interrupted, "stopped").into()
    }

    async fn taken(last: DataFusionError, rerun: bool) -> (usize, bool, Result<u64>) {
        let (mut rows, interruption) = hold_back(rows(last), rerun);
        let commits = || interruption.0.commits.load(Ordering::SeqCst);
        let mut items = vec![];
        let mut failed = false;
        // As sinks do: what fails is not asked any more.
        while !failed && let Some(item) = rows.next().await {
            assert!(!commits());
            failed = item.is_err();
            items.push(item);
        }
        // What came is being committed until the sink is done.
        assert_eq!(commits(), !failed);
        assert!(failed || is_committing());
        (items.len(), failed, interruption.end(2, "qa"))
    }

    #[tokio::test]
    async fn only_an_interruption_is_held_back_and_only_where_a_rerun_completes_it() {
        let (batches, failed, end) = taken(stopped(), true).await;
        assert_eq!((batches, failed), (1, false));
        let end = end.unwrap_err();
        assert!(message(&end).unwrap().contains("2 new rows"), "{end}");
        let shared = DataFusionError::Shared(Arc::new(stopped().context("while sorting")));
        let (batches, failed, end) = taken(shared, true).await;
        assert_eq!((batches, failed, end.is_err()), (1, false, true));

        let (batches, failed, end) = taken(stopped(), false).await;
        assert_eq!((batches, failed, end.unwrap()), (2, true, 2));
        for other in [
            Error::new(ErrorKind::Unavailable, "the network is gone").into(),
            DataFusionError::Internal("stopped".into()),
        ] {
            let (batches, failed, end) = taken(other, true).await;
            assert_eq!((batches, failed, end.unwrap()), (2, true, 2));
        }
    }

    #[tokio::test]
    async fn all_rows_are_committed_too() {
        let schema = Arc::new(Schema::empty());
        let none = RecordBatchStreamAdapter::new(schema, stream::empty());
        let (mut rows, interruption) = hold_back(Box::pin(none), false);
        assert!(!interruption.0.commits.load(Ordering::SeqCst));
        assert!(rows.next().await.is_none());
        assert!(interruption.0.commits.load(Ordering::SeqCst) && is_committing());
        let held = Arc::downgrade(&interruption.0);
        drop((rows, interruption));
        assert!(held.upgrade().is_none());
    }
}
