//! The work of `QaExec`: documents in, batches of rows out, in the order of the documents.
//!
//! Bounds: `look_ahead_documents` documents are in generation at once, each with at most
//! `look_ahead_chunks` chunks and [`ROWS_AHEAD`] finished chunks waiting; a LIMIT lowers both.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use casebook_llm::{Engine, Session};
use casebook_qa::profile::Profile;
use datafusion::arrow::array::RecordBatch;
use datafusion::common::runtime::SpawnedTask;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SendableRecordBatchStream;
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;

use super::document::{Document, InputColumns};
use super::metrics::QaMetrics;
use super::pairs;
use super::rows::{Labels, Output, QaRow};
use super::spec::QaSpec;

/// Finished chunks of one document that may wait for the documents before it.
const ROWS_AHEAD: usize = 4;
/// Batches that may wait for the reader.
const BATCHES_AHEAD: usize = 1;
/// Engine failures are judged against the budget from this many rows on.
const BUDGET_WINDOW: u64 = 20;

/// What all documents of one query share.
#[derive(Debug)]
pub(super) struct Query {
    pub(super) spec: Arc<QaSpec>,
    pub(super) profile: Profile,
    pub(super) profile_hash: String,
    pub(super) engine: Engine,
    pub(super) session: Session,
    pub(super) labels: Labels,
    /// Chunks of one document in generation at once.
    pub(super) chunks_ahead: usize,
}

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
        let mut run = Run {
            documents,
            output,
            fetch,
            metrics,
            tx,
            emitted: 0,
            failed: 0,
            rows: 0,
        };
        if let Err(error) = run.drive(spec).await {
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

/// A task that panicked or was ended from outside.
fn lost(error: tokio::task::JoinError) -> DataFusionError {
    DataFusionError::ExecutionJoin(Box::new(error))
}

struct Run {
    documents: Documents,
    output: Arc<Output>,
    fetch: Option<usize>,
    metrics: QaMetrics,
    tx: mpsc::Sender<Result<RecordBatch>>,
    emitted: usize,
    failed: u64,
    rows: u64,
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
        let engine = spec.casebook.models.engine(&spec.model).await?;
        let query = Arc::new(Query::new(spec, engine, self.fetch)?);
        let documents_ahead = query.documents_ahead(self.fetch);
        let mut waiting: VecDeque<InFlight> = VecDeque::new();
        let mut input_done = false;
        loop {
            if query.spec.casebook.is_cancelled() {
                return Ok(());
            }
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
                // Wakes to look at the cancel flag while the engine is busy.
                () = tokio::time::sleep(std::time::Duration::from_millis(200)) => {}
            }
            if input_done && waiting.is_empty() {
                self.settle_tokens(&query);
                return Ok(());
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
            self.rows += 1;
            match (row.status, row.reason) {
                (Status::Ok, _) => {
                    self.metrics.pairs_ok.add(1);
                    progress.pairs.add(1);
                }
                (status, reason) => {
                    self.failed += u64::from(status == Status::Failed);
                    self.metrics
                        .rejected(reason.map(|r| r.as_str()).unwrap_or("unknown"));
                    progress.rejected.add(1);
                }
            }
        }
        let share = self.failed as f64 / self.rows.max(1) as f64;
        if self.rows >= BUDGET_WINDOW && share > query.spec.error_budget {
            let error = crate::Error::new(
                crate::ErrorKind::Unavailable,
                format!(
                    "docs_to_qa: the model failed for {} of {} rows, more than the error budget of \
                     {:.0} %; see the rows with reason engine_error, or raise \
                     casebook.qa.error_budget",
                    self.failed,
                    self.rows,
                    query.spec.error_budget * 100.0
                ),
            );
            return Err(error.into());
        }
        Ok(())
    }

    fn settle_tokens(&mut self, query: &Query) {
        let (prefilled, decoded) = self.metrics.tokens(query.session.counters());
        query.spec.casebook.progress.prefill_tokens.add(prefilled);
        query.spec.casebook.progress.decode_tokens.add(decoded);
    }
}

impl Query {
    fn new(spec: Arc<QaSpec>, engine: Engine, fetch: Option<usize>) -> Result<Self> {
        let profile = spec.profile_for(&engine)?;
        let profile_hash = profile.prompt_hash();
        let info = engine.info();
        let labels = Labels {
            profile: format!("{}@{profile_hash}", profile.name),
            model: format!(
                "{}@{}",
                info.name,
                info.digest.get(..12).unwrap_or(&info.digest)
            ),
        };
        let wanted = fetch.map(|n| n.div_ceil(profile.questions_per_chunk.max(1)));
        let chunks_ahead = spec
            .look_ahead_chunks
            .min(wanted.unwrap_or(usize::MAX))
            .max(1);
        let session = engine.session();
        Ok(Self {
            spec,
            profile,
            profile_hash,
            engine,
            session,
            labels,
            chunks_ahead,
        })
    }

    /// Documents in generation at once: fewer when a LIMIT will be met by fewer.
    fn documents_ahead(&self, fetch: Option<usize>) -> usize {
        let ahead = self.spec.look_ahead_documents;
        match (fetch, self.profile.max_pairs_per_document) {
            (Some(n), Some(quota)) => ahead.min(n.div_ceil(quota.max(1))),
            // Without a quota one document yields rows for all of its chunks.
            (Some(_), None) => 1,
            (None, _) => ahead,
        }
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

/// Documents of the input, one by one. Safe to drop between rows: state lives here.
struct Documents {
    input: SendableRecordBatchStream,
    layout: InputColumns,
    batch: Option<RecordBatch>,
    row: usize,
    /// Texts seen that have no id of their own, by hash: 32 bytes each.
    hashed: HashSet<Arc<str>>,
}

impl Documents {
    fn new(input: SendableRecordBatchStream, layout: InputColumns) -> Self {
        Self {
            input,
            layout,
            batch: None,
            row: 0,
            hashed: HashSet::new(),
        }
    }

    /// The next document, and whether it is the first with its text.
    async fn next(&mut self) -> Result<Option<(Document, bool)>> {
        loop {
            if let Some(batch) = &self.batch
                && self.row < batch.num_rows()
            {
                let document = self.layout.document(batch, self.row)?;
                self.row += 1;
                let first = !document.id_is_hash || self.hashed.insert(Arc::clone(&document.id));
                return Ok(Some((document, first)));
            }
            self.batch = None;
            match self.input.next().await.transpose()? {
                Some(batch) => (self.batch, self.row) = (Some(batch), 0),
                None => return Ok(None),
            }
        }
    }
}
