//! How many tokens a text has for a model that is elsewhere: by its tokenizer, or an estimate.

use casebook_llm::TextCounter;

use super::spec::RemoteSpec;
use crate::error::{Error, ErrorKind, Result};

/// Bytes of a token in the estimate. English has four or more, so that a chunk is rather too small
/// than too large; text in other scripts has about three.
const BYTES_PER_TOKEN: usize = 3;

/// Counts the tokens of a text.
#[derive(Debug)]
pub(crate) enum TokenCount {
    /// As the model's tokenizer does.
    Tokenizer(Box<TextCounter>),
    /// A token for every [`BYTES_PER_TOKEN`].
    Estimate,
}

impl TokenCount {
    /// As `spec` says. Blocks while the tokenizer is read.
    ///
    /// # Errors
    /// A tokenizer that cannot be read.
    pub(crate) fn open(spec: &RemoteSpec) -> Result<Self> {
        match &spec.tokenizer {
            Some(path) => Ok(Self::Tokenizer(Box::new(TextCounter::open(path)?))),
            None => Ok(Self::Estimate),
        }
    }

    /// [`TokenCount::open`], off the async threads.
    pub(super) async fn read(spec: &RemoteSpec) -> Result<Self> {
        if spec.tokenizer.is_none() {
            return Ok(Self::Estimate);
        }
        let spec = spec.clone();
        tokio::task::spawn_blocking(move || Self::open(&spec))
            .await
            .map_err(|e| Error::new(ErrorKind::Internal, format!("reading a tokenizer: {e}")))?
    }

    /// The tokens of `text`; none if it cannot be tokenised.
    pub(crate) fn count(&self, text: &str) -> Option<usize> {
        match self {
            Self::Tokenizer(tokenizer) => tokenizer.count(text).ok(),
            Self::Estimate => Some(text.len().div_ceil(BYTES_PER_TOKEN)),
        }
    }
}
