//! The crate's integration tests, one binary: a module per topic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod engine;
mod parity;
mod tiny_random;
