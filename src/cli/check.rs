//! `casebook check`: do the tables of casebook.toml work, step by step?

use casebook::{Error, ErrorKind, Result};
use casebook_connectors::shown;
use clap::Args;

use super::{Program, terminal};

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
            println!(
                "the configuration is valid; it has no [tables], so there is nothing to reach"
            );
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
                println!("{name}: a training table; nothing to reach");
                continue;
            };
            request.write = self.write;
            println!(
                "{name}: {} {}",
                connector.name,
                terminal::out(&hidden.out_of(&shown(&request.location)))
            );
            for step in connector.check(request).await {
                match step.result {
                    Ok(found) => println!(
                        "  ok      {:8} {}",
                        step.name,
                        terminal::out(&hidden.out_of(&found))
                    ),
                    Err(error) => {
                        let error = hidden.out_of(&error.to_string());
                        println!("  FAILED  {:8} {}", step.name, terminal::out(&error));
                        failed.push(name.as_str());
                    }
                }
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
