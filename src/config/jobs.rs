//! `[jobs.NAME]`: references are checked, so that a job fails before it costs anything.

use std::path::{Path, PathBuf};

use super::raw::{RawArgument, RawJob};
use super::{Config, literal, shown};
use crate::compare::Comparison;
use crate::error::{Error, Result};
use crate::jobs::{Job, Training};

impl Config {
    /// Names of the jobs.
    pub fn job_names(&self) -> impl Iterator<Item = &str> {
        self.raw.jobs.keys().map(String::as_str)
    }

    /// The job called `name`.
    ///
    /// # Errors
    /// An unknown name (the message lists the valid ones), or a job that refers to what the file
    /// does not have.
    pub fn job(&self, name: &str) -> Result<Job> {
        let Some(raw) = self.raw.jobs.get(name) else {
            let valid: Vec<&str> = self.job_names().collect();
            return Err(Error::unknown("job", name, &valid));
        };
        self.table(name, "source", &raw.source)?;
        self.table(name, "target", &raw.target)?;
        let target = self.place(&raw.target, &self.raw.tables[&raw.target])?;
        let once = ["write.key", "write.version"];
        if raw.compare.is_some() && raw.train.is_none() {
            return Err(self.wrong_job(name, "compare needs train: there is no tuned model"));
        }
        let output = match &raw.output {
            Some(path) => self.resolve(path),
            None => self.resolve(Path::new("out")).join(name),
        };
        Ok(Job {
            name: name.to_owned(),
            source: raw.source.clone(),
            target: raw.target.clone(),
            model: raw.model.clone(),
            doubles: !once.iter().any(|key| target.options.contains_key(*key)),
            arguments: arguments(raw),
            error_budget: raw.error_budget,
            train: self.training(name, raw)?,
            compare: self.comparison(name, raw, &output)?,
            output,
        })
    }

    fn training(&self, name: &str, raw: &RawJob) -> Result<Option<Training>> {
        let Some(train) = &raw.train else {
            return Ok(None);
        };
        self.table(name, "train.target", &train.target)?;
        let target = &self.raw.tables[&train.target];
        if !self.place(&train.target, target)?.format.eq("LORA") {
            let what = format!(
                "train.target = \"{}\" is not a LORA table; write format = \"lora\" in [tables.{}]",
                train.target, train.target
            );
            return Err(self.wrong_job(name, &what));
        }
        if let Some(also) = &train.also {
            self.table(name, "train.also", also)?;
        }
        Ok(Some(Training {
            target: train.target.clone(),
            also: train.also.clone(),
            holdout_share: train.holdout_share.unwrap_or(0.0),
        }))
    }

    fn comparison(&self, name: &str, raw: &RawJob, output: &Path) -> Result<Option<Comparison>> {
        let (Some(compare), Some(train)) = (&raw.compare, &raw.train) else {
            return Ok(None);
        };
        let named = [
            ("compare.probes", &compare.probes),
            ("compare.held_out", &compare.held_out),
            ("compare.control", &compare.control),
        ];
        for (key, table) in named {
            if let Some(table) = table {
                self.table(name, key, table)?;
            }
        }
        let html: PathBuf = match &compare.html {
            Some(path) => self.resolve(path),
            None => output.join("compare.html"),
        };
        Ok(Some(Comparison {
            tuned: train.target.clone(),
            base: None,
            profile: raw.profile.clone(),
            probes: compare.probes.clone(),
            other_facts: None,
            held_out: compare.held_out.clone(),
            control: compare.control.clone(),
            max_questions: compare.max_questions,
            html: Some(html),
        }))
    }

    fn table(&self, job: &str, key: &str, table: &str) -> Result<()> {
        if self.raw.tables.contains_key(table) {
            return Ok(());
        }
        let valid: Vec<&str> = self.table_names().collect();
        let what = shown::unknown_name("table", table, &valid);
        Err(self.wrong_job(job, &format!("{key}: {what}")))
    }

    pub(super) fn wrong_job(&self, job: &str, what: &str) -> Error {
        self.wrong(&format!("[jobs.{job}]"), what)
    }
}

/// Arguments of `docs_to_qa`, as SQL literals.
fn arguments(raw: &RawJob) -> Vec<(String, String)> {
    let named = [("model", &raw.model), ("profile", &raw.profile)];
    let mut out: Vec<(String, String)> = named
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), literal(value.as_ref()?))))
        .collect();
    out.extend(raw.arguments.iter().map(|(key, value)| {
        let value = match value {
            RawArgument::Text(text) => literal(text),
            RawArgument::Plain(value) => value.clone(),
        };
        (key.clone(), value)
    }));
    out
}
