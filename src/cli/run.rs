//! `casebook run JOB`: generate, write, train, compare, as casebook.toml says.

use std::io::Write;

use casebook::jobs::{self, Event, RunId};
use casebook::{Error, ErrorKind, Result};
use clap::Args;

use super::{Program, terminal};

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
    /// Print no progress
    #[arg(long, short)]
    pub(super) quiet: bool,
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
            let plan = jobs::plan(&ctx, &program.casebook, &job).await?;
            for step in &plan.steps {
                let sql = program.casebook.hidden.out_of(&step.sql);
                println!("-- {}\n{};\n", step.phase.name(), terminal::out(&sql));
            }
            if let Some(comparison) = &job.compare {
                println!("-- compare base and tuned: {}", comparison.tuned);
            }
            return Ok(());
        }
        let quiet = self.quiet;
        let mut show = |event: Event<'_>| {
            let line = match event {
                Event::Begin(_) => return,
                Event::Generated(done) => format!(
                    "generate  {}\n          {} now holds {}",
                    done.summary(),
                    job.target,
                    rows(&done.target_rows)
                ),
                Event::Trained(done) => format!("train     {}", done.summary()),
            };
            if !quiet {
                super::progress::beside(|| println!("{}", terminal::out(&line)));
                std::io::stdout().flush().ok();
            }
        };
        let run = RunId {
            id: uuid::Uuid::new_v4().to_string(),
            now: std::time::SystemTime::now,
        };
        let work = jobs::run(&ctx, &program.casebook, &job, &run, &mut show);
        let (outcome, path) = program.until_stopped(self.quiet, work).await?;
        if let Some(report) = &outcome.compared {
            println!("\n{}", terminal::out(&report.to_string()));
        }
        let page = job.compare.as_ref().and_then(|c| c.html.as_ref());
        if let Some(page) = page {
            let page = page.display().to_string();
            println!("page      {}", program.casebook.hidden.out_of(&page));
        }
        let path = path.display().to_string();
        println!("result    {}", program.casebook.hidden.out_of(&path));
        Ok(())
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
