//! How many calls are with a server at once: as many as make it faster, and fewer when it asks for it.
//!
//! Additive increase, multiplicative decrease: a server that has too much to do (429, 503, a reply that
//! does not come in time) halves the limit, and holds all calls until its Retry-After is over. Where it
//! keeps up, the limit grows as long as more calls at once bring more replies per second; by Little's
//! law that is the limit divided by the time a reply takes, so it is known from replies alone.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// Calls at once before anything is known of a server.
const FIRST: usize = 4;
/// Fewest replies that say how long one takes.
const SAMPLE: usize = 8;
/// Share of the gain that more calls at once could bring, below which they only wait longer.
const WORTHWHILE: f64 = 0.1;
/// Samples without growth after it brought nothing.
const HOLD: u32 = 8;

/// What is known of a server, without clock or waiting.
#[derive(Debug)]
struct Window {
    limit: usize,
    most: usize,
    /// Longest time that a reply may take; half of it is too long.
    patience: Duration,
    /// Counts changes of the limit: a call counts for the limit that it began under.
    level: u64,
    /// The level from which on a refusal is news: calls before it were sent under a higher limit.
    lowered_at: u64,
    /// True until the first sign that it is enough.
    doubling: bool,
    /// Replies of this level that are still passed over: their calls began while the queue at the
    /// server was that of the level before.
    passed: usize,
    /// The others, and the time that they took, together.
    replies: usize,
    taken: Duration,
    /// The limit below this one, and the replies per second that it brought.
    before: Option<(usize, f64)>,
    hold: u32,
}

impl Window {
    fn new(most: usize, patience: Duration) -> Self {
        Self {
            limit: FIRST.min(most),
            most,
            patience,
            level: 0,
            lowered_at: 0,
            doubling: true,
            passed: FIRST.min(most),
            replies: 0,
            taken: Duration::ZERO,
            before: None,
            hold: 0,
        }
    }

    fn set(&mut self, limit: usize) {
        self.limit = limit.clamp(1, self.most);
        self.level += 1;
        self.passed = self.limit;
        (self.replies, self.taken) = (0, Duration::ZERO);
    }

    /// A reply to a call of `level`, begun when the limit was used up: others say nothing about it.
    fn replied(&mut self, level: u64, took: Duration) {
        if level != self.level {
            return;
        }
        if self.passed > 0 {
            self.passed -= 1;
            return;
        }
        self.replies += 1;
        self.taken += took;
        if self.replies < SAMPLE.max(2 * self.limit) {
            return;
        }
        let mean = self.taken / u32::try_from(self.replies).unwrap_or(u32::MAX);
        if mean > self.patience / 2 && self.limit > 1 {
            return self.lower();
        }
        let rate = self.limit as f64 / mean.as_secs_f64().max(1e-6);
        (self.replies, self.taken) = (0, Duration::ZERO);
        if let Some((limit, old)) = self.before.take() {
            let possible = self.limit as f64 / limit as f64 - 1.0;
            if rate < old * (1.0 + WORTHWHILE * possible) {
                (self.doubling, self.hold) = (false, HOLD);
                return self.set(limit);
            }
        }
        if self.hold > 0 {
            self.hold -= 1;
            return;
        }
        if self.limit < self.most {
            self.before = Some((self.limit, rate));
            self.set(match self.doubling {
                true => self.limit * 2,
                false => self.limit + (self.limit / 4).max(1),
            });
        }
    }

    /// A call of `level` was too much for the server.
    fn refused(&mut self, level: u64) {
        if level >= self.lowered_at {
            self.lower();
        }
    }

    fn lower(&mut self) {
        (self.doubling, self.before, self.hold) = (false, None, 0);
        self.set(self.limit / 2);
        self.lowered_at = self.level;
    }
}

/// Lets calls through to one server.
#[derive(Debug)]
pub(super) struct Limit {
    state: Arc<Mutex<State>>,
    /// One permit for each call that the limit allows; first come, first served.
    turns: Arc<Semaphore>,
}

#[derive(Debug)]
struct State {
    window: Window,
    in_flight: usize,
    /// Permits that are to be taken back when their calls are over.
    owed: usize,
    /// No call begins before.
    paused_until: Option<Instant>,
}

/// A call that may be sent; over when it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    state: Arc<Mutex<State>>,
    turns: Arc<Semaphore>,
    permit: Option<OwnedSemaphorePermit>,
    level: u64,
    /// The limit was used up when it began.
    is_full: bool,
    begun: Instant,
}

impl Limit {
    /// At most `most` calls at once, of which none may take longer than `patience`.
    pub(super) fn new(most: usize, patience: Duration) -> Self {
        let window = Window::new(most.max(1), patience);
        let turns = Arc::new(Semaphore::new(window.limit));
        let state = State {
            window,
            in_flight: 0,
            owed: 0,
            paused_until: None,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            turns,
        }
    }

    /// Waits until a call may be sent; none if the program ends.
    pub(super) async fn turn(&self) -> Option<Turn> {
        let permit = Arc::clone(&self.turns).acquire_owned().await.ok()?;
        loop {
            let until = lock(&self.state).paused_until;
            match until.filter(|until| *until > Instant::now()) {
                Some(until) => tokio::time::sleep_until(until).await,
                None => break,
            }
        }
        let mut state = lock(&self.state);
        state.in_flight += 1;
        Some(Turn {
            level: state.window.level,
            is_full: state.in_flight >= state.window.limit,
            state: Arc::clone(&self.state),
            turns: Arc::clone(&self.turns),
            permit: Some(permit),
            begun: Instant::now(),
        })
    }
}

