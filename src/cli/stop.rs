//! Ctrl-C, SIGTERM and SIGHUP: the first lets running work end in good order, a later second one
//! ends the program at once.
//!
//! A thread of its own listens, so that it is heard while every other one is busy.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use casebook::{Casebook, Error, ErrorKind, Result};
use tokio::sync::watch;

use super::{exit, output};

/// How long work may take to finish its step or to commit the documents that are done.
const GRACE: Duration = Duration::from_secs(10);
/// The same for work that has nothing to finish but what it is writing.
const SHORT_GRACE: Duration = Duration::from_secs(2);
/// How long rows that have come may take to get into their target: a MERGE of a warehouse that has to
/// wake up, behind other writers. They were hours in the making.
const COMMIT_GRACE: Duration = Duration::from_secs(600);
/// After its grace time work is dropped; what does not even notice that is ended after this.
const LAST_GRACE: Duration = Duration::from_secs(3);
/// What comes this soon after the first signal is part of it: `timeout` signals the program and then
/// its group, a terminal that is closed sends SIGHUP beside a service manager's SIGTERM.
const SAME: Duration = Duration::from_secs(1);
/// Between two calls to stop, for what began after the signal.
const REPEAT: Duration = Duration::from_millis(100);

/// Listens for signals.
pub(super) struct Stop(watch::Sender<Phase>);

/// What the program is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Running,
    /// A signal came; work is ending.
    Stopping,
    /// Its grace time is over.
    Over,
}

/// A piece of work; there is one at a time.
pub(super) struct Running<'a>(&'a Stop);

impl Stop {
    /// Begins to listen, for the work of `casebook`.
    pub(super) fn listen(casebook: &Arc<Casebook>) -> Result<Arc<Self>> {
        let stop = Arc::new(Self(watch::Sender::new(Phase::Idle)));
        let (listening, ready) = mpsc::channel();
        let (listener, casebook) = (Arc::clone(&stop), Arc::clone(casebook));
        let thread = move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            match runtime {
                Ok(runtime) => runtime.block_on(listener.run(&casebook, &listening)),
                Err(error) => {
                    listening.send(Err(error)).ok();
                }
            }
        };
        let failed = |e: std::io::Error| {
            let message = format!("listening for signals: {e}");
            Error::new(ErrorKind::Internal, message).with_source(e)
        };
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(thread)
            .map_err(failed)?;
        match ready.recv() {
            Ok(ready) => ready.map_err(failed)?,
            Err(_) => return Err(Error::new(ErrorKind::Internal, "listening for signals")),
        }
        Ok(stop)
    }

    /// A piece of work begins, which ends when the returned value is dropped.
    pub(super) fn begin(&self) -> Running<'_> {
        self.0.send_replace(Phase::Running);
        Running(self)
    }

    async fn run(&self, casebook: &Casebook, listening: &mpsc::Sender<std::io::Result<()>>) {
        let mut signals = match Signals::listen() {
            Ok(signals) => signals,
            Err(error) => {
                listening.send(Err(error)).ok();
                return;
            }
        };
        listening.send(Ok(())).ok();
        loop {
            signals.next().await;
            if !self.step(Phase::Running, Phase::Stopping) {
                end_at_once();
            }
            let grace = match casebook.is_busy() {
                true => GRACE,
                false => SHORT_GRACE,
            };
            // On a thread of its own: standard error may be a pipe that is full.
            let say = || output::note("stopping; once more (Ctrl-C) ends at once");
            std::thread::Builder::new().spawn(say).ok();
            let mut phase = self.0.subscribe();
            tokio::select! {
                _ = phase.wait_for(|phase| matches!(phase, Phase::Idle | Phase::Running)) => {}
                () = signals.again() => end_at_once(),
                () = self.press(casebook, grace) => end_at_once(),
            }
        }
    }

    /// Stops what runs and what it begins meanwhile, gives it up after `grace`, and waits for that
    /// to be noticed.
    async fn press(&self, casebook: &Casebook, grace: Duration) {
        let repeat = async {
            loop {
                casebook.cancel();
                tokio::time::sleep(REPEAT).await;
            }
        };
        tokio::time::timeout(grace, repeat).await.ok();
        if casebook.is_committing() {
            let say = || {
                output::note(
                    "what was finished is being written to its table, which can take minutes; once \
                     more (Ctrl-C) ends at once, without it",
                );
            };
            std::thread::Builder::new().spawn(say).ok();
            let committed = committed(|| casebook.is_committing());
            tokio::time::timeout(COMMIT_GRACE, committed).await.ok();
        }
        self.step(Phase::Stopping, Phase::Over);
        tokio::time::sleep(LAST_GRACE).await;
    }

    /// Goes from one phase to another; false if it is in a third.
    fn step(&self, from: Phase, to: Phase) -> bool {
        self.0.send_if_modified(|phase| {
            let there = *phase == from;
            if there {
                *phase = to;
            }
            there
        })
    }
}

impl Running<'_> {
    /// True once a signal came.
    pub(super) fn is_stopping(&self) -> bool {
        !matches!(*self.0.0.borrow(), Phase::Running | Phase::Idle)
    }

    /// Waits until work that was stopped has had its grace time.
    pub(super) async fn over(&self) {
        let mut phase = self.0.0.subscribe();
        if phase.wait_for(|phase| *phase == Phase::Over).await.is_err() {
            std::future::pending().await
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.0.send_replace(Phase::Idle);
    }
}

/// Waits until nothing `is_committing`. Looked at twice: the rejects of a table are committed first,
/// then the table itself.
async fn committed(is_committing: impl Fn() -> bool) {
    let mut looks = 0;
    while looks < 2 {
        looks = if is_committing() { 0 } else { looks + 1 };
        tokio::time::sleep(REPEAT).await;
    }
}

fn end_at_once() -> ! {
    std::process::exit(i32::from(exit::INTERRUPTED))
}

impl Signals {
    /// Waits for a signal that is not part of the one before.
    async fn again(&mut self) {
        let same = async {
            loop {
                self.next().await;
            }
        };
        tokio::time::timeout(SAME, same).await.ok();
        self.next().await;
    }
}

/// The signals that end a program.
struct Signals {
    #[cfg(unix)]
    streams: Vec<tokio::signal::unix::Signal>,
}

#[cfg(unix)]
impl Signals {
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut streams = vec![
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        ];
        if !is_ignored(SignalKind::hangup().as_raw_value()) {
            streams.push(signal(SignalKind::hangup())?);
        }
        Ok(Self { streams })
    }

    async fn next(&mut self) {
        let received = self.streams.iter_mut().map(|s| Box::pin(s.recv()));
        if futures::future::select_all(received).await.0.is_none() {
            std::future::pending().await
        }
    }
}

#[cfg(not(unix))]
impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {})
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    }
}

/// True if whoever started the program wants it to go on after this signal, as `nohup` does.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignored_in(&status, signal)
}

/// Reads the mask of ignored signals from a process status as Linux writes it.
#[cfg(unix)]
fn ignored_in(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_commit_is_waited_for_also_behind_that_of_the_rejects() {
        let looks = AtomicUsize::new(0);
        // The rejects, then the gap before the table itself begins, then the table.
        let commits = [true, false, true, true, false, false];
        committed(|| commits[looks.fetch_add(1, Ordering::SeqCst)]).await;
        assert_eq!(looks.load(Ordering::SeqCst), commits.len());
    }
}
