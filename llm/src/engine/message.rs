//! What callers and the engine's thread say to each other: branches, and the prompt parts that
//! branches share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{mpsc, oneshot};

use super::request::{Completion, Request};
use super::tally::Tally;
use crate::Result;

/// What callers send to the engine's thread.
#[derive(Debug)]
pub(crate) enum Message {
    /// A reply is wanted.
    Generate(Box<BranchRequest>),
    /// A prefix is no longer held.
    Released,
}

/// A branch as callers ask for it.
#[derive(Debug)]
pub(crate) struct BranchRequest {
    pub(crate) prefix: Option<Arc<Node>>,
    pub(crate) suffix: Vec<u32>,
    pub(crate) request: Request,
    pub(crate) tally: Arc<Tally>,
    pub(crate) reply: oneshot::Sender<Result<Completion>>,
}

impl BranchRequest {
    pub(crate) fn path(&self) -> Vec<Arc<Node>> {
        self.prefix
            .as_ref()
            .map_or_else(Vec::new, |node| node.path())
    }

    pub(crate) fn prompt_tokens(&self) -> usize {
        self.prefix.as_ref().map_or(0, |node| node.end()) + self.suffix.len()
    }
}

/// What a node's tokens are, for counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NodeKind {
    System,
    Document,
}

/// A run of prompt tokens that several branches share. Never empty.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: u64,
    pub(crate) kind: NodeKind,
    pub(crate) tokens: Vec<u32>,
    /// Position of the first token.
    pub(crate) position: usize,
    pub(crate) parent: Option<Arc<Node>>,
    pub(crate) tally: Arc<Tally>,
    engine: mpsc::WeakSender<Message>,
}

impl Node {
    pub(crate) fn new(
        kind: NodeKind,
        tokens: Vec<u32>,
        parent: Option<Arc<Node>>,
        tally: &Arc<Tally>,
        engine: &mpsc::Sender<Message>,
    ) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let position = parent.as_ref().map_or(0, |parent| parent.end());
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let (tally, engine) = (Arc::clone(tally), engine.downgrade());
        Arc::new(Self {
            id,
            kind,
            tokens,
            position,
            parent,
            tally,
            engine,
        })
    }

    /// Position after the last token.
    pub(crate) fn end(&self) -> usize {
        self.position + self.tokens.len()
    }

    /// The nodes from the root to this one.
    pub(crate) fn path(self: &Arc<Self>) -> Vec<Arc<Node>> {
        let mut path = self
            .parent
            .as_ref()
            .map_or_else(Vec::new, |parent| parent.path());
        path.push(Arc::clone(self));
        path
    }
}

impl Drop for Node {
    /// Wakes the engine if it is idle. If its queue is full it is not, and looks by itself.
    fn drop(&mut self) {
        if let Some(engine) = self.engine.upgrade() {
            let _ = engine.try_send(Message::Released);
        }
    }
}
