//! The model that answers: in this process, or behind an endpoint. The calls are those that
//! `docs_to_qa`, `ask` and `compare` make.

mod counters;
mod reply;

use std::sync::Arc;

use casebook_llm::{Engine, Request};

use crate::error::Result;
use crate::remote::{Remote, RemotePrefix, RemoteSession, Replies};

pub use counters::{Counters, Tokens};
pub(crate) use reply::Reply;

/// A model that is ready to answer. Clones share it.
#[derive(Debug, Clone)]
pub(crate) enum Generator {
    /// In this process.
    Local(Engine),
    /// Behind an endpoint; its replies may be kept in a file.
    Remote(Remote, Option<Arc<Replies>>),
}

/// One query on a generator. Clones share its counters.
#[derive(Debug, Clone)]
pub(crate) enum Session {
    Local(casebook_llm::Session),
    Remote(RemoteSession),
}

/// A document behind its system text, ready for any number of tasks.
#[derive(Debug, Clone)]
pub(crate) enum Prefix {
    Local(casebook_llm::Prefix),
    Remote(RemotePrefix),
}

impl Generator {
    /// Name and identity, as rows carry them.
    pub(crate) fn label(&self) -> String {
        match self {
            Self::Local(engine) => {
                let info = engine.info();
                let digest = info.digest.get(..12).unwrap_or(&info.digest);
                format!("{}@{digest}", info.name)
            }
            Self::Remote(remote, _) => remote.label(),
        }
    }

    /// Hash over everything that decides what the model answers.
    pub(crate) fn digest(&self) -> &str {
        match self {
            Self::Local(engine) => &engine.info().digest,
            Self::Remote(remote, _) => remote.digest(),
        }
    }

    /// Tokens that a prompt and its reply may have together.
    pub(crate) fn context_tokens(&self) -> usize {
        match self {
            Self::Local(engine) => engine.info().context_tokens,
            Self::Remote(remote, _) => remote.context_tokens(),
        }
    }

    /// The prompts that the model was trained with, if it carries any.
    pub(crate) fn profile_overlay(&self) -> Option<&str> {
        match self {
            Self::Local(engine) => engine.info().profile_overlay.as_deref(),
            Self::Remote(..) => None,
        }
    }

    /// How many tokens `text` has as part of a document; none for a text that cannot be tokenised.
    pub(crate) fn count(&self, text: &str) -> Option<usize> {
        match self {
            Self::Local(engine) => engine.tokenizer().count(text).ok(),
            Self::Remote(remote, _) => remote.count(text),
        }
    }

    /// Starts counting for one query.
    pub(crate) fn session(&self) -> Session {
        match self {
            Self::Local(engine) => Session::Local(engine.session()),
            Self::Remote(remote, replies) => {
                Session::Remote(RemoteSession::new(remote.clone(), replies.clone()))
            }
        }
    }
}

impl Session {
    /// Makes a document ready for tasks.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidInput`] if system text and document leave no room for a task and
    /// a reply.
    pub(crate) fn prefix(&self, system: Option<&str>, document: &str) -> Result<Prefix> {
        match self {
            Self::Local(session) => Ok(Prefix::Local(session.prefix(system, document)?)),
            Self::Remote(session) => Ok(Prefix::Remote(session.prefix(system, document)?)),
        }
    }

    /// Asks without a document.
    ///
    /// # Errors
    /// As [`Prefix::generate`].
    pub(crate) async fn chat(
        &self,
        system: Option<&str>,
        question: &str,
        request: &Request,
    ) -> Result<Reply> {
        match self {
            Self::Local(session) => Ok(session.chat(system, question, request).await?.into()),
            Self::Remote(session) => session.chat(system, question, request).await,
        }
    }

    /// What this session has done so far.
    pub(crate) fn counters(&self) -> Counters {
        match self {
            Self::Local(session) => session.counters().into(),
            Self::Remote(session) => session.counters(),
        }
    }
}

impl Prefix {
    /// The reply to a task about the document. Dropping the future gives it up.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidInput`] for a prompt that does not fit the model's context; any
    /// other kind if the model failed.
    pub(crate) async fn generate(&self, task: &str, request: Request) -> Result<Reply> {
        match self {
            Self::Local(prefix) => Ok(prefix.generate(task, request).await?.into()),
            Self::Remote(prefix) => prefix.generate(task, request).await,
        }
    }
}
