//! Counters that running statements move and that a program may show. No drawing here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::generator::Counters;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// What has happened so far in this session. Shared, monotone, cheap to read.
        #[derive(Debug, Default)]
        pub struct Progress {
            $($(#[$doc])* pub $name: Counter,)*
            /// What generation took.
            pub generated: Generation,
        }
    };
}

counters! {
    /// Documents read from the input of `docs_to_qa`.
    documents_started,
    /// Documents whose last row has been produced.
    documents,
    /// Documents of the running job's source; 0 while unknown.
    documents_total,
    /// Chunks for which generation has finished.
    chunks,
    /// Accepted question/answer pairs.
    pairs,
    /// Rows with another status than ok.
    rejected,
    /// Optimiser steps done in the current training run.
    train_steps,
    /// Optimiser steps the current training run will take.
    train_steps_total,
    /// Tokens trained on in the current training run.
    train_tokens,
    /// Training loss of the last step, in millionths of a nat.
    train_loss_millionths,
    /// Questions answered by a running comparison.
    compared,
    /// Questions a running comparison will ask.
    compared_total,
}

/// One counter.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Replaces the value.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of the models that generate.
#[derive(Debug, Default)]
pub struct Generation(Mutex<Counters>);

impl Generation {
    /// Adds what is new.
    pub fn add(&self, new: &Counters) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *all = all.plus(new);
    }

    /// The values now.
    pub fn get(&self) -> Counters {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
