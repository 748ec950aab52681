//! INSERT INTO a LORA table: spool the examples, train, commit the adapter.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use casebook_llm::lora::{RunDirectory, StepRecord, TrainObserver, train};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::datasource::sink::DataSink;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType};
use futures::TryStreamExt;

use super::LoraOptions;
use super::options::others_in;
use super::spool::Spool;
use crate::context::Casebook;
use crate::error::{Error, ErrorKind};
use crate::models;
use crate::schema::lora_examples;
use crate::stopping::Work;

/// The target of one INSERT statement.
#[derive(Debug)]
pub(super) struct LoraSink {
    options: LoraOptions,
    casebook: Arc<Casebook>,
    schema: SchemaRef,
}

impl LoraSink {
    pub(super) fn new(options: LoraOptions, casebook: Arc<Casebook>) -> Self {
        Self {
            options,
            casebook,
            schema: lora_examples(),
        }
    }
}

impl DisplayAs for LoraSink {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "LoraSink: adapter={}, base={}, rank={}",
            self.options.directory.display(),
            self.options.base.source,
            self.options.settings.rank
        )
    }
}

/// Stops training when the statement is dropped.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Observer {
    casebook: Arc<Casebook>,
    work: Work,
    dropped: Arc<AtomicBool>,
    /// Set by the first step.
    trained: Arc<AtomicBool>,
}

impl TrainObserver for Observer {
    fn begin(&mut self, steps: u64) {
        self.casebook.progress.train_steps_total.set(steps);
    }

    fn step(&mut self, record: &StepRecord) {
        self.trained.store(true, Ordering::Relaxed);
        let progress = &self.casebook.progress;
        progress.train_steps.set(record.step);
        progress.train_tokens.add(record.tokens);
        progress
            .train_loss_millionths
            .set((record.loss * 1e6) as u64);
    }

    fn cancelled(&self) -> bool {
        self.dropped.load(Ordering::Relaxed) || self.work.is_stopped()
    }
}

#[async_trait]
impl DataSink for LoraSink {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    async fn write_all(
        &self,
        mut data: SendableRecordBatchStream,
        _: &Arc<TaskContext>,
    ) -> Result<u64> {
        let work = self.casebook.begin_work();
        let options = self.options.clone();
        // Before the first row is asked for, which may cost hours.
        let form = options.ready(&self.casebook).await?;
        if let Some(notice) = others_in(&options.directory) {
            log::warn!(target: "casebook", "{notice}");
        }
        // Held until training ends, also when this statement is dropped before.
        let place = RunDirectory::lock(&options.directory).map_err(Error::from)?;
        let (mut spool, staged) = Spool::create(&place)?;
        while let Some(batch) = data.try_next().await? {
            spool.write(&batch)?;
        }
        if work.is_stopped() {
            return Err(Error::new(ErrorKind::Interrupted, "stopped before training began").into());
        }
        if spool.count == 0 {
            return Err(Error::invalid(
                "there are no training examples: the query has no rows; check its WHERE and that \
                 the QA table holds pairs with status ok",
            )
            .into());
        }
        let count = spool.finish()?;
        let dropped = Arc::new(AtomicBool::new(false));
        let _guard = StopOnDrop(Arc::clone(&dropped));
        let trained = Arc::new(AtomicBool::new(false));
        let mut observer = Observer {
            casebook: Arc::clone(&self.casebook),
            work,
            dropped,
            trained: Arc::clone(&trained),
        };
        let directory = options.directory.display().to_string();
        let source = models::source(&options.base.source)?;
        let device = options.base.device.parse().map_err(Error::from)?;
        let training = tokio::task::spawn_blocking(move || {
            let _staged = staged;
            train(
                &source,
                device,
                &place,
                &options.settings,
                options.mode,
                &form,
                &mut observer,
            )
        });
        let report = training
            .await
            .map_err(|e| Error::new(ErrorKind::Internal, format!("training stopped: {e}")))?
            .map_err(Error::from)?;
        if report.skipped_too_long > 0 {
            log::warn!(
                target: "casebook",
                "{directory}: {} of {} examples (those with their document counted again) are longer \
                 than max_example_tokens or the model's context, and were not trained; raise \
                 'lora.max_example_tokens', or insert shorter ones",
                report.skipped_too_long,
                report.skipped_too_long + report.examples
            );
        }
        if !trained.load(Ordering::Relaxed) {
            log::info!(
                target: "casebook",
                "the training run in {directory} is done already, with the same examples and \
                 settings; nothing was trained"
            );
        }
        Ok(count)
    }
}
