//! Which token ids a prompt has: the chat template's frame, filled and tokenised as one text.
//!
//! Prompts of one model are always made here, for generation and for training alike, so that a
//! trained adapter sees at answering time what it saw at training time. What several prompts share
//! (system text, document) is a run of tokens that does not depend on what follows: where a
//! tokenizer would join the end of a part with what comes next, those tokens belong to the next part.

use std::sync::Arc;

use super::chat::{ChatOptions, ChatTemplate};
use super::completion;
use super::config::DecoderConfig;
use super::control_text::ControlText;
use super::frame::{Piece, ReplyFrame, Slot, document_at, fill};
use super::source::ModelFiles;
use super::thinking;
use super::tokenizer::TextTokenizer;
use crate::Result;

/// What a document could begin with, for finding the tokens before it that do not depend on it.
const ANY_DOCUMENT: &str = "A";
/// What every task begins with.
const ANY_TASK: &str = "\n\n";

/// A tokenizer together with its chat template.
#[derive(Debug)]
pub struct Prompter {
    tokenizer: TextTokenizer,
    template: ChatTemplate,
    /// None for a template that cannot write a conversation with a reply.
    reply: Option<ReplyFrame>,
    control_text: ControlText,
    stop: Vec<String>,
}

/// The shared part of prompts about one document.
#[derive(Debug, Clone)]
pub struct DocumentPrompt {
    /// Everything before the document: the same for all documents with this system text, but for
    /// one that begins with white space.
    pub head: Vec<u32>,
    /// The document, without what a tokenizer could join with a task.
    pub document: Vec<u32>,
    /// The rest of the document.
    held: Vec<u32>,
    /// Head and document as text.
    pieces: Arc<[Piece]>,
    /// What comes after the document, without the task.
    tail: Arc<[Slot]>,
}

impl Prompter {
    /// Reads a model's tokenizer and chat template.
    ///
    /// # Errors
    /// A missing or damaged file, by name.
    pub fn load(files: &ModelFiles, config: &DecoderConfig) -> Result<Self> {
        Self::load_with(files, config, &ChatOptions::default())
    }

