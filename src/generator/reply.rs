//! What a model answered.

use casebook_llm::{Completion, Finish};

use super::counters::Tokens;

/// A reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    /// Its text, without what ended it.
    pub(crate) text: String,
    /// Why it ended.
    pub(crate) finish: Finish,
    /// Tokens of the whole prompt.
    pub(crate) prompt_tokens: Tokens,
    /// Tokens of the reply.
    pub(crate) output_tokens: Tokens,
}

impl From<Completion> for Reply {
    fn from(own: Completion) -> Self {
        Self {
            text: own.text,
            finish: own.finish,
            prompt_tokens: Tokens::new(Some(own.prompt_tokens as u64)),
            output_tokens: Tokens::new(Some(own.output_tokens as u64)),
        }
    }
}
