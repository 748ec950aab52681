//! What makes a question/answer pair out of a text, without models, tables or I/O?
//!
//! The pure half of Casebook, in the order of the work:
//!
//! 1. [`normalize`]: how text looks in a prompt;
//! 2. [`chunk`]: token-budget chunks that end at sentences;
//! 3. [`quota`]: which chunks to visit first when a document has a quota;
//! 4. [`profile`]: the two personas, sampling, limits, checks;
//! 5. [`prompt`]: the document part and the task part of a prompt;
//! 6. [`parse`]: questions and answers out of raw output;
//! 7. [`checks`]: status, reason and grounding of a pair;
//! 8. [`identity`]: ids and seeds that stay the same for the same input;
//! 9. [`score`]: exact match, token F1 and refusals, when the right answer is known.
//!
//! It knows no tokenizer (see [`chunk::TokenCounter`]), no Arrow and no engine.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod checks;
pub mod chunk;
pub mod error;
mod header;
pub mod identity;
pub mod normalize;
pub mod parse;
pub mod profile;
pub mod prompt;
pub mod quota;
pub mod score;
mod sentence;

pub use error::{Error, ErrorKind, Result};