impl Turn {
    /// The server replied.
    pub(super) fn replied(self) {
        if self.is_full {
            let took = self.begun.elapsed();
            self.change(|window| window.replied(self.level, took));
        }
    }

    /// The server had too much to do, and asks for a wait, perhaps.
    pub(super) fn refused(self, wait: Option<Duration>) {
        self.change(|window| window.refused(self.level));
        if let Some(wait) = wait {
            let mut state = lock(&self.state);
            let until = Instant::now() + wait;
            state.paused_until = Some(state.paused_until.map_or(until, |old| old.max(until)));
        }
    }

    /// Changes what is known, and the number of permits with it.
    fn change(&self, learn: impl FnOnce(&mut Window)) {
        let mut state = lock(&self.state);
        let before = state.window.limit;
        learn(&mut state.window);
        let now = state.window.limit;
        if now > before {
            let paid = state.owed.min(now - before);
            state.owed -= paid;
            self.turns.add_permits(now - before - paid);
        } else if now < before {
            let free = self.turns.forget_permits(before - now);
            state.owed += before - now - free;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        state.in_flight -= 1;
        if state.owed > 0
            && let Some(permit) = self.permit.take()
        {
            state.owed -= 1;
            permit.forget();
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A server that serves `slots` calls at once, a second each, and refuses those beyond `most`.
    struct Server {
        slots: usize,
        most: usize,
    }

    /// Keeps a server as busy as the window allows; replies per second, and the limit at the end.
    fn run(server: &Server, calls: usize, limit: usize) -> (f64, usize) {
        let mut window = Window::new(limit, 600 * SECOND);
        // When each slot is free, and the calls under way: (end, begun, level).
        let mut free = vec![Duration::ZERO; server.slots];
        let mut under_way: Vec<(Duration, Duration, u64)> = vec![];
        let (mut now, mut done) = (Duration::ZERO, 0);
        while done < calls {
            let mut refused = false;
            while under_way.len() < window.limit && !refused {
                let level = window.level;
                if under_way.len() >= server.most {
                    window.refused(level);
                    // Those that are refused come again when another is done.
                    refused = true;
                    continue;
                }
                let slot = free.iter_mut().min().unwrap();
                let end = (*slot).max(now) + SECOND;
                *slot = end;
                under_way.push((end, now, level));
            }
            under_way.sort();
            let (end, begun, level) = under_way.remove(0);
            now = end;
            done += 1;
            window.replied(level, end - begun);
        }
        (calls as f64 / now.as_secs_f64(), window.limit)
    }

    #[test]
    fn the_limit_grows_as_long_as_that_makes_a_server_faster() {
        for (slots, most) in [(1, 5), (2, 5), (8, 16), (16, 32), (64, 64)] {
            let server = Server {
                slots,
                most: usize::MAX,
            };
            let (rate, limit) = run(&server, 2000 + 400 * slots, 64);
            assert!(rate >= 0.95 * slots as f64, "{slots} slots: {rate}");
            assert!(
                (slots.min(4)..=most).contains(&limit),
                "{slots} slots: {limit}"
            );
        }
    }

    #[test]
    fn a_server_that_refuses_gets_less_and_then_little_by_little_more() {
        for most in [1, 3, 5, 20] {
            let server = Server {
                slots: most * 4,
                most,
            };
            let (rate, limit) = run(&server, 4000, 64);
            assert!(limit <= most + 5, "{most}: {limit}");
            assert!(rate >= 0.6 * most as f64, "{most}: {rate}");
        }
    }

    #[test]
    fn refusals_of_calls_that_were_sent_before_count_once() {
        let mut window = Window::new(64, 600 * SECOND);
        window.set(32);
        let level = window.level;
        for _ in 0..32 {
            window.refused(level);
        }
        assert_eq!(window.limit, 16);
        window.refused(window.level);
        assert_eq!(window.limit, 8);
        // A reply that takes half of what it may is too slow.
        for _ in 0..8 + 16 {
            assert_eq!(window.limit, 8);
            window.replied(window.level, 400 * SECOND);
        }
        assert_eq!(window.limit, 4);
    }

    #[tokio::test]
    async fn a_limit_lets_through_what_it_says_and_waits_as_it_is_asked() {
        const SHORT: Duration = Duration::from_millis(20);
        const WAIT: Duration = Duration::from_millis(400);
        let limit = Limit::new(16, 600 * SECOND);
        let none_is_left = async || {
            let more = tokio::time::timeout(SHORT, limit.turn()).await;
            assert!(more.is_err(), "a turn beyond the limit");
        };
        let mut turns = vec![];
        for _ in 0..FIRST {
            turns.push(limit.turn().await.unwrap());
        }
        none_is_left().await;
        // Halved: two of the four permits do not come back.
        let begun = Instant::now();
        turns.pop().unwrap().refused(Some(WAIT));
        turns.pop().unwrap().replied();
        none_is_left().await;
        drop(turns.pop());
        let next = limit.turn().await.unwrap();
        assert!(begun.elapsed() >= WAIT, "{:?}", begun.elapsed());
        none_is_left().await;
        drop((turns, next));
        let (one, two) = (limit.turn().await.unwrap(), limit.turn().await.unwrap());
        none_is_left().await;
        // Given up: as if it had never been.
        drop(one);
        limit.turn().await.unwrap().refused(None);
        two.refused(None);
        assert_eq!(lock(&limit.state).window.limit, 1);
        assert_eq!(limit.turns.available_permits(), 1);
    }
}
