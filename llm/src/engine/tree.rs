//! Which prompt parts are shared, and where their keys and values are.
//!
//! A node is a run of prompt tokens below a parent: a system text, or a document below it.
//! Callers hold nodes by reference count; the engine keeps a node's keys and values as long as
//! somebody holds it.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use super::message::Node;
use crate::Result;
use crate::model::{Decoder, KvBlock};

/// A node whose keys and values have a place.
#[derive(Debug)]
pub(crate) struct Resident {
    node: Weak<Node>,
    pub(crate) block: KvBlock,
    /// Tokens whose keys and values are there.
    pub(crate) filled: usize,
    tokens: usize,
    last_used: u64,
}

/// All nodes with a place.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    nodes: HashMap<u64, Resident>,
    clock: u64,
}

impl Tree {
    pub(crate) fn get(&self, id: u64) -> Option<&Resident> {
        self.nodes.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: u64) -> Option<&mut Resident> {
        self.nodes.get_mut(&id)
    }

    /// Tokens that have a place.
    pub(crate) fn tokens(&self) -> usize {
        self.nodes.values().map(|n| n.tokens).sum()
    }

    /// Tokens of a path that have no place yet.
    pub(crate) fn missing(&self, path: &[Arc<Node>]) -> usize {
        path.iter()
            .filter(|n| !self.nodes.contains_key(&n.id))
            .map(|n| n.tokens.len())
            .sum()
    }

    /// Gives every node of a path a place; returns how many tokens had one.
    pub(crate) fn place(&mut self, path: &[Arc<Node>], decoder: &Decoder) -> Result<usize> {
        self.clock += 1;
        let mut shared = 0;
        for node in path {
            if let Some(resident) = self.nodes.get_mut(&node.id) {
                resident.last_used = self.clock;
                shared += resident.tokens;
                continue;
            }
            let resident = Resident {
                node: Arc::downgrade(node),
                block: decoder.block(node.tokens.len())?,
                filled: 0,
                tokens: node.tokens.len(),
                last_used: self.clock,
            };
            self.nodes.insert(node.id, resident);
        }
        Ok(shared)
    }

    /// Frees nodes that nobody holds.
    pub(crate) fn sweep(&mut self) {
        self.nodes
            .retain(|_, resident| resident.node.strong_count() > 0);
    }

    /// Frees the node that was used least recently and is not in `keep`; it is prefilled again
    /// if it is needed later. Says whether there was one.
    pub(crate) fn evict(&mut self, keep: &[Arc<Node>]) -> bool {
        let candidates = self
            .nodes
            .iter()
            .filter(|(id, _)| !keep.iter().any(|n| n.id == **id));
        let oldest = candidates
            .min_by_key(|(id, n)| (n.last_used, **id))
            .map(|(id, _)| *id);
        oldest.is_some_and(|id| self.nodes.remove(&id).is_some())
    }

    /// Frees everything: after a failed step no place can be trusted.
    pub(crate) fn clear(&mut self) {
        self.nodes.clear();
    }
}
