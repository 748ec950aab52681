//! How text becomes token ids and back (Hugging Face tokenizer.json).
//!
//! Text of documents and text of templates are encoded differently: a template's `<|end|>` is a
//! control token, the same letters in a document are letters. So no document can end its own
//! prompt or speak in another role.

use serde_json::Value;
use tokenizers::Tokenizer;

use super::config::{DecoderConfig, token_ids};
use super::source::{ModelFiles, json};
use crate::{Error, Result};

const FILE: &str = "tokenizer.json";

/// A model's tokenizer with its control tokens.
#[derive(Debug, Clone)]
pub struct TextTokenizer {
    /// Parses control tokens.
    template: Tokenizer,
    /// Takes control tokens as letters.
    text: Tokenizer,
    controls: Vec<(String, u32)>,
    bos: Option<u32>,
    adds_bos: bool,
    eos: Vec<u32>,
}

impl TextTokenizer {
    /// Reads tokenizer.json, and the ids of control tokens from generation_config.json,
    /// config.json and tokenizer_config.json.
    ///
    /// # Errors
    /// A missing or damaged file, by name.
    pub fn load(files: &ModelFiles, config: &DecoderConfig) -> Result<Self> {
        let content = files.require(FILE)?;
        let damaged = |e: tokenizers::Error| {
            Error::corrupt(format!(
                "{} is not a tokenizer ({e}); fetch the file again",
                files.describe(FILE)
            ))
            .with_source(e)
        };
        let mut value = json(files, FILE, &content)?;
        let mut template = Tokenizer::from_bytes(&*content).map_err(damaged)?;
        mark_controls(&mut value);
        let mut text = Tokenizer::from_bytes(value.to_string()).map_err(damaged)?;
        text.set_encode_special_tokens(true);
        for tokenizer in [&mut template, &mut text] {
            tokenizer.with_padding(None);
            tokenizer.with_truncation(None).map_err(damaged)?;
        }
        let controls: Vec<(String, u32)> = text
            .get_added_tokens_decoder()
            .into_iter()
            .filter(|(_, token)| token.special)
            .map(|(id, token)| (token.content, id))
            .collect();

        let settings = match files.read("tokenizer_config.json")? {
            Some(content) => json(files, "tokenizer_config.json", &content)?,
            None => Value::Null,
        };
        let named = |key: &str| {
            let token = token_text(&settings, key)?;
            template.token_to_id(&token)
        };
        let mut eos = match files.read("generation_config.json")? {
            Some(content) => {
                let value = json(files, "generation_config.json", &content)?;
                token_ids(value.get("eos_token_id"))
            }
            None => Vec::new(),
        };
        eos.extend(&config.eos_token_ids);
        eos.extend(named("eos_token"));
        eos.sort_unstable();
        eos.dedup();
        let bos = named("bos_token").or(config.bos_token_id);
        let first = template
            .encode_fast("a", true)
            .map_err(damaged)?
            .get_ids()
            .first()
            .copied();
        let adds_bos = bos.is_some() && first == bos;
        Ok(Self {
            template,
            text,
            controls,
            bos,
            adds_bos,
            eos,
        })
    }

    /// Token ids of text that belongs to a template: control tokens are parsed. Adds no token.
    ///
    /// # Errors
    /// Text that the tokenizer cannot encode.
    pub fn encode_template(&self, text: &str) -> Result<Vec<u32>> {
        encode(&self.template, text)
    }

    /// Token ids of text from outside: control tokens in it are letters. Adds no token.
    ///
    /// # Errors
    /// Text that the tokenizer cannot encode.
    pub fn encode_text(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = encode(&self.text, text)?;
        // a vocabulary that also holds a control token as an ordinary piece must not yield it
        ids.retain(|id| !self.controls.iter().any(|(_, control)| control == id));
        Ok(ids)
    }

    /// How many tokens `text` has as part of a document.
    ///
    /// # Errors
    /// Text that the tokenizer cannot encode.
    pub fn count(&self, text: &str) -> Result<usize> {
        Ok(self.encode_text(text)?.len())
    }

