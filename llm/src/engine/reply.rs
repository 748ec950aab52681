//! When a reply's text ends: stop texts across token borders, incomplete characters, thinking.

use super::request::{Completion, Finish, Request};
use crate::Result;
use crate::model::thinking::{answer, is_thinking};
use crate::model::{Prompter, StreamState, TextTokenizer};

/// The text of a growing reply.
#[derive(Debug)]
pub(crate) struct Reply {
    stream: StreamState,
    /// What is certain of the text, thinking included.
    text: String,
    stop: Vec<String>,
    longest_stop: usize,
    opens_thinking: bool,
    tokens: usize,
    max_tokens: usize,
}

impl Reply {
    /// `room` is how many tokens the model's context leaves.
    pub(crate) fn new(request: &Request, prompter: &Prompter, room: usize) -> Self {
        let stop = [&request.stop, prompter.stop()].concat();
        Self {
            stream: StreamState::default(),
            text: String::new(),
            longest_stop: stop.iter().map(String::len).max().unwrap_or(0),
            stop,
            opens_thinking: prompter.opens_thinking(),
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
            return self.end(tokenizer, Finish::Stop).map(Some);
        }
        self.tokens += 1;
        let seen = self.text.len().saturating_sub(self.longest_stop);
        self.text.push_str(&self.stream.push(tokenizer, id)?);
        if self.stop_after(seen).is_some() {
            return self.end(tokenizer, Finish::Stop).map(Some);
        }
        if self.tokens >= self.max_tokens {
            return self.end(tokenizer, Finish::Length).map(Some);
        }
        Ok(None)
    }

    /// Makes the text final: what the tokenizer makes of all tokens, up to the first stop text,
    /// without thinking.
    fn end(&mut self, tokenizer: &TextTokenizer, finish: Finish) -> Result<Finish> {
        self.text = tokenizer.decode(self.stream.ids())?;
        let mut finish = finish;
        if let Some(at) = self.stop_after(0) {
            self.text.truncate(at);
            finish = Finish::Stop;
        }
        let answer = answer(&self.text, self.opens_thinking);
        if answer.unfinished {
            finish = Finish::Length; // however it ended, it ended before an answer
        }
        self.text = answer.text;
        Ok(finish)
    }

    /// Where the first stop text is that begins at `from` or later. Thinking may hold any text.
    fn stop_after(&self, from: usize) -> Option<usize> {
        let from = self.text.floor_char_boundary(from);
        let found = self.stop.iter().flat_map(|stop| {
            let matches = self.text[from..].match_indices(stop.as_str());
            matches.map(|(at, _)| from + at)
        });
        found
            .filter(|at| !is_thinking(&self.text[..*at], self.opens_thinking))
            .min()
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
