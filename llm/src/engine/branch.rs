//! What one reply needs while it grows: its prompt's path, its place in the cache, its text.

use std::sync::Arc;

use super::message::{BranchRequest, Node};
use super::reply::Reply;
use super::tree::Tree;
use crate::model::{Decoder, KvBlock, StepSegment};
use crate::{Error, Result};

/// Tokens of a reply that get their place at once.
const REPLY_BLOCK_TOKENS: usize = 64;

/// A branch with a place in the batch.
#[derive(Debug)]
pub(crate) struct Branch {
    pub(crate) ask: BranchRequest,
    pub(crate) path: Vec<Arc<Node>>,
    pub(crate) prompt_tokens: usize,
    /// Suffix tokens whose keys and values are there.
    pub(crate) fed: usize,
    /// The last sampled token: the next row.
    pub(crate) next: Option<u32>,
    /// Places of suffix and reply, with the tokens in use; only the last has room.
    pub(crate) blocks: Vec<(KvBlock, usize)>,
    /// Tokens the branch may need in all.
    pub(crate) reserved: usize,
    pub(crate) reply: Reply,
}

impl Branch {
    /// Makes sure that the rows of the next step have a place: a suffix all of it at once, a reply
    /// block by block.
    pub(crate) fn make_place(&mut self, decoder: &Decoder) -> Result<()> {
        let suffix = self.ask.suffix.len();
        let capacity = match self.blocks.last() {
            None => suffix + self.reply.max_tokens().min(REPLY_BLOCK_TOKENS),
            Some((block, filled)) if *filled == block.capacity() => {
                let left = self.reply.max_tokens().saturating_sub(self.reply.tokens());
                left.clamp(1, REPLY_BLOCK_TOKENS)
            }
            Some(_) => return Ok(()),
        };
        self.blocks.push((decoder.block(capacity)?, 0));
        Ok(())
    }

    pub(crate) fn wrote(&mut self, tokens: usize) {
        if let Some((_, filled)) = self.blocks.last_mut() {
            *filled += tokens;
        }
    }

    /// Rows that continue this branch.
    pub(crate) fn segment<'a>(
        &'a self,
        tree: &'a Tree,
        tokens: &'a [u32],
    ) -> Result<StepSegment<'a>> {
        let (last, before) = self.blocks.split_last().ok_or_else(lost)?;
        let mut past = Vec::with_capacity(self.path.len() + before.len());
        for node in &self.path {
            past.push((
                &tree.get(node.id).ok_or_else(lost)?.block,
                node.tokens.len(),
            ));
        }
        past.extend(before.iter().map(|(block, filled)| (block, *filled)));
        let own: usize = self.blocks.iter().map(|(_, filled)| filled).sum();
        let start = self.prompt_tokens - self.ask.suffix.len();
        Ok(StepSegment {
            tokens,
            position: start + own,
            past,
            block: &last.0,
            filled: last.1,
        })
    }
}

pub(crate) fn lost() -> Error {
    Error::internal("a prompt part lost its place in the cache")
}