    /// The text of token ids, without control tokens. Bytes that are no UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// Ids that the tokenizer cannot decode.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.template
            .decode(ids, true)
            .map_err(|e| Error::internal("token ids could not be decoded to text").with_source(e))
    }

    /// Decodes a growing sequence piece by piece.
    pub fn stream(&self) -> TextStream<'_> {
        TextStream {
            tokenizer: self,
            state: StreamState::default(),
        }
    }

    /// The token before every prompt, if the model has one.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The tokens that end a reply.
    pub fn eos(&self) -> &[u32] {
        &self.eos
    }

    /// Whether text contains the spelling of a control token.
    pub(crate) fn spells_control(&self, text: &str) -> bool {
        self.controls
            .iter()
            .any(|(control, _)| text.contains(control.as_str()))
    }

    /// Puts the model's first token before a prompt, exactly once, if the tokenizer would.
    pub(crate) fn with_bos(&self, mut ids: Vec<u32>) -> Vec<u32> {
        if let Some(bos) = self.bos {
            while ids.len() > 1 && ids[0] == bos && ids[1] == bos {
                ids.remove(0);
            }
            if self.adds_bos && ids.first() != Some(&bos) {
                ids.insert(0, bos);
            }
        }
        ids
    }
}

fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    let encoding = tokenizer.encode_fast(text, false).map_err(|e| {
        Error::internal(format!(
            "text of {} bytes could not be tokenised",
            text.len()
        ))
        .with_source(e)
    })?;
    Ok(encoding.get_ids().to_vec())
}

/// Some models list control tokens without marking them special (`<tool_call>`); whatever is
/// written in angle or square brackets is taken for one.
fn mark_controls(tokenizer: &mut Value) {
    let tokens = tokenizer
        .get_mut("added_tokens")
        .and_then(Value::as_array_mut);
    for token in tokens.into_iter().flatten() {
        let content = token
            .get("content")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let bracketed = (content.starts_with('<') && content.ends_with('>'))
            || (content.starts_with('[') && content.ends_with(']'));
        if bracketed && content.len() > 2 {
            token["special"] = Value::Bool(true);
        }
    }
}

/// A token in tokenizer_config.json: a string, or an object with the string in `content`.
pub(crate) fn token_text(settings: &Value, key: &str) -> Option<String> {
    let token = settings.get(key)?;
    token
        .as_str()
        .or_else(|| token.get("content")?.as_str())
        .map(str::to_string)
}

/// Text of a growing token sequence. Characters that are not complete yet are held back.
#[derive(Debug)]
pub struct TextStream<'a> {
    tokenizer: &'a TextTokenizer,
    state: StreamState,
}

impl TextStream<'_> {
    /// Adds a token; returns the text that became complete, which may be none.
    ///
    /// # Errors
    /// As [`TextTokenizer::decode`].
    pub fn push(&mut self, id: u32) -> Result<String> {
        self.state.push(self.tokenizer, id)
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
}

impl StreamState {
    pub(crate) fn push(&mut self, tokenizer: &TextTokenizer, id: u32) -> Result<String> {
        self.ids.push(id);
        let before = tokenizer.decode(&self.ids[self.context..self.returned])?;
        let after = tokenizer.decode(&self.ids[self.context..])?;
        if after.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(String::new());
        }
        let Some(piece) = after.get(before.len()..).filter(|piece| !piece.is_empty()) else {
            return Ok(String::new());
        };
        self.context = self.returned;
        self.returned = self.ids.len();
        Ok(piece.to_string())
    }

    /// What was held back, without the bytes of an incomplete character.
    pub(crate) fn rest(&self, tokenizer: &TextTokenizer) -> Result<String> {
        let before = tokenizer.decode(&self.ids[self.context..self.returned])?;
        let after = tokenizer.decode(&self.ids[self.context..])?;
        let rest = after.get(before.len()..).unwrap_or_default();
        Ok(rest
            .trim_end_matches(char::REPLACEMENT_CHARACTER)
            .to_string())
    }
}
