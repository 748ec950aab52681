//! What a query holds: its counters, its system texts, its documents.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use super::Engine;
use super::message::{BranchRequest, Message, Node, NodeKind};
use super::request::{Completion, Request};
use super::tally::{Counters, Tally};
use crate::model::DocumentPrompt;
use crate::{Error, Result};

/// Tokens of the context that a prefix leaves for task and reply.
const PREFIX_RESERVE_TOKENS: usize = 64;

/// One query on an engine. Clones share counters and system texts.
#[derive(Debug, Clone)]
pub struct Session {
    inner: Arc<SessionInner>,
}

#[derive(Debug)]
struct SessionInner {
    engine: Engine,
    tally: Arc<Tally>,
    /// Prefilled once per session: the tokens before any document.
    heads: Mutex<HashMap<Vec<u32>, Arc<Node>>>,
}

/// A document behind its system text, ready for any number of branches. Its keys and values are
/// freed when the last clone and branch are gone.
#[derive(Debug, Clone)]
pub struct Prefix {
    session: Session,
    prompt: Arc<DocumentPrompt>,
    node: Option<Arc<Node>>,
}

impl Session {
    pub(crate) fn new(engine: Engine) -> Self {
        let (tally, heads) = (Arc::default(), Mutex::default());
        Self {
            inner: Arc::new(SessionInner {
                engine,
                tally,
                heads,
            }),
        }
    }

    /// The engine this session runs on.
    pub fn engine(&self) -> &Engine {
        &self.inner.engine
    }

    /// Makes a document ready for branches. Tokenises; the model runs when the first branch does.
    ///
    /// # Errors
    /// `InvalidInput` with the word `too_long` if system text and document leave no room for a
    /// task and a reply; a template that cannot be used.
    pub fn prefix(&self, system: Option<&str>, document: &str) -> Result<Prefix> {
        let engine = &self.inner.engine;
        let prompt = engine.prompter().document(system, document)?;
        let (head, body) = (prompt.head.len(), prompt.document.len());
        let context = engine.info().context_tokens;
        if head + body + PREFIX_RESERVE_TOKENS > context {
            return Err(Error::invalid_input(format!(
                "too_long: system text ({head} tokens) and document ({body} tokens) leave less \
                 than {PREFIX_RESERVE_TOKENS} of the model's {context} tokens for task and reply; \
                 use smaller chunks"
            )));
        }
        let sender = engine.sender()?;
        let tally = &self.inner.tally;
        let parent = (head > 0).then(|| {
            let mut heads = self
                .inner
                .heads
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let node = heads.entry(prompt.head.clone()).or_insert_with(|| {
                Node::new(NodeKind::System, prompt.head.clone(), None, tally, sender)
            });
            Arc::clone(node)
        });
        let node = if body == 0 {
            parent
        } else {
            let tokens = prompt.document.clone();
            Some(Node::new(NodeKind::Document, tokens, parent, tally, sender))
        };
        Ok(Prefix {
            session: self.clone(),
            prompt: Arc::new(prompt),
            node,
        })
    }

    /// Asks without a document. Without `system` the prompt is the user's message alone.
    ///
    /// # Errors
    /// As [`Prefix::generate`].
    pub async fn chat(
        &self,
        system: Option<&str>,
        question: &str,
        request: &Request,
    ) -> Result<Completion> {
        let prompt = self.inner.engine.prompter().question(system, question)?;
        self.branch(None, prompt, request.clone()).await
    }

    /// What this session has done so far.
    pub fn counters(&self) -> Counters {
        self.inner.tally.counters()
    }

    async fn branch(
        &self,
        prefix: Option<Arc<Node>>,
        suffix: Vec<u32>,
        request: Request,
    ) -> Result<Completion> {
        request.check()?;
        let engine = &self.inner.engine;
        if suffix.is_empty() {
            return Err(Error::invalid_input(
                "the prompt has no tokens after the document; give the task a text",
            ));
        }
        let prompt_tokens = prefix.as_ref().map_or(0, |node| node.end()) + suffix.len();
        let context = engine.info().context_tokens;
        if prompt_tokens >= context {
            return Err(Error::invalid_input(format!(
                "too_long: the prompt has {prompt_tokens} tokens, the model's context is {context} \
                 with the reply; shorten the task or use smaller chunks"
            )));
        }
        let (reply, completion) = oneshot::channel();
        let tally = Arc::clone(&self.inner.tally);
        let branch = BranchRequest {
            prefix,
            suffix,
            request,
            tally,
            reply,
        };
        let sent = engine
            .sender()?
            .send(Message::Generate(Box::new(branch)))
            .await;
        sent.map_err(|_| engine.ended())?;
        completion.await.map_err(|_| engine.ended())?
    }
}

impl Prefix {
    /// Tokens of system text and document.
    pub fn tokens(&self) -> usize {
        self.prompt.head.len() + self.prompt.document.len()
    }

    /// Tokens of the document alone.
    pub fn document_tokens(&self) -> usize {
        self.prompt.document.len()
    }

    /// Generates a reply to a task about the document. Dropping the future cancels the branch.
    ///
    /// # Errors
    /// `InvalidInput` for a request that cannot be right or a prompt with the word `too_long`,
    /// `Exhausted` if the prompt does not fit the engine's cache, `Internal` if the engine failed.
    pub async fn generate(&self, task: &str, request: Request) -> Result<Completion> {
        let prompter = self.session.inner.engine.prompter();
        let suffix = prompter.tail(&self.prompt, task)?;
        self.session
            .branch(self.node.clone(), suffix, request)
            .await
    }
}
