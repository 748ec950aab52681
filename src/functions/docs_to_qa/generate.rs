//! The work of `QaExec`: documents in, batches of rows out, in the order of the documents.
//!
//! Bounds: `look_ahead_documents` documents are in generation at once, each with at most
//! `look_ahead_chunks` chunks and [`ROWS_AHEAD`] finished chunks waiting; a LIMIT lowers both.

use std::collections::VecDeque;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::common::runtime::SpawnedTask;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SendableRecordBatchStream;
use futures::Stream;
use tokio::sync::mpsc;

use super::budget::Budget;
use super::document::{Document, InputColumns};
use super::documents::Documents;
use super::metrics::QaMetrics;
use super::pairs;
use super::query::Query;
use super::rows::Output;
use super::spec::QaSpec;
use crate::schema::QaRow;
use crate::stopping::Work;

/// Finished chunks of one document that may wait for the documents before it.
const ROWS_AHEAD: usize = 4;
/// Batches that may wait for the reader.
const BATCHES_AHEAD: usize = 1;

/// The rows of the query as a stream. Dropping it stops the work.
pub(super) fn stream(
    input: SendableRecordBatchStream,
    layout: InputColumns,
    spec: Arc<QaSpec>,
    output: Arc<Output>,
    fetch: Option<usize>,
    metrics: QaMetrics,
) -> impl Stream<Item = Result<RecordBatch>> + Send + 'static {
    let (tx, rx) = mpsc::channel(BATCHES_AHEAD);
    let sender = tx.clone();
    let task = SpawnedTask::spawn(async move {
        let documents = Documents::new(input, layout);
        let work = spec.casebook.begin_work();
        let budget = Budget::new(spec.error_budget);
        let mut run = Run {
            work,
            documents,
            output,
            fetch,
            metrics,
            tx,
            emitted: 0,
            budget,
        };
        let work = run.work.clone();
        let done = tokio::select! {
            biased;
            () = work.stopped() => Err(stopped()),
            done = run.drive(spec) => done,
        };
        if let Err(error) = done {
            // A closed channel means that nobody is reading any more.
            sender.send(Err(error)).await.ok();
        }
    });
    futures::stream::unfold((rx, Some(task)), |(mut rx, task)| async move {
        if let Some(item) = rx.recv().await {
            return Some((item, (rx, task)));
        }
        // All senders are gone: either the work is done or it panicked, which must not look alike.
        let error = task?.join().await.err()?;
        Some((Err(lost(error)), (rx, None)))
    })
}

/// The end of rows that are not all. Sinks look for this error (`interrupt` of the connectors).
fn stopped() -> DataFusionError {
    casebook_connectors::Error::new(
        casebook_connectors::ErrorKind::Interrupted,
        "docs_to_qa: stopped before its end; nothing of it was written, so run the statement again \
         (a target with write.key keeps the rows of documents that are done)",
    )
    .into()
}

/// A task that panicked or was ended from outside.
fn lost(error: tokio::task::JoinError) -> DataFusionError {
    DataFusionError::ExecutionJoin(Box::new(error))
}

struct Run {
    work: Work,
    documents: Documents,
    output: Arc<Output>,
    fetch: Option<usize>,
    metrics: QaMetrics,
    tx: mpsc::Sender<Result<RecordBatch>>,
    emitted: usize,
    budget: Budget,
}

/// A document in generation; dropping it stops it.
struct InFlight {
    document: Arc<Document>,
    rows: mpsc::Receiver<Vec<QaRow>>,
    task: SpawnedTask<Result<()>>,
    /// Rows that wait until the document is complete (see [`Run::drive`]).
    held: Vec<QaRow>,
}

