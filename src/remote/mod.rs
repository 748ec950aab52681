//! Models behind an endpoint that speaks the chat completions API: vLLM, TGI, llama.cpp's server,
//! Ollama, OpenAI and what is compatible with it.
//!
//! `spec` is what casebook.toml says, `client` makes the calls (`limit` says how many at once, `fault`
//! which are made again), `request`, `answer` and `usage` are what goes over the wire, `replies` keeps
//! what was paid for.

mod answer;
mod client;
mod endpoints;
mod fault;
mod limit;
mod open;
mod replies;
mod request;
mod session;
mod spec;
mod tokens;
mod usage;

pub(crate) use endpoints::{Endpoints, Keeping};
pub(crate) use open::Remote;
pub(crate) use replies::Replies;
pub(crate) use session::{RemotePrefix, RemoteSession};
pub use spec::RemoteSpec;
pub(crate) use spec::SCHEME;
pub(crate) use tokens::TokenCount;
