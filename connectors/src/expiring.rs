//! A value that goes stale, such as a token: renewed before that, by one caller for all.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::error::Result;

/// Wait after a renewal that failed while the old value is still good.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// A fresh value and how long it is good for; none: forever.
#[derive(Debug)]
pub(crate) struct Fresh<T> {
    pub(crate) value: T,
    pub(crate) lifetime: Option<Duration>,
}

/// Holds a value until 80 % of its lifetime have passed.
#[derive(Debug)]
pub(crate) struct Expiring<T> {
    held: RwLock<Option<Held<T>>>,
    /// Held by the one caller that renews.
    turn: Mutex<()>,
}

#[derive(Debug)]
struct Held<T> {
    value: Arc<T>,
    /// From when on and until when; none: never.
    renewed: Option<(Instant, Instant)>,
}

impl<T> Default for Expiring<T> {
    fn default() -> Self {
        Self {
            held: RwLock::new(None),
            turn: Mutex::new(()),
        }
    }
}

impl<T> Expiring<T> {
    /// The value; if it is due, what `renew` fetches, which is not begun otherwise. While one caller
    /// renews, the others go on with the old value as long as it is good. A renewal that fails is an
    /// error only after that.
    pub(crate) async fn get(
        &self,
        renew: impl Future<Output = Result<Fresh<T>>>,
    ) -> Result<Arc<T>> {
        if let Some(value) = self.undue() {
            return Ok(value);
        }
        let _turn = match (self.good(), self.turn.try_lock()) {
            (Some(value), Err(_)) => return Ok(value),
            (_, Ok(turn)) => turn,
            (None, Err(_)) => self.turn.lock().await,
        };
        if let Some(value) = self.undue() {
            return Ok(value);
        }
        match renew.await {
            Ok(fresh) => Ok(self.hold(fresh)),
            Err(error) => match self.good() {
                Some(value) => {
                    self.postpone();
                    Ok(value)
                }
                None => Err(error),
            },
        }
    }

    /// Makes the next `get` renew.
    pub(crate) fn forget(&self) {
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn hold(&self, fresh: Fresh<T>) -> Arc<T> {
        let value = Arc::new(fresh.value);
        let now = Instant::now();
        // A lifetime beyond what the clock can count is no lifetime.
        let renewed = fresh.lifetime.and_then(|lifetime| {
            Some((
                now.checked_add(lifetime.mul_f64(0.8))?,
                now.checked_add(lifetime)?,
            ))
        });
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = Some(Held {
            value: Arc::clone(&value),
            renewed,
        });
        value
    }

    fn postpone(&self) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(Held {
            renewed: Some((due, _)),
            ..
        }) = held.as_mut()
        {
            *due = Instant::now() + RETRY_AFTER;
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Option<Held<T>>> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value if it need not be renewed yet.
    fn undue(&self) -> Option<Arc<T>> {
        let held = self.read();
        let held = held.as_ref()?;
        match held.renewed {
            Some((due, end)) if Instant::now() >= due.min(end) => None,
            _ => Some(Arc::clone(&held.value)),
        }
    }

    /// The value if it has not expired.
    fn good(&self) -> Option<Arc<T>> {
        let held = self.read();
        let held = held.as_ref()?;
        match held.renewed {
            Some((_, end)) if Instant::now() >= end => None,
            _ => Some(Arc::clone(&held.value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::error::{Error, ErrorKind};

    fn fresh(value: u32, lifetime: Option<Duration>) -> Result<Fresh<u32>> {
        Ok(Fresh { value, lifetime })
    }

    #[tokio::test]
    async fn renewed_when_due_and_only_then() {
        let held = Expiring::default();
        assert_eq!(*held.get(async { fresh(1, None) }).await.unwrap(), 1);
        assert_eq!(*held.get(async { fresh(2, None) }).await.unwrap(), 1);
        held.forget();
        let expired = Some(Duration::ZERO);
        assert_eq!(*held.get(async { fresh(3, expired) }).await.unwrap(), 3);
        assert_eq!(*held.get(async { fresh(4, None) }).await.unwrap(), 4);
    }

    #[tokio::test]
    async fn one_renewal_for_all_callers() {
        let held = Expiring::default();
        let calls = AtomicU32::new(0);
        let get = || {
            held.get(async {
                tokio::task::yield_now().await;
                fresh(calls.fetch_add(1, Ordering::SeqCst), None)
            })
        };
        let (a, b, c) = tokio::join!(get(), get(), get());
        assert_eq!((*a.unwrap(), *b.unwrap(), *c.unwrap()), (0, 0, 0));
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_failed_renewal_is_an_error_once_the_old_value_has_expired() {
        let held = Expiring::default();
        let hour = Duration::from_secs(3600);
        held.get(async { fresh(1, Some(hour)) }).await.unwrap();
        // Due, but good for another hour.
        if let Some(held) = held.held.write().unwrap().as_mut() {
            held.renewed = Some((Instant::now(), Instant::now() + hour));
        }
        let fail = || async { Err(Error::new(ErrorKind::Unavailable, "down")) };
        assert_eq!(*held.get(fail()).await.unwrap(), 1);
        // Put off: not asked again at once.
        assert_eq!(*held.get(async { fresh(2, None) }).await.unwrap(), 1);
        held.forget();
        assert!(held.get(fail()).await.is_err());
    }
}
