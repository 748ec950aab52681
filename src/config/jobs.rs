//! `[jobs.NAME]`: references are checked, so that a job fails before it costs anything.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

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

    /// Every job is right, and what it leaves behind is its own: a run replaces what is there. Several
    /// jobs may add to one table of pairs, whose rows tell by their `qa_id` what they are of.
    ///
    /// # Errors
    /// The first job that is wrong; two jobs that write to the same place.
    pub(super) fn check_jobs(&self) -> Result<()> {
        let mut owners: BTreeMap<(&str, PathBuf), &str> = BTreeMap::new();
        for name in self.job_names() {
            let job = self.job(name)?;
            let mut places = vec![("output", job.output)];
            if let Some(training) = job.train {
                let table = &self.raw.tables[&training.target];
                let location = self.place(&training.target, table)?.location;
                let local = location.strip_prefix("file://").unwrap_or(&location);
                places.push(("train.target", PathBuf::from(local)));
            }
            if let Some(html) = job.compare.and_then(|comparison| comparison.html) {
                places.push(("compare.html", html));
            }
            for (key, path) in places {
                let shown = path.display().to_string();
                let Some(other) = owners.insert((key, real(&path)), name) else {
                    continue;
                };
                let line = self.raw.lines.get(&format!("[jobs.{other}]"));
                let line = line.map_or(String::new(), |line| format!(" of line {line}"));
                let what = format!(
                    "{key}: [jobs.{other}]{line} writes to {shown}, too, and each run would replace \
                     what the other left there; give them different ones"
                );
                return Err(self.wrong_job(name, &what));
            }
        }
        Ok(())
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

/// `path` as it is called whatever way it is written: links are followed as far as it is there.
fn real(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let there = path.ancestors().find_map(|above| {
        let rest = path.strip_prefix(above).ok()?;
        Some((above.canonicalize().ok()?, rest))
    });
    let Some((mut real, rest)) = there else {
        return path;
    };
    for part in rest.components() {
        match part {
            Component::ParentDir => {
                real.pop();
            }
            part => real.push(part),
        }
    }
    real
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

#[cfg(test)]
mod tests {
    use super::*;

    const TABLES: &str = "[tables.cases]\nformat = \"csv\"\nlocation = \"cases.csv\"\n\
        [tables.qa]\nformat = \"delta\"\nlocation = \"qa\"\n\
        [tables.tuned]\nformat = \"lora\"\nlocation = \"adapter\"\n\
        [tables.same]\nformat = \"lora\"\nlocation = \"x/../adapter/\"\n\
        [tables.other]\nformat = \"lora\"\nlocation = \"other\"\n";

    /// Two jobs with these keys in `folder`; what is wrong with them.
    fn wrong(folder: &Path, first: &str, second: &str) -> Option<String> {
        let job = |name: &str, keys: &str| {
            format!("[jobs.{name}]\nsource = \"cases\"\ntarget = \"qa\"\n{keys}\n")
        };
        let text = format!("{TABLES}{}{}", job("a", first), job("b", second));
        let parsed = Config::parse(&folder.join("casebook.toml"), &text, &|_| None);
        parsed.err().map(|error| error.to_string())
    }

    #[test]
    fn two_jobs_leave_nothing_in_one_place() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("real")).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink("real", dir.path().join("link")).unwrap();
        let absolute = format!("output = \"{}/out/a\"", dir.path().display());
        let train = |target: &str| format!("train = {{ target = \"{target}\" }}");
        let page = |target: &str, html: &str| {
            let compare = format!("compare = {{ control = \"cases\", html = \"{html}\" }}");
            format!("{}\n{compare}", train(target))
        };
        for (first, second, key) in [
            ("output = \"o\"", "output = \"o\"", "output"),
            ("output = \"o\"", "output = \"./p/../o/\"", "output"),
            // The default of the other.
            ("", "output = \"out/a\"", "output"),
            ("", &absolute, "output"),
            ("output = \"out/b\"", "", "output"),
            #[cfg(unix)]
            ("output = \"real/o\"", "output = \"link/o\"", "output"),
            (&train("tuned"), &train("tuned"), "train.target"),
            (&train("tuned"), &train("same"), "train.target"),
            (
                &page("tuned", "c.html"),
                &page("other", "c.html"),
                "compare.html",
            ),
        ] {
            let error = wrong(dir.path(), first, second).unwrap();
            for part in ["[jobs.b]", &format!("{key}: [jobs.a] of line 1")] {
                assert!(error.contains(part), "{first} {second}: {error}");
            }
        }
        for (first, second) in [
            ("", ""),
            ("output = \"o\"", "output = \"o/p\""),
            ("output = \"o\"", "output = \"O2\""),
            (&*train("tuned"), &*train("other")),
            (&page("tuned", "c.html"), &page("other", "d.html")),
            // The page of one beside the result of the other.
            (&page("tuned", "out/b/c.html"), ""),
        ] {
            assert_eq!(wrong(dir.path(), first, second), None, "{first} {second}");
        }
    }
}
