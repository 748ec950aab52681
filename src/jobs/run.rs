//! Plans a job and runs it step by step; the result file says at every moment how far it is.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use casebook_llm::lora::{TrainReport, read_report};
use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Int64Type, UInt64Type};
use datafusion::common::TableReference;
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::stats::Precision;
use datafusion::error::DataFusionError;
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use datafusion::prelude::SessionContext;

use super::check::plan;
use super::destinations::reach;
use super::outcome::{REPLIES, Record};
use super::plan::quoted;
use super::{Generated, Job, Outcome, Phase, Plan, RunId, Trained, Training};
use crate::compare::{Comparison, compare};
use crate::context::Casebook;
use crate::error::{Error, ErrorKind, Result};
use crate::functions::lookup::lora_table;
use crate::generator::{Counters, Tokens};
use crate::stopping::Work;

/// Is told what happens while a job runs.
#[derive(Debug)]
pub enum Event<'a> {
    /// Generation is done.
    Generated(&'a Generated),
    /// Training is done.
    Trained(&'a Trained),
}

/// Plans `job`, runs its statements, then the comparison. The result file says from the first
/// statement on which run it is; its path is returned with the outcome.
///
/// # Errors
/// See [`super::plan()`]; a result file that cannot be written; the first step that fails: those before it
/// stay done.
pub async fn run(
    ctx: &SessionContext,
    casebook: &Arc<Casebook>,
    job: &Job,
    run: &RunId,
    observer: &mut dyn FnMut(Event<'_>),
) -> Result<(Outcome, PathBuf)> {
    // What is refused has changed nothing, also not the result of the run before.
    let plan = plan(ctx, casebook, job).await?;
    reach(ctx, casebook, job).await?;
    let mut record = Record::begin(&job.name, &job.output, run)?;
    let _kept = casebook.models.keep_replies(job.output.join(REPLIES));
    let work = casebook.begin_work();
    let done = async {
        let running = Running {
            ctx,
            casebook,
            job,
            plan: &plan,
            work,
        };
        running.phases(&mut record, observer).await
    };
    let done = done.await;
    record.end(done, &casebook.hidden)
}

struct Running<'a> {
    ctx: &'a SessionContext,
    casebook: &'a Arc<Casebook>,
    job: &'a Job,
    plan: &'a Plan,
    work: Work,
}

impl Running<'_> {
    async fn phases(&self, record: &mut Record, observer: &mut dyn FnMut(Event<'_>)) -> Result<()> {
        if let Some(training) = &self.job.train {
            self.check_training(training).await?;
        }
        // Written down before anything else can fail: the rows are there.
        record.outcome.generated = Some(self.generate().await?);
        record.write()?;
        if let Some(generated) = &mut record.outcome.generated {
            generated.target_rows = self.counted_rows().await;
            observer(Event::Generated(generated));
        }
        record.write()?;
        self.go_on()?;
        if let Some(training) = &self.job.train {
            let trained = self.train(training).await?;
            observer(Event::Trained(record.outcome.trained.insert(trained)));
            record.write()?;
            self.go_on()?;
        }
        if let Some(comparison) = &self.job.compare {
            self.statements(Phase::Compare).await?;
            let comparison = Comparison {
                other_facts: (comparison.other_facts.clone())
                    .or_else(|| self.plan.held_out_pairs.clone()),
                ..comparison.clone()
            };
            let compared = compare(self.ctx, self.casebook, &comparison).await?;
            record.outcome.compared = Some(compared);
        }
        Ok(())
    }

    async fn generate(&self) -> Result<Generated> {
        if self.job.doubles && self.has_rows().await? {
            log::warn!(
                target: "casebook",
                "job {0} adds its rows to those that {1} has, also rows that it has already: set \
                 'write.key' = 'qa_id' in the options of [tables.{1}], so that a rerun doubles \
                 nothing, or replace them by hand: --dry-run shows the INSERT, which may as well be \
                 INSERT OVERWRITE",
                self.job.name,
                self.job.target
            );
        }
        let progress = &self.casebook.progress;
        let now = || {
            [&progress.documents, &progress.pairs, &progress.rejected].map(|counter| counter.get())
        };
        let (begun, before) = (Instant::now(), now());
        let asked_before = progress.generated.get();
        progress.documents_total.set(0);
        let counting = SpawnedTask::spawn(self.count_documents());
        let new_rows = self.statements(Phase::Generate).await?;
        drop(counting);
        let [documents, pairs, rejected] = std::array::from_fn(|i| now()[i] - before[i]);
        let seconds = begun.elapsed().as_secs_f64();
        let asked = progress.generated.get().since(&asked_before);
        let names = Counters::NAMES.iter().map(|name| (*name).to_owned());
        Ok(Generated {
            documents,
            pairs,
            rejected,
            new_rows,
            target_rows: BTreeMap::new(),
            tokens: names.zip(asked.tokens().map(Tokens::sum)).collect(),
            requests: asked.requests,
            kept_replies: asked.kept_replies,
            seconds,
        })
    }

    /// True if the target has a row. No more than the first is read.
    async fn has_rows(&self) -> Result<bool> {
        let first = format!("SELECT 1 FROM {} LIMIT 1", quoted(&self.job.target));
        let batches = self.ctx.sql(&first).await?.collect().await?;
        Ok(batches.iter().any(|batch| batch.num_rows() > 0))
    }

    /// Looks up how many documents the source has, so that progress can say how many are left:
    /// beside generation, in what its system knows of it. Nothing is read for it.
    fn count_documents(&self) -> impl Future<Output = ()> + use<> {
        let (ctx, casebook) = (self.ctx.clone(), Arc::clone(self.casebook));
        let source = self.job.source.clone();
        async move {
            // No more than the progress depends on it: a source that fails here fails there too.
            if let Ok(Some(total)) = known_rows(&ctx, &source).await {
                casebook.progress.documents_total.set(total);
            }
        }
    }

    /// Refuses what training would refuse, before rows are made for it. A base of a hub, which
    /// planning leaves alone, is fetched for that.
    async fn check_training(&self, training: &Training) -> Result<()> {
        match lora_table(&self.ctx.state_weak_ref(), &training.target).await? {
            Some(table) => table.ready(self.casebook).await.map(drop),
            None => Ok(()),
        }
    }

    async fn train(&self, training: &Training) -> Result<Trained> {
        let before = self.report(training).await?;
        let tokens = &self.casebook.progress.train_tokens;
        let trained = tokens.get();
        let examples = self.statements(Phase::Train).await?;
        let (report, adapter) = self.report(training).await?;
        let report = report
            .ok_or_else(|| Error::new(ErrorKind::Internal, "the training run left no report"))?;
        Ok(Trained {
            examples,
            skipped_too_long: report.skipped_too_long as u64,
            steps: report.steps,
            first_loss: report.first_loss,
            last_loss: report.last_loss,
            adapter,
            seconds: report.seconds,
            was_there: before.0.as_ref() == Some(&report) && tokens.get() == trained,
        })
    }

    /// The report in the directory that `training` fills, if there is one, and the directory.
    async fn report(&self, training: &Training) -> Result<(Option<TrainReport>, String)> {
        let lost = || Error::new(ErrorKind::Internal, "the training table is gone");
        let table = lora_table(&self.ctx.state_weak_ref(), &training.target).await?;
        let directory = table.ok_or_else(lost)?.directory;
        // One that is damaged is no concern of a run that replaces it.
        let report = read_report(&directory).unwrap_or(None);
        let shown = directory.display().to_string();
        Ok((report, self.casebook.hidden.out_of(&shown)))
    }

    /// Runs the statements of `phase`; the rows that the last one counted.
    async fn statements(&self, phase: Phase) -> Result<u64> {
        let mut count = 0;
        for step in self.plan.steps.iter().filter(|step| step.phase == phase) {
            let batches = self.ctx.sql(&step.sql).await?.collect().await?;
            count = batches.first().and_then(counted).unwrap_or(0);
        }
        Ok(count)
    }

    /// What the target holds now; nothing, and a warning, if that cannot be counted: no more than a
    /// figure depends on it.
    async fn counted_rows(&self) -> BTreeMap<String, u64> {
        match self.target_rows().await {
            Ok(rows) => rows,
            Err(error) => {
                log::warn!(
                    target: "casebook",
                    "job {}: the new rows are in {}, but what it holds now could not be counted: \
                     {error}",
                    self.job.name,
                    self.job.target
                );
                BTreeMap::new()
            }
        }
    }

    async fn target_rows(&self) -> Result<BTreeMap<String, u64>> {
        let sql = format!(
            "SELECT coalesce(reason, status) AS what, count(*) AS rows FROM {} GROUP BY what",
            quoted(&self.job.target)
        );
        let mut rows = BTreeMap::new();
        for batch in self.ctx.sql(&sql).await?.collect().await? {
            let what = cast(batch.column(0), &DataType::Utf8View)
                .map_err(|e| Error::new(ErrorKind::Internal, format!("counting rows: {e}")))?;
            let counts = batch.column(1).as_primitive::<Int64Type>();
            for (what, count) in what.as_string_view().iter().zip(counts.values()) {
                rows.insert(what.unwrap_or_default().to_owned(), *count as u64);
            }
        }
        Ok(rows)
    }

    /// Between phases, where no statement runs that could be stopped.
    fn go_on(&self) -> Result<()> {
        match self.work.is_stopped() {
            false => Ok(()),
            true => Err(Error::new(
                ErrorKind::Interrupted,
                "stopped; what was finished before is kept",
            )),
        }
    }
}

/// Rows of `table` if its files' footers, its log or its catalog say exactly; none if they would
/// have to be counted.
async fn known_rows(ctx: &SessionContext, table: &str) -> Result<Option<u64>, DataFusionError> {
    let frame = ctx.table(TableReference::bare(table)).await?;
    let plan = frame.create_physical_plan().await?;
    let known = StatisticsContext::new().compute(plan.as_ref(), &StatisticsArgs::new())?;
    Ok(match known.num_rows {
        Precision::Exact(rows) => Some(rows as u64),
        _ => None,
    })
}

/// The count that an INSERT returns.
fn counted(batch: &RecordBatch) -> Option<u64> {
    let column = batch.columns().first()?;
    let counts = column.as_primitive_opt::<UInt64Type>()?;
    counts.iter().next().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn documents_are_known_or_not_counted() {
        let dir = tempfile::tempdir().unwrap();
        let ctx = crate::new_session(&Arc::new(Casebook::default())).unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        for format in ["parquet", "csv", "json"] {
            for sql in [
                format!(
                    "COPY (SELECT value AS id FROM generate_series(1, 12)) TO '{}' STORED AS {format}",
                    at(&format!("t.{format}"))
                ),
                format!(
                    "CREATE EXTERNAL TABLE {format} STORED AS {format} LOCATION '{}'",
                    at(&format!("t.{format}"))
                ),
            ] {
                ctx.sql(&sql).await.unwrap().collect().await.unwrap();
            }
        }
        for sql in [
            format!(
                "CREATE EXTERNAL TABLE delta STORED AS DELTA LOCATION '{}' OPTIONS ('table.create' \
                 'qa_pairs')",
                at("delta")
            ),
            "INSERT INTO delta (qa_id, doc_id, question, status, profile, model) VALUES \
             ('1', 'd', 'q', 'ok', 'p', 'm'), ('2', 'd', 'q', 'ok', 'p', 'm')"
                .to_owned(),
        ] {
            ctx.sql(&sql).await.unwrap().collect().await.unwrap();
        }
        for (table, wanted) in [
            ("parquet", Some(12)),
            ("delta", Some(2)),
            ("csv", None),
            ("json", None),
        ] {
            assert_eq!(known_rows(&ctx, table).await.unwrap(), wanted, "{table}");
        }
    }
}
