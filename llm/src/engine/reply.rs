//! When a reply's text ends: stop texts across token borders, incomplete characters.

use super::request::{Completion, Finish, Request};
use crate::Result;
use crate::model::{StreamState, TextTokenizer};

/// The text of a growing reply.
#[derive(Debug)]
pub(crate) struct Reply {
    stream: StreamState,
    text: String,
    stop: Vec<String>,
    longest_stop: usize,
    tokens: usize,
    max_tokens: usize,
}

impl Reply {
    /// `room` is how many tokens the model's context leaves.
    pub(crate) fn new(request: &Request, room: usize) -> Self {
        Self {
            stream: StreamState::default(),
            text: String::new(),
            longest_stop: request.stop.iter().map(String::len).max().unwrap_or(0),
            stop: request.stop.clone(),
            tokens: 0,
            max_tokens: request.max_new_tokens.min(room),
        }
    }

    /// Tokens so far.
    pub(crate) fn tokens(&self) -> usize {
        self.tokens
    }

    /// Tokens that may still come.
    pub(crate) fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// Adds a token; says why the reply is over, if it is.
    pub(crate) fn push(&mut self, tokenizer: &TextTokenizer, id: u32) -> Result<Option<Finish>> {
        if tokenizer.eos().contains(&id) {
            self.text.push_str(&self.stream.rest(tokenizer)?);
            self.cut_at_stop(0);
            return Ok(Some(Finish::Stop));
        }
        self.tokens += 1;
        let seen = self.text.len();
        self.text.push_str(&self.stream.push(tokenizer, id)?);
        if self.cut_at_stop(seen.saturating_sub(self.longest_stop)) {
            return Ok(Some(Finish::Stop));
        }
        if self.tokens >= self.max_tokens {
            self.text.push_str(&self.stream.rest(tokenizer)?);
            let stopped = self.cut_at_stop(0);
            return Ok(Some(if stopped {
                Finish::Stop
            } else {
                Finish::Length
            }));
        }
        Ok(None)
    }

    /// Removes the first stop text and what follows it.
    fn cut_at_stop(&mut self, from: usize) -> bool {
        let from = self.text.floor_char_boundary(from);
        let tail = &self.text[from..];
        let first = self
            .stop
            .iter()
            .filter_map(|stop| tail.find(stop.as_str()))
            .min();
        if let Some(at) = first {
            self.text.truncate(from + at);
        }
        first.is_some()
    }

    pub(crate) fn complete(self, finish: Finish, prompt_tokens: usize) -> Completion {
        Completion {
            text: self.text,
            finish,
            prompt_tokens,
            output_tokens: self.tokens,
        }
    }
}
