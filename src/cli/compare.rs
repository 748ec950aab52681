//! `casebook compare`: base and tuned model side by side, in the terminal and as a page.

use std::path::{Path, PathBuf};

use casebook::compare::{Comparison, compare};
use casebook::{Error, ErrorKind, Result};
use clap::Args;

use super::{Program, output};

/// Arguments of `casebook compare`. Tables are [tables] of casebook.toml, or CSV, Parquet or JSON
/// files.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  casebook compare out/quickstart/adapter --probes examples/probes.csv \\
    --held-out examples/held_out.csv --control examples/control.csv --html compare.html")]
pub(super) struct Compare {
    /// A LORA table, an adapter directory, a [models] entry or a model directory
    tuned: String,
    /// The model to compare with [default: the tuned one without its adapter]
    #[arg(long)]
    base: Option<String>,
    /// Trained questions: columns question, answer, and paraphrase for another wording
    #[arg(long)]
    probes: Option<String>,
    /// Untrained facts of the trained documents: columns question, answer
    #[arg(long)]
    other_facts: Option<String>,
    /// Questions on other documents: columns document, question, answer
    #[arg(long)]
    held_out: Option<String>,
    /// What tuning should not change: columns question, answer, perhaps document
    #[arg(long)]
    control: Option<String>,
    /// Profile whose prompts go around a document [default: general]
    #[arg(long)]
    profile: Option<String>,
    /// Questions per set [default: 500]
    #[arg(long)]
    max_questions: Option<usize>,
    /// Write the comparison as one HTML page
    #[arg(long)]
    html: Option<PathBuf>,
}

impl Compare {
    pub(super) async fn run(self, program: &Program) -> Result<()> {
        if let Some(path) = &self.html {
            check_place(path)?;
        }
        let ctx = program.session()?;
        let comparison = Comparison {
            tuned: self.tuned,
            base: self.base,
            profile: self.profile,
            probes: self.probes,
            other_facts: self.other_facts,
            held_out: self.held_out,
            control: self.control,
            max_questions: self.max_questions,
            html: self.html,
        };
        let work = compare(&ctx, &program.casebook, &comparison);
        let report = program.until_stopped(work).await?;
        output::line(report.to_string().trim_end())?;
        match &comparison.html {
            Some(path) => {
                let path = program.casebook.hidden.out_of(&path.display().to_string());
                output::line(&format!("\nwrote {path}"))
            }
            None => Ok(()),
        }
    }
}

/// Refuses a page in a directory that is not there: a slip in a path must not make directories, and is
/// told before anything is asked.
fn check_place(page: &Path) -> Result<()> {
    let above = page.parent().filter(|above| !above.as_os_str().is_empty());
    match above {
        Some(above) if !above.is_dir() => Err(Error::new(
            ErrorKind::NotFound,
            format!(
                "--html {}: there is no directory {}; make it, or name another place",
                page.display(),
                above.display()
            ),
        )),
        _ => Ok(()),
    }
}
