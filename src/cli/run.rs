//! `casebook run JOB`: generate, write, train, compare, as casebook.toml says.

use casebook::jobs::{self, Event, RunId};
use casebook::{Error, ErrorKind, Result};
use clap::Args;

use super::{Program, output};

/// Arguments of `casebook run`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  casebook run quickstart --config examples/casebook.toml
  casebook run quickstart --dry-run     # the SQL it would run")]
pub(super) struct Run {
    /// A [jobs] entry of the configuration file
    job: String,
    /// Print the statements and change nothing
    #[arg(long)]
    dry_run: bool,
}

impl Run {
    pub(super) async fn run(self, program: &Program) -> Result<()> {
        let Some(config) = &program.config else {
            return Err(Error::new(
                ErrorKind::Configuration,
                "there is no casebook.toml here; write one with `casebook init`, or name another \
                 with --config",
            ));
        };
        let job = config.job(&self.job)?;
        let ctx = program.session()?;
        if self.dry_run {
            // Whatever the job would be refused for is an error here, too.
            let plan = jobs::plan(&ctx, &program.casebook, &job).await?;
            for line in jobs::destinations(&ctx, &program.casebook, &job).await? {
                output::line(&program.casebook.hidden.out_of(&format!("-- {line}")))?;
            }
            for step in &plan.steps {
                let sql = program.casebook.hidden.out_of(&step.sql);
                output::line(&format!("-- {}\n{sql};\n", step.phase.name()))?;
            }
            return match &job.compare {
                Some(comparison) => {
                    output::line(&format!("-- compare base and tuned: {}", comparison.tuned))
                }
                None => Ok(()),
            };
        }
        // Whether its lines can be printed is no matter of a job that works for hours; it is heard of
        // at the end.
        let mut printed = Ok(());
        let mut show = |event: Event<'_>| {
            let line = match event {
                Event::Generated(done) if done.target_rows.is_empty() => {
                    format!("generate  {}", done.summary())
                }
                Event::Generated(done) => format!(
                    "generate  {}\n          {} now holds {}",
                    done.summary(),
                    job.target,
                    rows(&done.target_rows)
                ),
                Event::Trained(done) => format!("train     {}", done.summary()),
            };
            if !program.quiet && printed.is_ok() {
                printed = output::line(&line);
            }
        };
        let run = RunId {
            id: uuid::Uuid::new_v4().to_string(),
            now: std::time::SystemTime::now,
        };
        let work = jobs::run(&ctx, &program.casebook, &job, &run, &mut show);
        let (outcome, path) = program.until_stopped(work).await?;
        let page = job.compare.as_ref().and_then(|c| c.html.as_ref());
        let hidden = &program.casebook.hidden;
        let path = hidden.out_of(&path.display().to_string());
        let end = || {
            if let Some(report) = &outcome.compared {
                output::line(&format!("\n{report}"))?;
            }
            if let Some(page) = page {
                let page = hidden.out_of(&page.display().to_string());
                output::line(&format!("page      {page}"))?;
            }
            output::line(&format!("result    {path}"))
        };
        printed.and_then(|()| end()).map_err(|error| {
            let message = format!("the job is done, see {path}; {error}");
            Error::new(error.kind(), message).with_source(error)
        })
    }
}

fn rows(counts: &std::collections::BTreeMap<String, u64>) -> String {
    let mut counts: Vec<_> = counts.iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let parts: Vec<String> = counts
        .iter()
        .map(|(what, n)| format!("{n} {what}"))
        .collect();
    parts.join(", ")
}
