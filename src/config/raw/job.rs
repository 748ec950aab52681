//! `[jobs.NAME]` as it is typed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::super::document::{Fault, Node, Section, Value};
use super::super::shown;

/// Most rows of one set that a comparison asks both models about.
const MOST_QUESTIONS: usize = 1_000_000;

/// A job.
pub(in crate::config) struct RawJob {
    /// A table of documents
    pub(in crate::config) source: String,
    /// The table that takes the pairs
    pub(in crate::config) target: String,
    /// A model; absent: `default`
    pub(in crate::config) model: Option<String>,
    /// A profile; absent: `general`
    pub(in crate::config) profile: Option<String>,
    /// Further arguments of docs_to_qa
    pub(in crate::config) arguments: BTreeMap<String, RawArgument>,
    /// Share of rows that may fail in the engine
    pub(in crate::config) error_budget: Option<f64>,
    /// Directory of result.json and compare.html; absent: out/NAME
    pub(in crate::config) output: Option<PathBuf>,
    /// Train on the accepted pairs
    pub(in crate::config) train: Option<RawTrain>,
    /// Compare base and tuned model
    pub(in crate::config) compare: Option<RawCompare>,
}

impl RawJob {
    pub(in crate::config) const KEYS: &[&str] = &[
        "source",
        "target",
        "model",
        "profile",
        "arguments",
        "error_budget",
        "output",
        "train",
        "compare",
    ];

    pub(super) fn read(title: String, node: &Node) -> Result<Self, Fault> {
        let section = Section::new(title, node, Self::KEYS)?;
        Ok(Self {
            source: section.needed("source", "a table of documents")?,
            target: section.needed("target", "the table that takes the pairs")?,
            model: section.text("model")?,
            profile: section.text("profile")?,
            arguments: arguments(&section)?,
            error_budget: section.share("error_budget", 0.0..=1.0, "a share from 0 to 1")?,
            output: section.path("output")?,
            train: RawTrain::read(&section)?,
            compare: RawCompare::read(&section)?,
        })
    }
}

/// An argument of docs_to_qa: shown by `--dry-run`, so no secret.
#[derive(Debug)]
pub(in crate::config) enum RawArgument {
    /// A text, to be quoted in SQL
    Text(String),
    /// A number, or true or false
    Plain(String),
}

fn arguments(job: &Section<'_>) -> Result<BTreeMap<String, RawArgument>, Fault> {
    let Some(node) = job.keys().get("arguments") else {
        return Ok(BTreeMap::new());
    };
    let Value::Table(keys) = &node.value else {
        return Err(job.wrong("arguments", "expected a table of arguments of docs_to_qa"));
    };
    let mut out = BTreeMap::new();
    for (key, node) in keys {
        let named = |part: &str| {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
            !part.is_empty() && part.chars().all(plain)
        };
        // A key goes into SQL as it stands.
        if !key.split('.').all(named) {
            let what = format!("the argument {} is no name of one", shown::key(key));
            return Err(Fault::new(node.line, job.wrong("arguments", &what).what));
        }
        let own = ["model", "profile"]
            .iter()
            .find(|own| key.eq_ignore_ascii_case(own));
        if let Some(own) = own {
            let what = format!("{own} is a key of the job itself; write it there");
            return Err(Fault::new(node.line, job.wrong("arguments", &what).what));
        }
        if key.eq_ignore_ascii_case("keep_document") && job.keys().contains_key("train") {
            let what = "a job that trains says itself whether its rows keep their document; leave \
                        keep_document out";
            return Err(Fault::new(node.line, job.wrong("arguments", what).what));
        }
        let value = match &node.value {
            Value::Flag(flag) => RawArgument::Plain(flag.to_string()),
            Value::Integer(number) => RawArgument::Plain(number.to_string()),
            Value::Float(number) if number.is_finite() => RawArgument::Plain(number.to_string()),
            Value::Text(text) => RawArgument::Text(text.clone()),
            Value::Float(number) => {
                let what = format!(
                    "{} is {number}, which SQL has no number for",
                    shown::key(key)
                );
                return Err(Fault::new(node.line, job.wrong("arguments", &what).what));
            }
            other => {
                let what = format!(
                    "{} is {}; expected text in quotes, a number, true or false",
                    shown::key(key),
                    other.kind()
                );
                return Err(Fault::new(node.line, job.wrong("arguments", &what).what));
            }
        };
        out.insert(key.clone(), value);
    }
    Ok(out)
}

/// The training of a job.
pub(in crate::config) struct RawTrain {
    /// A table with format = "lora"
    pub(in crate::config) target: String,
    /// A table of further examples
    pub(in crate::config) also: Option<String>,
    /// Share of the accepted pairs that are not trained; absent: 0
    pub(in crate::config) holdout_share: Option<f64>,
}

impl RawTrain {
    pub(in crate::config) const KEYS: &[&str] = &["target", "also", "holdout_share"];

    fn read(job: &Section<'_>) -> Result<Option<Self>, Fault> {
        let Some(section) = job.below("train", Self::KEYS)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            target: section.needed("target", "a table with format = \"lora\"")?,
            also: section.text("also")?,
            holdout_share: section.share("holdout_share", 0.0..1.0, "a share from 0 to below 1")?,
        }))
    }
}

/// The comparison of a job.
pub(in crate::config) struct RawCompare {
    /// Trained questions with a paraphrase
    pub(in crate::config) probes: Option<String>,
    /// Questions on other documents, with the document
    pub(in crate::config) held_out: Option<String>,
    /// Unrelated questions
    pub(in crate::config) control: Option<String>,
    /// Questions per set; absent: 500
    pub(in crate::config) max_questions: Option<usize>,
    /// The page; absent: compare.html in the output directory
    pub(in crate::config) html: Option<PathBuf>,
}

impl RawCompare {
    pub(in crate::config) const KEYS: &[&str] =
        &["probes", "held_out", "control", "max_questions", "html"];

    fn read(job: &Section<'_>) -> Result<Option<Self>, Fault> {
        let Some(section) = job.below("compare", Self::KEYS)? else {
            return Ok(None);
        };
        let why = "each is answered twice and kept in memory";
        Ok(Some(Self {
            probes: section.text("probes")?,
            held_out: section.text("held_out")?,
            control: section.text("control")?,
            max_questions: section.count("max_questions", 1..=MOST_QUESTIONS, why)?,
            html: section.path("html")?,
        }))
    }
}
