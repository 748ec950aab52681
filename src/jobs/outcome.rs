//! What a job did, as the machine-readable result file has it: from its first moment on, so that a
//! run that is killed does not leave the result of the one before.
//!
//! A run holds a lock beside the file, which ends with it: a second run at the same time is refused,
//! and a file that says `running` while nobody holds the lock is of a run that was killed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use casebook_llm::output::{self, Lock};
use datafusion::arrow::temporal_conversions::timestamp_s_to_datetime;
use serde::Serialize;

use crate::compare::Report;
use crate::config::Hidden;
use crate::error::{Error, ErrorKind, Result};

/// File name of the result within the job's output directory.
pub(super) const RESULT: &str = "result.json";
/// File name of the replies that models behind endpoints gave, so that none is paid for twice.
pub(super) const REPLIES: &str = "replies.jsonl";
/// File name of its lock, which stays behind empty.
const LOCK: &str = ".result.json.lock";

/// Which run it is, as the program's edge says: nothing below makes up names or reads the clock.
#[derive(Debug, Clone)]
pub struct RunId {
    /// Differs from run to run.
    pub id: String,
    /// The clock.
    pub now: fn() -> SystemTime,
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It has begun; if nobody holds the lock beside the file any more, it was killed.
    Running,
    /// Everything was done.
    Ok,
    /// Stopped by the user; finished rows and steps are kept.
    Interrupted,
    /// A step failed; those before it are done.
    Failed,
}

/// The result of a job.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// The job's name.
    pub job: String,
    /// Which run this is.
    pub run_id: String,
    /// When it began, UTC.
    pub started: String,
    /// When it ended, UTC; absent while it runs.
    pub ended: Option<String>,
    /// How it ended, or that it runs.
    pub status: Status,
    /// Why, if not well.
    pub error: Option<String>,
    /// What generation did.
    pub generated: Option<Generated>,
    /// What training did.
    pub trained: Option<Trained>,
    /// Base and tuned model compared.
    pub compared: Option<Report>,
}

/// Numbers of the generation step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Generated {
    /// Documents whose last row was produced.
    pub documents: u64,
    /// Accepted pairs.
    pub pairs: u64,
    /// Rows with another status than ok.
    pub rejected: u64,
    /// Rows that the target did not have before.
    pub new_rows: u64,
    /// All rows that the target has now: `ok`, or the reason of the others; none if they could not be
    /// counted.
    pub target_rows: BTreeMap<String, u64>,
    /// What the model read and wrote, by the names of `EXPLAIN ANALYZE`; null where its server does
    /// not say.
    pub tokens: BTreeMap<String, Option<u64>>,
    /// Replies that the model was asked for.
    pub requests: u64,
    /// Replies of an earlier run that were used instead.
    pub kept_replies: u64,
    /// Wall-clock time, seconds.
    pub seconds: f64,
}

/// Numbers of the training step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trained {
    /// Examples inserted.
    pub examples: u64,
    /// Of them (those with their document counted again), longer than `max_example_tokens` or the
    /// model's context: not trained.
    pub skipped_too_long: u64,
    /// Optimiser steps of the run.
    pub steps: u64,
    /// Loss of the first step, nats per answer token.
    pub first_loss: f64,
    /// Loss of the last step.
    pub last_loss: f64,
    /// The adapter directory.
    pub adapter: String,
    /// Time of the steps, seconds, over interruptions and of the run that trained.
    pub seconds: f64,
    /// True if the same training was there already and nothing was trained.
    pub was_there: bool,
}

/// The result file of a run. Dropped before its end, as a run that is stopped hard, it says so.
pub(super) struct Record {
    pub(super) outcome: Outcome,
    path: PathBuf,
    now: fn() -> SystemTime,
    _lock: Lock,
}

impl Record {
    /// Writes that `job` runs, unless another run does in the same directory.
    pub(super) fn begin(job: &str, directory: &Path, run: &RunId) -> Result<Self> {
        let path = directory.join(RESULT);
        let lock = Lock::take(&directory.join(LOCK), &path).map_err(|e| {
            let error = Error::from(e);
            let message = format!("job {job}: {error}");
            Error::new(error.kind(), message).with_source(error)
        })?;
        if let Some((job, begun)) = killed(&path) {
            log::info!(
                target: "casebook",
                "the run of job {job} that began {begun} was killed before it could end"
            );
        }
        let record = Self {
            outcome: Outcome {
                job: job.to_owned(),
                run_id: run.id.clone(),
                started: utc((run.now)()),
                ended: None,
                status: Status::Running,
                error: None,
                generated: None,
                trained: None,
                compared: None,
            },
            path,
            now: run.now,
            _lock: lock,
        };
        record.write()?;
        Ok(record)
    }

    /// Writes how far the run is: whole, or not at all.
    pub(super) fn write(&self) -> Result<()> {
        let failed = |error: Error| {
            let message = format!("writing the result: {error}");
            Error::new(error.kind(), message).with_source(error)
        };
        let text = serde_json::to_vec_pretty(&self.outcome)
            .map_err(|e| failed(Error::new(ErrorKind::Internal, e.to_string())))?;
        output::write(&self.path, &text).map_err(|e| failed(e.into()))
    }

