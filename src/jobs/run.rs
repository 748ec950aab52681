//! Runs a planned job step by step and writes the result file, also when a step fails.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use casebook_llm::lora::read_report;
use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Int64Type, UInt64Type};
use datafusion::common::TableReference;
use datafusion::common::runtime::SpawnedTask;
use datafusion::prelude::SessionContext;

use super::{Generated, Job, Outcome, Phase, Plan, Status, Trained, Training};
use crate::compare::{Comparison, compare};
use crate::context::Casebook;
use crate::error::{Error, ErrorKind, Result};
use crate::functions::lookup::lora_table;

/// File name of the result within the job's output directory.
const RESULT: &str = "result.json";

/// Is told what happens while a job runs.
#[derive(Debug)]
pub enum Event<'a> {
    /// A phase begins.
    Begin(Phase),
    /// Generation is done.
    Generated(&'a Generated),
    /// Training is done.
    Trained(&'a Trained),
}

/// Runs the statements of `plan`, then the comparison. The result file is written whatever happens
/// and its path returned with the outcome.
///
/// # Errors
/// The first step that fails; those before it stay done.
pub async fn run(
    ctx: &SessionContext,
    casebook: &Arc<Casebook>,
    job: &Job,
    plan: &Plan,
    observer: &mut dyn FnMut(Event<'_>),
) -> Result<(Outcome, PathBuf)> {
    let mut outcome = Outcome::new(&job.name);
    let path = job.output.join(RESULT);
    let running = Running {
        ctx,
        casebook,
        job,
        plan,
    };
    let done = running.phases(&mut outcome, observer).await;
    if let Err(error) = &done {
        outcome.error = Some(casebook.hidden.out_of(&error.to_string()));
        outcome.status = match error.kind() {
            ErrorKind::Interrupted => Status::Interrupted,
            _ => Status::Failed,
        };
    }
    let written = outcome.write(&path);
    done?;
    written?;
    Ok((outcome, path))
}

struct Running<'a> {
    ctx: &'a SessionContext,
    casebook: &'a Arc<Casebook>,
    job: &'a Job,
    plan: &'a Plan,
}

impl Running<'_> {
    async fn phases(
        &self,
        outcome: &mut Outcome,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<()> {
        observer(Event::Begin(Phase::Generate));
        let generated = self.generate().await?;
        observer(Event::Generated(outcome.generated.insert(generated)));
        self.go_on()?;
        if let Some(training) = &self.job.train {
            observer(Event::Begin(Phase::Train));
            let trained = self.train(training).await?;
            observer(Event::Trained(outcome.trained.insert(trained)));
            self.go_on()?;
        }
        if let Some(comparison) = &self.job.compare {
            observer(Event::Begin(Phase::Compare));
            self.statements(Phase::Compare).await?;
            let comparison = Comparison {
                other_facts: (comparison.other_facts.clone())
                    .or_else(|| self.plan.held_out_pairs.clone()),
                ..comparison.clone()
            };
            outcome.compared = Some(compare(self.ctx, self.casebook, &comparison).await?);
        }
        Ok(())
    }

    async fn generate(&self) -> Result<Generated> {
        let progress = &self.casebook.progress;
        let now = || {
            [&progress.documents, &progress.pairs, &progress.rejected].map(|counter| counter.get())
        };
        let (begun, before) = (Instant::now(), now());
        progress.documents_total.set(0);
        let counting = SpawnedTask::spawn(self.count_documents());
        let new_rows = self.statements(Phase::Generate).await?;
        drop(counting);
        let [documents, pairs, rejected] = std::array::from_fn(|i| now()[i] - before[i]);
        let seconds = begun.elapsed().as_secs_f64();
        Ok(Generated {
            documents,
            pairs,
            rejected,
            new_rows,
            target_rows: self.target_rows().await?,
            seconds,
        })
    }

    /// Counts the documents of the source beside generation, so that progress can say how many are
    /// left. No more than that depends on it: a source that fails here fails there too.
    fn count_documents(&self) -> impl Future<Output = ()> + use<> {
        let (ctx, casebook) = (self.ctx.clone(), Arc::clone(self.casebook));
        let source = self.job.source.clone();
        async move {
            let counted = async {
                let table = ctx.table(TableReference::bare(source)).await?;
                table.count().await
            };
            if let Ok(total) = counted.await {
                casebook.progress.documents_total.set(total as u64);
            }
        }
    }

    async fn train(&self, training: &Training) -> Result<Trained> {
        let begun = Instant::now();
        let examples = self.statements(Phase::Train).await?;
        let host = self.ctx.state_weak_ref();
        let lost = || Error::new(ErrorKind::Internal, "the training run left no report");
        let table = lora_table(&host, &training.target)
            .await?
            .ok_or_else(lost)?;
        let report = read_report(&table.directory)?.ok_or_else(lost)?;
        Ok(Trained {
            examples,
            steps: report.steps,
            first_loss: report.first_loss,
            last_loss: report.last_loss,
            adapter: table.directory.display().to_string(),
            seconds: begun.elapsed().as_secs_f64(),
        })
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

    async fn target_rows(&self) -> Result<BTreeMap<String, u64>> {
        let sql = format!(
            "SELECT coalesce(reason, status) AS what, count(*) AS rows FROM \"{}\" GROUP BY what",
            self.job.target.replace('"', "\"\"")
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

    /// Between phases: an INSERT that was stopped ends well with what it had.
    fn go_on(&self) -> Result<()> {
        match self.casebook.is_cancelled() {
            false => Ok(()),
            true => Err(Error::new(
                ErrorKind::Interrupted,
                "stopped; what was finished before is kept",
            )),
        }
    }
}

/// The count that an INSERT returns.
fn counted(batch: &RecordBatch) -> Option<u64> {
    let column = batch.columns().first()?;
    let counts = column.as_primitive_opt::<UInt64Type>()?;
    counts.iter().next().flatten()
}
