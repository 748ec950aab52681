//! Which token ids a prompt has: the chat template's frame, filled and tokenised piece by piece.
//!
//! Prompts of one model are always made here, for generation and for training alike, so that a
//! trained adapter sees at answering time what it saw at training time.

use std::sync::Arc;

use super::chat::{ChatTemplate, Piece, Slot, fill};
use super::config::DecoderConfig;
use super::source::ModelFiles;
use super::tokenizer::TextTokenizer;
use crate::Result;

/// A tokenizer together with its chat template.
#[derive(Debug)]
pub struct Prompter {
    tokenizer: TextTokenizer,
    template: ChatTemplate,
    reply_end: Vec<u32>,
}

/// The shared part of prompts about one document.
#[derive(Debug, Clone)]
pub struct DocumentPrompt {
    /// Everything before the document: the same for all documents with this system text.
    pub head: Vec<u32>,
    /// The document.
    pub document: Vec<u32>,
    /// What comes after the document, without the task.
    tail: Arc<Vec<Slot>>,
}

impl Prompter {
    /// Reads a model's tokenizer and chat template.
    ///
    /// # Errors
    /// A missing or damaged file, by name.
    pub fn load(files: &ModelFiles, config: &DecoderConfig) -> Result<Self> {
        let tokenizer = TextTokenizer::load(files, config)?;
        let template = ChatTemplate::load(files)?;
        let reply_end = reply_end(&tokenizer, &template)?;
        Ok(Self {
            tokenizer,
            template,
            reply_end,
        })
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    /// The chat template.
    pub fn template(&self) -> &ChatTemplate {
        &self.template
    }

    /// The start of a prompt about a document; [`Prompter::tail`] completes it.
    ///
    /// # Errors
    /// A template that cannot be used, or text that cannot be tokenised.
    pub fn document(&self, system: Option<&str>, document: &str) -> Result<DocumentPrompt> {
        let mut frame = self.template.frame(system.is_some(), 2)?;
        let cut = frame
            .iter()
            .position(|slot| *slot == Slot::Part(0))
            .unwrap_or(0);
        let tail = frame.split_off(cut).split_off(1);
        let head = self.encode(&fill(&frame, system, &[]))?;
        Ok(DocumentPrompt {
            head: self.tokenizer.with_bos(head),
            document: self.tokenizer.encode_text(document)?,
            tail: Arc::new(tail),
        })
    }

    /// The end of a prompt: the task, the template's end and the start of the reply.
    ///
    /// # Errors
    /// Text that cannot be tokenised.
    pub fn tail(&self, prompt: &DocumentPrompt, task: &str) -> Result<Vec<u32>> {
        self.encode(&fill(&prompt.tail, None, &["", task]))
    }

    /// A whole prompt without a document.
    ///
    /// # Errors
    /// A template that cannot be used, or text that cannot be tokenised.
    pub fn question(&self, system: Option<&str>, question: &str) -> Result<Vec<u32>> {
        let frame = self.template.frame(system.is_some(), 1)?;
        Ok(self
            .tokenizer
            .with_bos(self.encode(&fill(&frame, system, &[question]))?))
    }

    /// A whole reply as a model should learn it: the text and the token that ends it.
    ///
    /// # Errors
    /// Text that cannot be tokenised.
    pub fn reply(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = self.tokenizer.encode_text(text)?;
        ids.extend(&self.reply_end);
        Ok(ids)
    }

    /// Pieces without the spelling of a control token are encoded in one run, as transformers
    /// does; otherwise each piece on its own, so that text stays text.
    fn encode(&self, pieces: &[Piece]) -> Result<Vec<u32>> {
        let unsafe_text = |piece: &Piece| match piece {
            Piece::Template(_) => false,
            Piece::Text(text) => self.tokenizer.spells_control(text),
        };
        if !pieces.iter().any(unsafe_text) {
            let text: String = pieces
                .iter()
                .map(|piece| match piece {
                    Piece::Template(text) | Piece::Text(text) => text.as_str(),
                })
                .collect();
            return self.tokenizer.encode_template(&text);
        }
        let mut ids = Vec::new();
        for piece in pieces {
            ids.extend(match piece {
                Piece::Template(text) => self.tokenizer.encode_template(text)?,
                Piece::Text(text) => self.tokenizer.encode_text(text)?,
            });
        }
        Ok(ids)
    }
}

/// The template's text after a reply, up to the token that ends it; that token alone if the
/// template writes none.
fn reply_end(tokenizer: &TextTokenizer, template: &ChatTemplate) -> Result<Vec<u32>> {
    let after = template.after_reply().unwrap_or_default();
    let mut ids = tokenizer.encode_template(&after)?;
    match ids.iter().position(|id| tokenizer.eos().contains(id)) {
        Some(at) => ids.drain(at + 1..).count(),
        None => {
            ids = tokenizer.eos().first().copied().into_iter().collect();
            0
        }
    };
    Ok(ids)
}
