//! The crate's integration tests, one binary: a module per topic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod builtin;
mod decoding;
mod directories;
mod engine;
mod gguf;
mod golden;
mod parity;
mod prompts;
mod replies;
mod tiny_random;
