//! Stopping work: what runs now is told, what comes later is not.

use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

/// The switch that [`crate::Casebook::cancel`] throws. Each throw is for the work begun before it.
#[derive(Debug)]
pub(crate) struct Stopping(Mutex<watch::Sender<bool>>);

/// A piece of work that can be stopped: one query, one training run, one job.
#[derive(Debug, Clone)]
pub(crate) struct Work(watch::Receiver<bool>);

impl Default for Stopping {
    fn default() -> Self {
        Self(Mutex::new(watch::Sender::new(false)))
    }
}

impl Stopping {
    /// Work that begins now.
    pub(crate) fn begin(&self) -> Work {
        let current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Work(current.subscribe())
    }

    /// Tells all work begun so far.
    pub(crate) fn stop(&self) {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        current.send_replace(true);
        *current = watch::Sender::new(false);
    }

    /// True while there is work that has not been told to stop.
    pub(crate) fn is_busy(&self) -> bool {
        let current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        current.receiver_count() > 0
    }
}

impl Work {
    /// True once it is to stop.
    pub(crate) fn is_stopped(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is to stop; for ever if nobody can tell it any more.
    pub(crate) async fn stopped(&self) {
        let mut told = self.0.clone();
        if told.wait_for(|stopped| *stopped).await.is_err() {
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_begins_later_is_not_stopped() {
        let stopping = Stopping::default();
        assert!(!stopping.is_busy());
        let (first, second) = (stopping.begin(), stopping.begin());
        assert!(stopping.is_busy() && !first.is_stopped());
        stopping.stop();
        assert!(first.is_stopped() && second.is_stopped() && !stopping.is_busy());
        first.stopped().await;
        let later = stopping.begin();
        assert!(!later.is_stopped());
        stopping.stop();
        later.stopped().await;
    }
}