    /// Writes how the run ended; the outcome and the path of its file. Values that are secret are
    /// left out of its error by `hidden`.
    pub(super) fn end(mut self, done: Result<()>, hidden: &Hidden) -> Result<(Outcome, PathBuf)> {
        self.outcome.status = match &done {
            Ok(()) => Status::Ok,
            Err(error) if error.kind() == ErrorKind::Interrupted => Status::Interrupted,
            Err(_) => Status::Failed,
        };
        let error = done.as_ref().err();
        self.outcome.error = error.map(|e| hidden.out_of(&e.to_string()));
        self.outcome.ended = Some(utc((self.now)()));
        let written = self.write();
        done?;
        written?;
        Ok((self.outcome.clone(), self.path.clone()))
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.outcome.status == Status::Running {
            self.outcome.status = Status::Interrupted;
            self.outcome.error = Some("stopped before it could end by itself".into());
            self.outcome.ended = Some(utc((self.now)()));
            // Nobody is left to tell; the file then says that it runs, which no process does.
            self.write().ok();
        }
    }
}

/// The job and the begin of the run that the file at `path` says is running.
fn killed(path: &Path) -> Option<(String, String)> {
    output::check_file(path).ok()?;
    let found: serde_json::Value = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    let text = |key: &str| found[key].as_str().map(str::to_owned);
    (text("status")? == "running").then_some((text("job")?, text("started")?))
}

/// `2026-11-27T20:11:08Z`
fn utc(time: SystemTime) -> String {
    let seconds = time
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let time = i64::try_from(seconds)
        .ok()
        .and_then(timestamp_s_to_datetime);
    time.map(|t| t.format("%Y-%m-%dT%H:%M:%SZ").to_string())
        .unwrap_or_default()
}

impl Generated {
    /// `36 documents, 141 pairs accepted, 161 rejected, 302 new rows`
    pub fn summary(&self) -> String {
        format!(
            "{} documents, {} pairs accepted, {} rejected, {} new rows in {:.0} s",
            self.documents, self.pairs, self.rejected, self.new_rows, self.seconds
        )
    }
}

impl Trained {
    /// `201 examples, 240 steps, loss 4.512 to 0.031 in 120 s -> adapters/cases`
    pub fn summary(&self) -> String {
        let there = if self.was_there { ", was there" } else { "" };
        let skipped = match self.skipped_too_long {
            0 => String::new(),
            some => format!(" ({some} too long and not trained)"),
        };
        format!(
            "{} examples{skipped}, {} steps, loss {:.3} to {:.3} in {:.0} s{there} -> {}",
            self.examples, self.steps, self.first_loss, self.last_loss, self.seconds, self.adapter
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn noon() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_795_780_800)
    }

    fn begin(directory: &Path) -> Record {
        let id = RunId {
            id: "r1".into(),
            now: noon,
        };
        Record::begin("small", directory, &id).unwrap()
    }

    fn result(directory: &Path) -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(directory.join(RESULT)).unwrap()).unwrap()
    }

    #[test]
    fn the_file_says_how_far_the_run_is_at_every_moment() {
        let dir = tempfile::tempdir().unwrap();
        let record = begin(dir.path());
        let running = result(dir.path());
        assert_eq!(running["status"], "running");
        assert_eq!(running["run_id"], "r1");
        assert_eq!(running["started"], "2026-11-27T12:00:00Z");
        assert!(running["ended"].is_null());
        record.end(Ok(()), &Hidden::default()).unwrap();
        let ended = result(dir.path());
        assert_eq!(ended["status"], "ok");
        assert_eq!(ended["ended"], "2026-11-27T12:00:00Z");

        drop(begin(dir.path()));
        let dropped = result(dir.path());
        assert_eq!(dropped["status"], "interrupted");
        assert!(dropped["error"].as_str().unwrap().contains("stopped"));

        let failed = begin(dir.path()).end(Err(Error::invalid("no")), &Hidden::default());
        assert!(failed.is_err());
        assert_eq!(result(dir.path())["status"], "failed");
        assert_eq!(result(dir.path())["error"], "no");
        let left = std::fs::read_dir(dir.path()).unwrap();
        let mut left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [LOCK, RESULT]);
    }

    #[test]
    fn one_run_at_a_time_and_what_was_killed_is_told_from_what_runs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(RESULT);
        assert_eq!(killed(&path), None);
        let first = begin(dir.path());
        let id = RunId {
            id: "r2".into(),
            now: noon,
        };
        let second = Record::begin("small", dir.path(), &id).err().unwrap();
        assert_eq!(second.kind(), ErrorKind::Unavailable);
        let text = second.to_string();
        assert!(
            text.contains("job small") && text.contains(RESULT) && text.contains("another run"),
            "{text}"
        );
        assert_eq!(result(dir.path())["run_id"], "r1");
        // Killed: neither an end nor a lock.
        let running = std::fs::read(&path).unwrap();
        first.end(Ok(()), &Hidden::default()).unwrap();
        assert_eq!(killed(&path), None);
        std::fs::write(&path, running).unwrap();
        let was = ("small".to_owned(), "2026-11-27T12:00:00Z".to_owned());
        assert_eq!(killed(&path), Some(was));
        Record::begin("small", dir.path(), &id).unwrap();
        for damaged in ["", "{", "[]", "{\"status\":\"running\"}"] {
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(killed(&path), None);
        }
    }

    #[test]
    fn a_directory_that_cannot_be_written_stops_the_run_before_it_begins() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let id = RunId {
            id: "r1".into(),
            now: noon,
        };
        let error = Record::begin("small", &file, &id).err().unwrap();
        let text = error.to_string();
        assert!(
            text.contains("job small: ") && text.contains("a part of the path is a file"),
            "{text}"
        );
    }
}
