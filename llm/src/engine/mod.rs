//! How prompts of many documents become one batch: sessions, prefixes, branches, completions.
//!
//! One thread owns the model. Callers hand it branches through a bounded queue and wait for
//! completions; everything it needs to know about a document is in the prefix the branch names:
//!
//! ```text
//! session            a query: its counters, its system texts
//!  └ prefix          system text + document, prefilled once when its first branch is scheduled
//!     └ branch       task + reply; reads its prefix's keys and values by reference
//! ```
//!
//! Each step runs one flat list of rows: a row per replying branch and, within a budget, chunks of
//! prompts. Waiting branches start in order of arrival as rows and cache allow.

mod branch;
mod load;
mod message;
mod options;
mod reply;
mod request;
mod sampler;
mod scheduler;
mod session;
mod tally;
mod tree;

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::mpsc;

pub use options::{DeviceChoice, EngineOptions, parse_dtype};
pub use request::{Completion, Finish, Request, Sampling};
pub use session::{Prefix, Session};
pub use tally::Counters;

use crate::model::{ModelSource, Prompter, TextTokenizer};
use crate::{Error, Result};
use message::Message;

/// A loaded model and the thread that runs it. Clones share both; the thread ends when the last
/// clone, session and prefix are dropped.
#[derive(Debug, Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

/// What a loaded model is.
#[derive(Debug, Clone)]
pub struct ModelInfo {
    /// The model's name, with `+ADAPTER` if one is attached.
    pub name: String,
    /// Hash over everything that decides what the model answers, hexadecimal.
    pub digest: String,
    /// Tokens a prompt and its reply may have together.
    pub context_tokens: usize,
    /// Number of weights of the base model.
    pub parameters: usize,
    /// Bytes the base model's weights take on the device.
    pub weight_bytes: usize,
    /// `float32`, `bfloat16` or `float16`.
    pub dtype: String,
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// Most tokens whose keys and values are kept at once.
    pub max_cached_tokens: usize,
    /// The content of casebook-profile.toml in the model's directory, if there is one.
    pub profile_overlay: Option<String>,
}

#[derive(Debug)]
struct Inner {
    info: ModelInfo,
    prompter: Arc<Prompter>,
    sender: Option<mpsc::Sender<Message>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Why the thread ended, if it did not end because it was no longer needed.
    failure: Arc<Mutex<Option<String>>>,
    cached: Arc<std::sync::atomic::AtomicUsize>,
}

impl Engine {
    /// Loads a model and starts its thread. Blocks while files are read.
    ///
    /// # Errors
    /// A model that is missing, damaged or unsupported; a device that is not there.
    pub fn load(source: &ModelSource, options: EngineOptions) -> Result<Self> {
        load::load(source, options)
    }

    /// Refuses what [`Engine::load`] would refuse, as far as it shows without reading weights.
    ///
    /// # Errors
    /// As [`Engine::load`].
    pub fn check(source: &ModelSource, options: &EngineOptions) -> Result<()> {
        load::check(source, options)
    }

    /// What was loaded.
    pub fn info(&self) -> &ModelInfo {
        &self.inner.info
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &TextTokenizer {
        self.inner.prompter.tokenizer()
    }

    /// The model's tokenizer and chat template.
    pub fn prompter(&self) -> &Prompter {
        &self.inner.prompter
    }

    /// Starts counting for one query.
    pub fn session(&self) -> Session {
        Session::new(self.clone())
    }

    /// Tokens whose keys and values are kept or reserved now.
    pub fn cached_tokens(&self) -> usize {
        self.inner.cached.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn sender(&self) -> Result<&mpsc::Sender<Message>> {
        self.inner.sender.as_ref().ok_or_else(|| self.ended())
    }

    /// The thread is gone although it is needed: it panicked.
    fn ended(&self) -> Error {
        let failure = self
            .inner
            .failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let reason = failure.as_deref().unwrap_or("no reason was left");
        Error::internal(format!(
            "the engine of model {} has stopped ({reason}); load the model again",
            self.inner.info.name
        ))
    }
}

impl Drop for Inner {
    /// Ends the thread and waits for its current step.
    fn drop(&mut self) {
        self.sender = None;
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread.filter(|t| t.thread().id() != std::thread::current().id()) {
            let _ = thread.join(); // a panic has been recorded in `failure` already
        }
    }
}
