//! Casebook turns the text in a data warehouse into a language model that knows it.
//!
//! ```text
//! source tables -> docs_to_qa (qa_pairs) -> QA tables -> LORA table -> adapter -> ask / compare
//! ```
//!
//! A DataFusion host calls [`install`] once on its `SessionContext`; the `casebook` program is one
//! such host. SQL then has `docs_to_qa`, `chunk_text`, `text_slice`, `ask`, `train_log`, the table
//! formats of the connectors crate and `STORED AS LORA`.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod catalog;
mod context;
mod error;
mod generator;
mod literals;
mod models;
mod profiles;
mod progress;
mod remote;
mod session;
mod stopping;

pub mod compare;
pub mod config;
pub mod functions;
pub mod jobs;
pub mod schema;
pub mod settings;
pub mod sinks;

pub use casebook_connectors::FileReaders;
pub use catalog::{check_insert, check_table};
pub use context::{Casebook, TableSettings};
pub use error::{Error, ErrorKind, Result};
pub use generator::{Counters, Tokens};
pub use literals::exact_literals;
pub use models::{ModelSpec, Models};
pub use progress::{Generation, Progress};
pub use remote::RemoteSpec;
pub use session::{
    InstallOptions, SessionOptions, install, install_with, new_session, new_session_with,
};
