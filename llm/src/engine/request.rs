//! What a caller asks for and gets: sampling, stops, completions.

use crate::{Error, Result};

/// How a token is chosen. The filters apply in the order of the fields; the default is greedy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// 0 takes the most likely token (the lowest id among equals); 1 samples from the model's
    /// distribution; in between sharpens it.
    pub temperature: f32,
    /// Keep the `top_k` most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the most likely tokens whose probabilities reach `top_p` together; 1 keeps all.
    pub top_p: f32,
    /// Keep tokens at least `min_p` times as likely as the most likely one; 0 keeps all.
    pub min_p: f32,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
        }
    }
}

/// One reply to be generated.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Same seed, same reply, whatever else runs (up to the order of floating-point sums).
    pub seed: u64,
    /// Tokens of the reply at most.
    pub max_new_tokens: usize,
    /// Texts that end the reply; they are not part of it.
    pub stop: Vec<String>,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            sampling: Sampling::default(),
            seed: 0,
            max_new_tokens: 128,
            stop: Vec::new(),
        }
    }
}

/// Why a reply ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model ended it, or a stop text came.
    Stop,
    /// `max_new_tokens` or the model's context was reached.
    Length,
}

/// A reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// The text, without stop text and control tokens.
    pub text: String,
    /// Why it ended.
    pub finish: Finish,
    /// Tokens of the whole prompt, shared ones included.
    pub prompt_tokens: usize,
    /// Tokens of the reply, the ending token not included.
    pub output_tokens: usize,
}

impl Request {
    pub(crate) fn check(&self) -> Result<()> {
        let Sampling {
            temperature,
            top_p,
            min_p,
            ..
        } = self.sampling;
        let wrong = |what: String| Err(Error::invalid_input(what));
        if !temperature.is_finite() || temperature < 0.0 {
            return wrong(format!(
                "temperature is {temperature}; it must be 0 or more"
            ));
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return wrong(format!(
                "top_p is {top_p}; it must be above 0 and at most 1"
            ));
        }
        if !(0.0..=1.0).contains(&min_p) {
            return wrong(format!("min_p is {min_p}; it must be from 0 to 1"));
        }
        if self.max_new_tokens == 0 {
            return wrong("max_new_tokens is 0; it must be at least 1".to_string());
        }
        if self.stop.iter().any(String::is_empty) {
            return wrong("a stop text is empty; leave it out".to_string());
        }
        Ok(())
    }
}
