//! Text of a growing token sequence: what is certain comes at once, and in the end the whole is what
//! the tokenizer makes of the whole sequence.
//!
//! Two things are uncertain at the end of a sequence: a character whose last bytes are still to
//! come, and, with byte fallback, a run of byte tokens, which becomes replacement characters as a
//! whole if it turns out to be no UTF-8.

use super::tokenizer::{Role, TextTokenizer};
use crate::Result;

/// Text of a growing token sequence. Characters that are not complete yet are held back.
#[derive(Debug)]
pub struct TextStream<'a> {
    tokenizer: &'a TextTokenizer,
    state: StreamState,
}

impl TextTokenizer {
    /// Decodes a growing sequence piece by piece.
    pub fn stream(&self) -> TextStream<'_> {
        TextStream {
            tokenizer: self,
            state: StreamState::default(),
        }
    }
}

impl TextStream<'_> {
    /// Adds a token; returns the text that became certain, which may be none.
    ///
    /// # Errors
    /// As [`TextTokenizer::decode`].
    pub fn push(&mut self, id: u32) -> Result<String> {
        self.state.push(self.tokenizer, id)
    }

    /// What was held back, when no token follows.
    ///
    /// # Errors
    /// As [`TextTokenizer::decode`].
    pub fn finish(mut self) -> Result<String> {
        self.state.rest(self.tokenizer)
    }
}

/// A [`TextStream`] without its tokenizer.
#[derive(Debug, Default, Clone)]
pub(crate) struct StreamState {
    ids: Vec<u32>,
    /// Tokens from here are decoded together: the text of a token depends on the one before.
    context: usize,
    /// Tokens up to here have been returned as text.
    returned: usize,
    /// Bytes of the text from `returned` on that were returned before its last token was.
    ahead: usize,
    /// Tokens up to here are followed by byte tokens alone.
    certain: usize,
}

impl StreamState {
    pub(crate) fn push(&mut self, tokenizer: &TextTokenizer, id: u32) -> Result<String> {
        self.ids.push(id);
        match tokenizer.role(id) {
            Role::Byte => return Ok(String::new()),
            // neither ends a run of byte tokens nor has a text
            Role::Hidden if self.certain + 1 < self.ids.len() => return Ok(String::new()),
            _ => self.certain = self.ids.len(),
        }
        self.advance(tokenizer, false)
    }

    /// What was held back.
    pub(crate) fn rest(&mut self, tokenizer: &TextTokenizer) -> Result<String> {
        self.certain = self.ids.len();
        self.advance(tokenizer, true)
    }

    /// The tokens so far.
    pub(crate) fn ids(&self) -> &[u32] {
        &self.ids
    }

    fn advance(&mut self, tokenizer: &TextTokenizer, ends: bool) -> Result<String> {
        let before = tokenizer.decode(&self.ids[self.context..self.returned])?;
        let after = tokenizer.decode(&self.ids[self.context..self.certain])?;
        // of bytes that could still become a character, one replacement is all that is seen
        let open = !ends && after.ends_with(char::REPLACEMENT_CHARACTER);
        let held = if open {
            char::REPLACEMENT_CHARACTER.len_utf8()
        } else {
            0
        };
        let from = before.len() + self.ahead;
        let Some(piece) = after.get(from..after.len() - held) else {
            return Ok(String::new());
        };
        if open {
            self.ahead += piece.len();
        } else if !piece.is_empty() || self.ahead > 0 {
            self.context = self.returned;
            self.returned = self.certain;
            self.ahead = 0;
        }
        Ok(piece.to_string())
    }
}