    /// As [`Prompter::load`], with other choices than the default ones.
    ///
    /// # Errors
    /// As [`Prompter::load`].
    pub fn load_with(
        files: &ModelFiles,
        config: &DecoderConfig,
        options: &ChatOptions,
    ) -> Result<Self> {
        let mut tokenizer = TextTokenizer::load(files, config)?;
        let template = ChatTemplate::load(files, options)?;
        let reply = template.reply().ok();
        let mut stop = options.stop.clone();
        if template.completes() {
            stop.extend(completion::STOPS.map(String::from));
        } else if let Some(reply) = &reply
            && let Some(id) = tokenizer.first_control(&reply.after)?
        {
            // some models end a turn with a token that no list of theirs names
            tokenizer.add_eos(id);
        }
        let control_text = control_text(&tokenizer, &template, reply.as_ref())?;
        Ok(Self {
            tokenizer,
            template,
            reply,
            control_text,
            stop,
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

    /// Texts that end a reply, beside those of a request.
    pub fn stop(&self) -> &[String] {
        &self.stop
    }

    /// Whether a reply begins within thinking, because the prompt opens it.
    pub(crate) fn opens_thinking(&self) -> bool {
        let reply = self.reply.as_ref();
        reply.is_some_and(|reply| thinking::opened_by(&reply.prompt_end))
    }

    /// The start of a prompt about a document; [`Prompter::tail`] completes it.
    ///
    /// # Errors
    /// A template that cannot be used, or text that cannot be tokenised.
    pub fn document(&self, system: Option<&str>, document: &str) -> Result<DocumentPrompt> {
        let frame = self.template.frame(system.is_some(), 2)?;
        let (start, tail) = frame.split_at(frame.len().min(document_at(&frame) + 1));
        let document = self.control_text.break_in(document);
        let mut pieces = fill(start, system, &[&document]);
        let whole = self.prompt(&pieces)?;

        let next = match tail.first() {
            Some(Slot::Template(text)) => Piece::Template(text.clone()),
            _ => Piece::Template(ANY_TASK.to_string()),
        };
        pieces.push(next);
        let shared = common(&whole, &self.prompt(&pieces)?);
        pieces.pop();

        let last = pieces.pop();
        let alone = self.prompt(&pieces)?;
        pieces.push(Piece::Template(ANY_DOCUMENT.to_string()));
        let head = common(&alone, &self.prompt(&pieces)?);
        pieces.pop();
        pieces.extend(last);
        let head = common(&alone[..head], &whole[..shared]);
        Ok(DocumentPrompt {
            head: whole[..head].to_vec(),
            document: whole[head..shared].to_vec(),
            held: whole[shared..].to_vec(),
            pieces: pieces.into(),
            tail: tail.into(),
        })
    }

    /// The end of a prompt: the task, the template's end and the start of the reply.
    ///
    /// # Errors
    /// Text that cannot be tokenised.
    pub fn tail(&self, prompt: &DocumentPrompt, task: &str) -> Result<Vec<u32>> {
        let tail = fill(&prompt.tail, None, &["", task]);
        let pieces = [&prompt.pieces, &tail[..]].concat();
        let whole = self.prompt(&pieces)?;
        let shared = [&prompt.head[..], &prompt.document].concat();
        if let Some(rest) = whole.strip_prefix(&shared[..]) {
            return Ok(rest.to_vec());
        }
        // the task changes tokens before it, which are shared: it is tokenised by itself
        let mut ids = prompt.held.clone();
        ids.extend(self.tokenizer.encode(&tail, false)?);
        Ok(ids)
    }

    /// A whole prompt without a document.
    ///
    /// # Errors
    /// A template that cannot be used, or text that cannot be tokenised.
    pub fn question(&self, system: Option<&str>, question: &str) -> Result<Vec<u32>> {
        let frame = self.template.frame(system.is_some(), 1)?;
        let question = self.control_text.break_in(question);
        self.prompt(&fill(&frame, system, &[&question]))
    }

    /// A whole reply as a model should learn it: the text, with what the template writes around it,
    /// up to the token that ends it.
    ///
    /// # Errors
    /// Text that cannot be tokenised.
    pub fn reply(&self, text: &str) -> Result<Vec<u32>> {
        let eos = self.tokenizer.eos();
        let Some(frame) = &self.reply else {
            let mut ids = self.tokenizer.encode_text(text)?;
            ids.extend(eos.first());
            return Ok(ids);
        };
        let own = [
            Piece::Template(frame.before.clone()),
            Piece::Text(frame.stripped.apply(text).to_string()),
            Piece::Template(frame.after.clone()),
        ];
        let prompt_end = [Piece::Template(frame.prompt_end.clone())];
        let prompt = self.tokenizer.encode(&prompt_end, false)?;
        let after_prompt = |own: &[Piece]| {
            let whole = self
                .tokenizer
                .encode(&[&prompt_end[..], own].concat(), false)?;
            match whole.strip_prefix(&prompt[..]) {
                Some(ids) => Ok(ids.to_vec()),
                None => self.tokenizer.encode(own, false),
            }
        };
        let mut ids = after_prompt(&own)?;
        match ids.iter().position(|id| eos.contains(id)) {
            Some(at) => ids.truncate(at + 1),
            None => {
                ids = after_prompt(&own[..2])?;
                ids.extend(eos.first());
            }
        }
        Ok(ids)
    }

    /// The tokens of a prompt. Before a text that is to be completed comes the model's first token;
    /// a template writes it itself, or means none.
    fn prompt(&self, pieces: &[Piece]) -> Result<Vec<u32>> {
        let ids = self.tokenizer.encode(pieces, true)?;
        Ok(match self.template.completes() {
            true => self.tokenizer.with_bos(ids),
            false => ids,
        })
    }
}

/// How many tokens two texts begin with in common.
fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The strings that open a turn, by what the template writes around contents.
fn control_text(
    tokenizer: &TextTokenizer,
    template: &ChatTemplate,
    reply: Option<&ReplyFrame>,
) -> Result<ControlText> {
    if template.completes() {
        return Ok(ControlText::default()); // its words are those of documents
    }
    let mut texts: Vec<(String, bool)> = vec![];
    for frame in [template.frame(true, 1), template.frame(false, 1)] {
        let Ok(frame) = frame else {
            continue; // said when a prompt needs it
        };
        texts.extend(frame.iter().filter_map(|slot| match slot {
            Slot::Template(text) => Some((text.clone(), true)),
            _ => None,
        }));
    }
    texts.extend(reply.map(|reply| (reply.after.clone(), false)));
    let mut parts = vec![];
    for (text, before_content) in &texts {
        let plain = tokenizer.plain_parts(text)?;
        let last = plain.len().saturating_sub(1);
        let parts_of = plain.into_iter().enumerate();
        parts.extend(parts_of.map(|(i, part)| (part, *before_content && i == last)));
    }
    Ok(ControlText::new(parts))
}
