//! A job: the whole way from a source table to a compared adapter, named in casebook.toml.
//!
//! A [`Job`] is what the file says, [`plan()`] turns it into SQL that anyone could type and refuses what
//! would fail, [`run()`] executes that and writes down what happens.

mod check;
mod destinations;
mod outcome;
mod plan;
mod run;

use std::path::PathBuf;

pub use check::plan;
pub use destinations::{destinations, reach};
pub use outcome::{Generated, Outcome, RunId, Status, Trained};
pub use plan::{Phase, Plan, Step};
pub use run::{Event, run};

use crate::compare::Comparison;

/// `[jobs.NAME]`, checked: every table is one of the file's.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Its name.
    pub name: String,
    /// The table whose documents are read.
    pub source: String,
    /// The table the pairs are written to.
    pub target: String,
    /// The model that generates; absent: the session's.
    pub model: Option<String>,
    /// True if the target takes rows that it has already once more: it has neither a key nor a version.
    pub doubles: bool,
    /// Arguments of `docs_to_qa` beside the source, in order: (key, SQL literal).
    pub arguments: Vec<(String, String)>,
    /// Share of rows that may fail in the engine before the job gives up; absent: the session's.
    pub error_budget: Option<f64>,
    /// Training, if the job trains.
    pub train: Option<Training>,
    /// Comparison, if the job compares; its tuned model is that of `train` and its set of other
    /// facts are the pairs that training held out.
    pub compare: Option<Comparison>,
    /// Where `result.json` goes.
    pub output: PathBuf,
}

/// `[jobs.NAME.train]`, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Training {
    /// The LORA table.
    pub target: String,
    /// A table of further examples: columns question, answer, and perhaps doc_id.
    pub also: Option<String>,
    /// Share of the accepted pairs that are not trained, so that the comparison has other facts of
    /// the same documents.
    pub holdout_share: f64,
}
