//! A query that runs at its source until its rows are read or nobody wants them any more.
//!
//! A call of a driver cannot be left, and the thread in it learns of nothing; so a query that is
//! given up is stopped from another session.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use super::session::Session;
use super::settings::Settings;
use crate::sql::dialect::{SqlDialect, Stop};

/// What a reader gets to end by itself, as it does between two batches.
const PATIENCE: Duration = Duration::from_millis(200);
/// How often and how long after each other a query is stopped that does not end.
const STOPS: usize = 5;
const BETWEEN: Duration = Duration::from_secs(2);

/// One query at its source.
#[derive(Debug)]
pub(super) struct Running {
    settings: Settings,
    stop: Option<Stop>,
    /// The number of its session.
    number: OnceLock<String>,
    ended: AtomicBool,
}

impl Running {
    pub(super) fn new(settings: Settings, dialect: &SqlDialect) -> Arc<Self> {
        Arc::new(Self {
            settings,
            stop: dialect.stop,
            number: OnceLock::new(),
            ended: AtomicBool::new(false),
        })
    }

    /// Notes in which session the query is about to run. Without it, it is not stopped from
    /// outside.
    pub(super) fn begins(&self, session: &Session<'_>) {
        let Some(stop) = self.stop else { return };
        let rows = session.texts("asking for the number of the session", stop.number);
        let number = rows
            .ok()
            .and_then(|rows| rows.into_iter().flatten().flatten().next());
        // Nothing else may come into the statement that is made of it.
        if let Some(number) = number.filter(|n| n.bytes().all(|b| b.is_ascii_digit())) {
            self.number.set(number).ok();
        }
    }

    /// The session is closed.
    pub(super) fn has_ended(&self) {
        self.ended.store(true, Ordering::Release);
    }

    fn stop(&self, stop: Stop) {
        thread::sleep(PATIENCE);
        for _ in 0..STOPS {
            if self.ended.load(Ordering::Acquire) {
                return;
            }
            // Connecting takes a while: a session that has ended meanwhile may have left its number to
            // another one.
            if let Some(number) = self.number.get()
                && let Ok(session) = Session::open(&self.settings)
                && !self.ended.load(Ordering::Acquire)
            {
                let sql = format!("{}{number}{}", stop.by.0, stop.by.1);
                session.texts("stopping a query", &sql).ok();
            }
            thread::sleep(BETWEEN);
        }
    }
}

/// Stops its query when it is dropped before the end.
#[derive(Debug)]
pub(super) struct StopWhenDropped(pub(super) Arc<Running>);

impl Drop for StopWhenDropped {
    fn drop(&mut self) {
        let running = Arc::clone(&self.0);
        let ended = running.ended.load(Ordering::Acquire);
        if let (false, Some(stop)) = (ended, running.stop) {
            let thread = thread::Builder::new().name("casebook-odbc-stop".into());
            // Without a thread, the query ends with the batch that it is at.
            thread.spawn(move || running.stop(stop)).ok();
        }
    }
}
