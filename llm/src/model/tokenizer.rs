//! How text becomes token ids (Hugging Face tokenizer.json).
//!
//! Text of documents and text of templates are encoded differently: a template's `<|end|>` is a
//! control token, the same letters in a document are letters. So no document can end its own
//! prompt or speak in another role.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use aho_corasick::AhoCorasick;
use serde_json::Value;
use tokenizers::{Encoding, Tokenizer};

use super::config::{DecoderConfig, token_ids};
use super::frame::Piece;
use super::source::{ModelFiles, json};
use super::thinking;
use super::tokenizer_file::{self, Tokenizers, guarded, token_text};
use crate::{Error, Result};

/// A model's tokenizer with its control tokens.
#[derive(Debug, Clone)]
pub struct TextTokenizer {
    template: Tokenizer,
    text: Tokenizer,
    /// As `text`, for text that does not begin a prompt; none where that is the same.
    inner: Option<Tokenizer>,
    controls: HashMap<u32, String>,
    /// Finds the spellings of control tokens.
    spellings: Option<AhoCorasick>,
    unknown: Option<u32>,
    byte_fallback: bool,
    /// Tokens without a text. The marks around thinking have theirs, whatever the file says.
    hidden: HashSet<u32>,
    /// Rows of the model's embedding.
    rows: usize,
    bos: Option<u32>,
    adds_bos: bool,
    eos: Vec<u32>,
}

/// What a token does to the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It is a byte of a character.
    Byte,
    /// It has no text.
    Hidden,
    /// It is text.
    Text,
}

impl TextTokenizer {
    /// Reads tokenizer.json, and the ids of control tokens from generation_config.json,
    /// config.json and tokenizer_config.json.
    ///
    /// # Errors
    /// A missing, damaged or hostile file, by name.
    pub fn load(files: &ModelFiles, config: &DecoderConfig) -> Result<Self> {
        let Tokenizers {
            template,
            text,
            inner,
            unknown,
            byte_fallback,
        } = tokenizer_file::read(files)?;
        let controls: HashMap<u32, String> = text
            .get_added_tokens_decoder()
            .into_iter()
            .filter(|(_, token)| token.special && !token.content.is_empty())
            .map(|(id, token)| (id, token.content))
            .collect();
        let spellings = AhoCorasick::new(controls.values()).ok();
        let is_mark = |text: &str| {
            thinking::MARKS
                .iter()
                .any(|(a, b)| text == *a || text == *b)
        };
        let hidden = template
            .get_added_tokens_decoder()
            .into_iter()
            .filter(|(_, token)| token.special && !is_mark(&token.content))
            .map(|(id, _)| id)
            .collect();

        let settings = match files.read("tokenizer_config.json")? {
            Some(content) => json(files, "tokenizer_config.json", &content)?,
            None => Value::Null,
        };
        let named = |key: &str| template.token_to_id(&token_text(&settings, key)?);
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
        let mut tokenizer = Self {
            template,
            text,
            inner,
            spellings: spellings.filter(|_| !controls.is_empty()),
            controls,
            unknown,
            byte_fallback,
            hidden,
            rows: config.vocab_size,
            bos,
            adds_bos: false,
            eos,
        };
        let first = tokenizer.run(&tokenizer.template, "a", true)?;
        let first = first.get_ids().first().copied();
        tokenizer.adds_bos = bos.is_some() && first == bos;
        Ok(tokenizer)
    }

    /// Token ids of text that belongs to a template: control tokens are parsed. Adds no token.
    ///
    /// # Errors
    /// Text that the tokenizer cannot encode.
    pub fn encode_template(&self, text: &str) -> Result<Vec<u32>> {
        self.ids(&self.template, text)
    }