impl Run {
    /// Without a LIMIT the rows of a document leave together, so that whatever is written when
    /// the user stops the query consists of whole documents. With a LIMIT they leave per chunk.
    async fn drive(&mut self, spec: Arc<QaSpec>) -> Result<()> {
        if self.fetch == Some(0) {
            return Ok(());
        }
        let progress = Arc::clone(&spec.casebook.progress);
        let generator = spec.casebook.models.generator(&spec.model).await?;
        let query = Arc::new(Query::new(spec, generator, self.fetch)?);
        let documents_ahead = query.documents_ahead(self.fetch);
        let mut waiting: VecDeque<InFlight> = VecDeque::new();
        let mut input_done = false;
        loop {
            let room = !input_done && waiting.len() < documents_ahead;
            tokio::select! {
                biased;
                rows = next_rows(&mut waiting), if !waiting.is_empty() => {
                    let Some(front) = waiting.front_mut() else { continue };
                    match rows {
                        Some(rows) => {
                            self.count(&query, &rows)?;
                            progress.chunks.add(1);
                            front.held.extend(rows);
                            if self.fetch.is_some() {
                                let rows = std::mem::take(&mut front.held);
                                let document = Arc::clone(&front.document);
                                if !self.emit(&query, &document, &rows).await? {
                                    return Ok(());
                                }
                            }
                        }
                        None => {
                            let Some(done) = waiting.pop_front() else { continue };
                            done.task.join().await.map_err(lost)??;
                            if !self.emit(&query, &done.document, &done.held).await? {
                                return Ok(());
                            }
                            self.metrics.documents.add(1);
                            progress.documents.add(1);
                        }
                    }
                }
                next = self.documents.next(), if room => match next? {
                    Some((document, first)) => {
                        progress.documents_started.add(1);
                        waiting.push_back(start(&query, document, first));
                    }
                    None => input_done = true,
                },
            }
            if input_done && waiting.is_empty() {
                self.settle_tokens(&query);
                return Ok(self.budget.check_all()?);
            }
        }
    }

    /// Passes rows on; false when no more are wanted.
    async fn emit(&mut self, query: &Query, document: &Document, rows: &[QaRow]) -> Result<bool> {
        self.settle_tokens(query);
        if rows.is_empty() {
            return Ok(true);
        }
        let timer = self.metrics.baseline.elapsed_compute().timer();
        let mut batch = self.output.batch(document, rows, &query.labels)?;
        timer.done();
        if let Some(fetch) = self.fetch {
            batch = batch.slice(0, batch.num_rows().min(fetch - self.emitted));
        }
        self.emitted += batch.num_rows();
        if self.fetch == Some(self.emitted) {
            // Nobody asks for more, so this is where the statement can still fail.
            self.budget.check_all()?;
        }
        if batch.num_rows() > 0 {
            self.metrics.baseline.record_output(batch.num_rows());
            if self.tx.send(Ok(batch)).await.is_err() {
                return Ok(false);
            }
        }
        Ok(self.fetch.is_none_or(|fetch| self.emitted < fetch))
    }

    fn count(&mut self, query: &Query, rows: &[QaRow]) -> Result<()> {
        use casebook_qa::checks::Status;
        let progress = &query.spec.casebook.progress;
        self.metrics.chunks.add(1);
        for row in rows {
            self.budget.count(row);
            if row.status == Status::Ok {
                self.metrics.pairs_ok.add(1);
                progress.pairs.add(1);
            } else {
                let reason = row.reason.map_or("unknown", |r| r.as_str());
                self.metrics.rejected(reason);
                progress.rejected.add(1);
            }
        }
        Ok(self.budget.check()?)
    }

    fn settle_tokens(&mut self, query: &Query) {
        let new = self.metrics.tokens(query.session.counters());
        query.spec.casebook.progress.generated.add(&new);
    }
}

fn start(query: &Arc<Query>, document: Document, first: bool) -> InFlight {
    let document = Arc::new(document);
    let (tx, rows) = mpsc::channel(ROWS_AHEAD);
    let (query, doc) = (Arc::clone(query), Arc::clone(&document));
    let task = SpawnedTask::spawn(async move { pairs::document(query, doc, first, tx).await });
    InFlight {
        document,
        rows,
        task,
        held: vec![],
    }
}

async fn next_rows(waiting: &mut VecDeque<InFlight>) -> Option<Vec<QaRow>> {
    waiting.front_mut()?.rows.recv().await
}
