//! What a query holds of a remote model: its counters, and documents ready to be asked about.

use std::sync::{Arc, Mutex, PoisonError};

use casebook_llm::Request;

use super::answer::Answer;
use super::open::Remote;
use super::replies::{self, Replies};
use super::request::Chat;
use crate::error::{Error, Result};
use crate::generator::{Counters, Reply, Tokens};

/// Tokens of the context that a document leaves for task and reply.
const RESERVE_TOKENS: usize = 64;

/// One query on a remote model. Clones share counters.
#[derive(Debug, Clone)]
pub(crate) struct RemoteSession {
    remote: Remote,
    replies: Option<Arc<Replies>>,
    counters: Arc<Mutex<Counters>>,
}

/// A document behind its system text.
#[derive(Debug, Clone)]
pub(crate) struct RemotePrefix {
    session: RemoteSession,
    system: Option<Arc<str>>,
    document: Arc<str>,
}

impl RemoteSession {
    /// A query whose replies are kept in `replies`.
    pub(crate) fn new(remote: Remote, replies: Option<Arc<Replies>>) -> Self {
        Self {
            remote,
            replies,
            counters: Arc::default(),
        }
    }

    pub(crate) fn prefix(&self, system: Option<&str>, document: &str) -> Result<RemotePrefix> {
        let count = |text: &str| self.remote.count(text).unwrap_or(usize::MAX / 4);
        let (head, body) = (system.map_or(0, count), count(document));
        let context = self.remote.context_tokens();
        if head + body + RESERVE_TOKENS > context {
            return Err(Error::invalid(format!(
                "too_long: system text (about {head} tokens) and document (about {body} tokens) \
                 leave less than {RESERVE_TOKENS} of the model's {context} tokens for task and \
                 reply; use smaller chunks, or say the model's max_context"
            )));
        }
        Ok(RemotePrefix {
            session: self.clone(),
            system: system.map(Into::into),
            document: document.into(),
        })
    }

    pub(crate) async fn chat(
        &self,
        system: Option<&str>,
        question: &str,
        request: &Request,
    ) -> Result<Reply> {
        let chat = Chat {
            system: system.map(str::to_owned),
            user: question.to_owned(),
            request: request.clone(),
        };
        self.ask(&chat).await
    }

    pub(crate) fn counters(&self) -> Counters {
        *self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The reply to `chat`: the one that was kept, or a new one.
    async fn ask(&self, chat: &Chat) -> Result<Reply> {
        self.remote.same()?;
        let key = replies::key(self.remote.digest(), chat);
        if let Some(replies) = &self.replies
            && let Some(answer) = replies.find(key).await?
        {
            let kept = Counters {
                kept_replies: 1,
                ..Counters::default()
            };
            self.count(&kept);
            return Ok(reply(answer));
        }
        let answer = self.remote.client().ask(chat).await?;
        self.count(&answer.usage.counters());
        self.remote.answered_as(answer.model.as_deref())?;
        if let Some(replies) = &self.replies {
            replies.keep(key, &answer).await?;
        }
        Ok(reply(answer))
    }

    fn count(&self, new: &Counters) {
        let mut all = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        *all = all.plus(new);
    }
}

impl RemotePrefix {
    pub(crate) async fn generate(&self, task: &str, request: Request) -> Result<Reply> {
        let chat = Chat {
            system: self.system.as_deref().map(str::to_owned),
            user: format!("{}{task}", self.document),
            request,
        };
        self.session.ask(&chat).await
    }
}

fn reply(answer: Answer) -> Reply {
    Reply {
        text: answer.text,
        finish: answer.finish,
        prompt_tokens: Tokens::new(answer.usage.prompt),
        output_tokens: Tokens::new(answer.usage.output),
    }
}
