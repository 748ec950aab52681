//! A remote model that is ready: which state of it the server has, how much it reads at once.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use casebook_llm::Request;
use serde_json::Value;

use super::client::Client;
use super::request::Chat;
use super::spec::RemoteSpec;
use super::tokens::TokenCount;
use crate::error::{Error, ErrorKind, Result};

/// Tokens of prompt and reply together where neither casebook.toml nor the server says.
const CONTEXT_TOKENS: usize = 8192;
/// What a server is asked to find out which model answers. No document leaves for that.
const GREETING: &str = "Answer with one word: ready.";
/// Budget of the answer; its text is of no interest, but models that think refuse very small ones.
const GREETING_TOKENS: usize = 64;
/// Longest wait for it: who starts a job that takes hours wants to know soon that nobody is there.
const GREETING_TIME: Duration = Duration::from_secs(60);
/// Digits of the digest in the label of rows.
const SHOWN_DIGITS: usize = 12;

/// A model behind an endpoint. Clones share its limit.
#[derive(Debug, Clone)]
pub(crate) struct Remote {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    client: Client,
    tokens: TokenCount,
    context_tokens: usize,
    digest: String,
    /// What the server said to have; none where the revision is given, or it says nothing.
    served: Option<String>,
    /// Another one, once it was served.
    replaced: OnceLock<String>,
}

impl Remote {
    /// Makes the model of `spec` ready. Where no revision is given, it is asked a word, to learn which
    /// model answers.
    ///
    /// # Errors
    /// A server that does not answer or refuses; a tokenizer that cannot be read.
    pub(crate) async fn open(spec: &Arc<RemoteSpec>) -> Result<Self> {
        let client = Client::new(spec)?;
        let tokens = TokenCount::read(spec).await?;
        let served = match spec.revision {
            Some(_) => None,
            None => {
                let greeting = Chat {
                    system: None,
                    user: GREETING.to_owned(),
                    request: Request {
                        max_new_tokens: GREETING_TOKENS,
                        ..Request::default()
                    },
                };
                let deadline = spec.timeout.min(GREETING_TIME);
                client.ask_within(&greeting, deadline).await?.model
            }
        };
        let context_tokens = match spec.max_context {
            Some(tokens) => tokens,
            None => {
                let listed = client.get("models").await.unwrap_or_default();
                context_of(&listed, spec.model()).unwrap_or(CONTEXT_TOKENS)
            }
        };
        let revision = spec.revision.as_deref().or(served.as_deref());
        Ok(Self {
            inner: Arc::new(Inner {
                digest: spec.digest(revision),
                client,
                tokens,
                context_tokens,
                served,
                replaced: OnceLock::new(),
            }),
        })
    }

    pub(super) fn client(&self) -> &Client {
        &self.inner.client
    }

    pub(crate) fn count(&self, text: &str) -> Option<usize> {
        self.inner.tokens.count(text)
    }

    pub(crate) fn context_tokens(&self) -> usize {
        self.inner.context_tokens
    }

    pub(crate) fn digest(&self) -> &str {
        &self.inner.digest
    }

    /// Name and identity, as rows carry them.
    pub(crate) fn label(&self) -> String {
        let digest = self.inner.digest.get(..SHOWN_DIGITS).unwrap_or_default();
        format!("{}@{digest}", self.inner.client.spec.model())
    }

    /// Refuses to go on once the server has another model than the rows say.
    pub(super) fn same(&self) -> Result<()> {
        match self.inner.replaced.get() {
            None => Ok(()),
            Some(now) => Err(Error::new(
                ErrorKind::Unavailable,
                format!(
                    "{}: the server said to have {} and now answers as {now}, so that rows would \
                     not say what made them; run it again, or give the model a revision if both \
                     are the same to you",
                    self.inner.client.name(),
                    self.inner.served.as_deref().unwrap_or_default()
                ),
            )),
        }
    }

    /// Notes which model says to have answered.
    pub(super) fn answered_as(&self, model: Option<&str>) -> Result<()> {
        if let (Some(served), Some(now)) = (&self.inner.served, model)
            && served != now
        {
            self.inner.replaced.get_or_init(|| now.to_owned());
        }
        self.same()
    }
}

/// The context of `model` in a list of models, as vLLM, OpenRouter, Groq and llama.cpp have it.
fn context_of(listed: &Value, model: &str) -> Option<usize> {
    let models = listed["data"].as_array()?;
    let found = models.iter().find(|entry| entry["id"] == model)?;
    let said = ["max_model_len", "context_length", "context_window"].map(|key| &found[key]);
    let tokens = said.into_iter().chain([&found["meta"]["n_ctx"]]);
    let tokens = tokens.filter_map(Value::as_u64).find(|n| *n > 0)?;
    usize::try_from(tokens).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_context_is_what_the_server_says_of_this_model() {
        let listed = json!({"data": [
            {"id": "a", "max_model_len": 4096},
            {"id": "b", "context_length": 131072},
            {"id": "c", "max_model_len": 0},
            {"id": "d", "max_model_len": "many"},
            {"id": "l", "meta": {"n_ctx": 2048, "n_ctx_train": 8192}},
        ]});
        assert_eq!(context_of(&listed, "a"), Some(4096));
        assert_eq!(context_of(&listed, "b"), Some(131_072));
        assert_eq!(context_of(&listed, "l"), Some(2048));
        for none in ["c", "d", "e"] {
            assert_eq!(context_of(&listed, none), None);
        }
        assert_eq!(context_of(&json!("x"), "a"), None);
    }
}