    /// Token ids of text from outside: control tokens in it are letters. Adds no token.
    ///
    /// # Errors
    /// Text that the tokenizer cannot encode.
    pub fn encode_text(&self, text: &str) -> Result<Vec<u32>> {
        self.letters(text, true)
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
        let shown: Vec<u32> = ids
            .iter()
            .filter(|id| !self.hidden.contains(id))
            .copied()
            .collect();
        let decoded = guarded(|| self.template.decode(&shown, false));
        let failed = || Error::internal("token ids could not be decoded to text");
        match decoded {
            Ok(Ok(text)) => Ok(text),
            Ok(Err(e)) => Err(failed().with_source(e)),
            Err(what) => Err(failed().with_source(what)),
        }
    }

    /// What a token does to the text of a sequence.
    pub(super) fn role(&self, id: u32) -> Role {
        if self.hidden.contains(&id) {
            return Role::Hidden;
        }
        let is_byte = |token: &str| {
            let digits = token
                .strip_prefix("<0x")
                .and_then(|rest| rest.strip_suffix('>'));
            digits.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
        };
        match self.template.id_to_token(id) {
            None => Role::Hidden,
            Some(token) if self.byte_fallback && is_byte(&token) => Role::Byte,
            Some(_) => Role::Text,
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

    /// Adds a token that ends a reply.
    pub(super) fn add_eos(&mut self, id: u32) {
        if !self.eos.contains(&id) {
            self.eos.push(id);
        }
    }

    /// The first control token that a template's text has, if any.
    pub(super) fn first_control(&self, text: &str) -> Result<Option<u32>> {
        let ids = self.encode_template(text)?;
        Ok(ids.into_iter().find(|id| self.controls.contains_key(id)))
    }

    /// What a template's text has beside control tokens, in order.
    pub(super) fn plain_parts<'a>(&self, text: &'a str) -> Result<Vec<&'a str>> {
        let parts = self.split_at_controls(text)?;
        Ok(parts.into_iter().filter_map(Result::ok).collect())
    }

    /// The token ids of a text in pieces, as of the whole text; `begins` says that it is the start
    /// of a prompt. Control tokens that a piece from outside spells are letters.
    pub(super) fn encode(&self, pieces: &[Piece], begins: bool) -> Result<Vec<u32>> {
        if begins || self.inner.is_none() {
            let mut text = String::new();
            let mut outside = vec![];
            for piece in pieces {
                let start = text.len();
                match piece {
                    Piece::Template(template) => text.push_str(template),
                    Piece::Text(own) => {
                        text.push_str(own);
                        outside.push(start..text.len());
                    }
                }
            }
            if !self.spells_control(&text, &outside) {
                return self.ids(&self.template, &text);
            }
        }
        let mut ids = vec![];
        let mut letters = String::new();
        let mut begins = begins;
        let mut flush = |letters: &mut String, ids: &mut Vec<u32>, control: Option<u32>| {
            if !letters.is_empty() {
                ids.extend(self.letters(letters, begins)?);
                letters.clear();
            }
            begins &= ids.is_empty() && control.is_none();
            ids.extend(control);
            Ok::<(), Error>(())
        };
        for piece in pieces {
            match piece {
                Piece::Text(text) => letters.push_str(text),
                Piece::Template(text) => {
                    for part in self.split_at_controls(text)? {
                        match part {
                            Ok(text) => letters.push_str(text),
                            Err(control) => flush(&mut letters, &mut ids, Some(control))?,
                        }
                    }
                }
            }
        }
        flush(&mut letters, &mut ids, None)?;
        Ok(ids)
    }

    /// Puts the model's first token before a text, if the tokenizer would.
    pub(super) fn with_bos(&self, mut ids: Vec<u32>) -> Vec<u32> {
        if let Some(bos) = self
            .bos
            .filter(|bos| self.adds_bos && ids.first() != Some(bos))
        {
            ids.insert(0, bos);
        }
        ids
    }

    /// Whether the spelling of a control token lies in or across one of the ranges.
    fn spells_control(&self, text: &str, outside: &[Range<usize>]) -> bool {
        let Some(spellings) = &self.spellings else {
            return false;
        };
        let longest = self.controls.values().map(String::len).max().unwrap_or(0);
        outside.iter().any(|range| {
            let around = |at: usize, by: isize| text.len().min(at.saturating_add_signed(by));
            let start = text.floor_char_boundary(around(range.start, 1 - longest as isize));
            let end = text.ceil_char_boundary(around(range.end, longest as isize - 1));
            spellings
                .find_overlapping_iter(&text[start..end])
                .any(|found| start + found.end() > range.start && start + found.start() < range.end)
        })
    }

