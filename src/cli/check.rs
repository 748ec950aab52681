//! `casebook check`: do the tables of casebook.toml work, step by step, and would its jobs run?
//!
//! What is found is what `casebook run` would refuse, as far as that shows without a token or a row.

use casebook::{Error, ErrorKind, Result, check_insert, check_table, jobs};
use casebook_connectors::shown;
use clap::Args;

use super::{Program, output};

/// Arguments of `casebook check`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  casebook check                     every table and job of casebook.toml
  casebook check cases qa --write    these two, and that they can be written to")]
pub(super) struct Check {
    /// Tables of casebook.toml [default: all of them, and all jobs]
    tables: Vec<String>,
    /// Also write under a scratch name, which is removed again, and plan an INSERT
    #[arg(long)]
    write: bool,
}

impl Check {
    pub(super) async fn run(self, program: &Program) -> Result<()> {
        let Some(config) = &program.config else {
            return Err(Error::new(
                ErrorKind::Configuration,
                "there is no casebook.toml here; write one with `casebook init`, or name one with \
                 --config",
            ));
        };
        let all = self.tables.is_empty();
        let (tables, jobs): (Vec<String>, Vec<&str>) = match all {
            true => (
                config.table_names().map(str::to_owned).collect(),
                config.job_names().collect(),
            ),
            false => (self.tables, vec![]),
        };
        let report = Report(program);
        if tables.is_empty() {
            report.line(
                "the configuration is valid; it has no [tables], so there is nothing to reach",
            )?;
        }
        // All names first: a slip in the last one is not found after minutes.
        let mut requests = vec![];
        for name in &tables {
            requests.push((name.as_str(), config.check_request(name)?));
        }
        let ctx = program.session()?;
        let mut failed = vec![];
        for (name, request) in requests {
            let steps = match request {
                None => {
                    report.line(&format!("{name}: a target of the program's own"))?;
                    vec![]
                }
                Some((connector, mut request)) => {
                    request.write = self.write;
                    let location = shown(&request.location);
                    report.line(&format!("{name}: {} {location}", connector.name))?;
                    connector.check(request).await
                }
            };
            let mut is_right = steps.iter().all(|step| step.result.is_ok());
            for step in &steps {
                report.result(step.name, &step.result)?;
            }
            if is_right {
                let opened = check_table(&ctx, &program.casebook, name, self.write).await;
                is_right = report.result("open", &opened)?;
            }
            if is_right && self.write {
                let planned = check_insert(&ctx, name)
                    .await
                    .map(|()| "an INSERT is planned");
                // One that was not named may be there to be read alone; those of jobs are planned below.
                is_right = match planned {
                    Err(error) if all => {
                        report.line(&format!("  -       insert   only read: {error}"))?;
                        true
                    }
                    planned => report.result("insert", &planned)?,
                };
            }
            if !is_right {
                failed.push(name);
            }
        }
        for name in jobs {
            report.line(&format!("{name}: a job"))?;
            let job = config.job(name)?;
            let planned = jobs::plan(&ctx, &program.casebook, &job).await;
            let planned =
                planned.map(|p| format!("{} statements, model {}", p.steps.len(), p.model));
            let mut is_right = report.result("plan", &planned)?;
            if is_right {
                let reached = jobs::reach(&ctx, &program.casebook, &job).await;
                let found = reached.map(|lines| lines.join("; "));
                if !found.as_ref().is_ok_and(String::is_empty) {
                    is_right = report.result("model", &found)?;
                }
            }
            if !is_right {
                failed.push(name);
            }
        }
        match failed.is_empty() {
            true => Ok(()),
            false => Err(Error::new(
                ErrorKind::Unavailable,
                format!("the check failed for {}", failed.join(", ")),
            )),
        }
    }
}

/// Lines on standard output, without what is hidden.
struct Report<'a>(&'a Program);

impl Report<'_> {
    fn line(&self, text: &str) -> Result<()> {
        output::line(&self.0.casebook.hidden.out_of(text))
    }

    /// A line for what came of a step; true if it went well.
    fn result<T: std::fmt::Display, E: std::fmt::Display>(
        &self,
        name: &str,
        result: &Result<T, E>,
    ) -> Result<bool> {
        match result {
            Ok(found) => self.line(&format!("  ok      {name:8} {found}"))?,
            Err(error) => self.line(&format!("  FAILED  {name:8} {error}"))?,
        }
        Ok(result.is_ok())
    }
}
