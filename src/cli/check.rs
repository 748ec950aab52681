//! `casebook check`: do the tables of casebook.toml work, step by step?

use casebook::{Error, ErrorKind, Result};
use casebook_connectors::shown;
use clap::Args;

use super::{Program, output};

/// Arguments of `casebook check`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  casebook check                     every table of casebook.toml
  casebook check cases qa --write    these two, and that they can be written to")]
pub(super) struct Check {
    /// Tables of casebook.toml [default: all]
    tables: Vec<String>,
    /// Also write under a scratch name, which is removed again
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
        let tables = match self.tables.is_empty() {
            true => config.table_names().map(str::to_owned).collect(),
            false => self.tables,
        };
        if tables.is_empty() {
            output::line(
                "the configuration is valid; it has no [tables], so there is nothing to reach",
            )?;
        }
        // All names first: a slip in the last one is not found after minutes.
        let mut requests = vec![];
        for name in &tables {
            requests.push((name, config.check_request(name)?));
        }
        let hidden = &program.casebook.hidden;
        let mut failed = vec![];
        for (name, request) in requests {
            let Some((connector, mut request)) = request else {
                output::line(&format!("{name}: a training table; nothing to reach"))?;
                continue;
            };
            request.write = self.write;
            let location = hidden.out_of(&shown(&request.location));
            output::line(&format!("{name}: {} {location}", connector.name))?;
            for step in connector.check(request).await {
                let (result, text) = match step.result {
                    Ok(found) => ("ok", found),
                    Err(error) => {
                        failed.push(name.as_str());
                        ("FAILED", error.to_string())
                    }
                };
                let text = hidden.out_of(&text);
                output::line(&format!("  {result:6}  {:8} {text}", step.name))?;
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