    /// A template's text cut at its control tokens: texts, and ids as errors.
    fn split_at_controls<'a>(&self, text: &'a str) -> Result<Vec<Result<&'a str, u32>>> {
        let encoding = self.run(&self.template, text, false)?;
        let mut parts = vec![];
        let mut done = 0;
        for (id, (start, end)) in encoding.get_ids().iter().zip(encoding.get_offsets()) {
            if !self.controls.contains_key(id) || *end <= done {
                continue;
            }
            let before = text.get(done..*start).unwrap_or_default();
            if !before.is_empty() {
                parts.push(Ok(before));
            }
            parts.push(Err(*id));
            done = *end;
        }
        let rest = text.get(done..).unwrap_or_default();
        if !rest.is_empty() {
            parts.push(Ok(rest));
        }
        Ok(parts)
    }

    /// Token ids of a text without control tokens. Where the vocabulary also holds one as an
    /// ordinary piece, the text is cut within it, so that its letters stay letters.
    fn letters(&self, text: &str, begins: bool) -> Result<Vec<u32>> {
        let is_control = |id: &u32| self.controls.contains_key(id) && Some(*id) != self.unknown;
        let inner = self.inner.as_ref().unwrap_or(&self.text);
        let mut out = vec![];
        let mut waiting: Vec<_> = std::iter::once(0..text.len()).collect();
        while let Some(range) = waiting.pop() {
            let part = &text[range.clone()];
            let tokenizer = if begins && range.start == 0 {
                &self.text
            } else {
                inner
            };
            let mut ids = self.ids(tokenizer, part)?;
            if ids.iter().any(is_control) {
                let encoding = self.run(tokenizer, part, false)?;
                let found = encoding.get_ids().iter().zip(encoding.get_offsets());
                let (_, (start, end)) = found
                    .into_iter()
                    .find(|(id, _)| is_control(id))
                    .unwrap_or((&0, &(0, 0)));
                let letter = part.get(*start..).and_then(|rest| rest.chars().next());
                let cut = start + letter.map_or(0, char::len_utf8);
                if *start < cut && cut < *end && *end <= part.len() {
                    waiting.push(range.start + cut..range.end);
                    waiting.push(range.start..range.start + cut);
                    continue;
                }
                // a control token of one letter: nothing in the vocabulary stands for that letter
                ids.retain(|id| !is_control(id));
                ids.extend(self.unknown);
            }
            out.extend(ids);
        }
        Ok(out)
    }

    fn ids(&self, tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
        let encoded = guarded(|| tokenizer.encode_fast(text, false));
        let ids = self.encoded(text, encoded)?.get_ids().to_vec();
        match ids.iter().find(|id| **id as usize >= self.rows) {
            None => Ok(ids),
            Some(id) => Err(Error::corrupt(format!(
                "the tokenizer gives token {id} (\"{}\"), and the model has rows for {} tokens; \
                 tokenizer.json and config.json are of different models, fetch both again",
                tokenizer.id_to_token(*id).unwrap_or_default(),
                self.rows
            ))),
        }
    }

    fn run(&self, tokenizer: &Tokenizer, text: &str, special: bool) -> Result<Encoding> {
        self.encoded(text, guarded(|| tokenizer.encode(text, special)))
    }

    fn encoded(
        &self,
        text: &str,
        encoded: Result<tokenizers::Result<Encoding>, String>,
    ) -> Result<Encoding> {
        let failed = || {
            Error::internal(format!(
                "text of {} bytes could not be tokenised",
                text.len()
            ))
        };
        match encoded {
            Ok(Ok(encoding)) => Ok(encoding),
            Ok(Err(e)) => Err(failed().with_source(e)),
            Err(what) => Err(failed().with_source(what)),
        }
    }
}
