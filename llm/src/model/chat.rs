//! How a model's chat template frames system text, document and task.
//!
//! The template (chat_template.jinja, or `chat_template` in tokenizer_config.json) is rendered
//! once with placeholders and cut at them. So the part before the document is byte-identical for
//! all documents, and no text from outside ever passes through the template language. A model
//! without a template gets the frame of [`super::completion`].

use std::sync::{Arc, OnceLock};

use chrono::NaiveDate;
use serde_json::Value;

use super::completion;
use super::frame::{Piece, PromptParts, ReplyFrame, Slot, Strip, Stripped, document_at, fill};
use super::jinja::{Renderer, message, message_in_parts};
use super::source::{ModelFiles, json as read_json};
use super::thinking;
use crate::{Error, Result};

const SYSTEM: &str = "@@casebook-system@@";
const ANSWER: &str = "@@casebook-answer@@";
const PARTS: [&str; 2] = ["@@casebook-part-0@@", "@@casebook-part-1@@"];
/// Stand around contents, to see what a template strips of them: a blank that no template writes
/// itself, and more newlines than one writes.
const BLANK: &str = "\u{2003}";
const BEFORE: &str = "\n\n\n\n\n\n\n\u{2003}";
const AFTER: &str = "\u{2003}\n\n\n\n\n\n\n";

/// What templates that ask for the date are told unless [`ChatOptions`] says another: the date that
/// Llama 3's template falls back on. A prompt must not change from day to day.
const PROMPT_DATE: NaiveDate = match NaiveDate::from_ymd_opt(2024, 7, 26) {
    Some(date) => date,
    None => NaiveDate::MIN,
};

/// What can be chosen about a model's prompts and replies. All of it is part of the model's identity.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct ChatOptions {
    /// The date that a template's `strftime_now` says; `None` is 2024-07-26.
    pub prompt_date: Option<NaiveDate>,
    /// Lets a model think that can do so or not (`enable_thinking` of its template).
    pub enable_thinking: bool,
    /// Texts that end a reply, beside the tokens that do.
    pub stop: Vec<String>,
}

impl ChatOptions {
    /// Reads a date as `[models]` spells it.
    ///
    /// # Errors
    /// What is no date in the form `YYYY-MM-DD`.
    pub fn date(text: &str) -> Result<NaiveDate> {
        text.parse().map_err(|_| {
            Error::invalid_input(format!(
                "prompt_date \"{text}\" is no date; write it as 2024-07-26"
            ))
        })
    }

    /// The identity of a model whose files have this `digest`: the same with the defaults.
    pub fn identity(&self, digest: &str) -> String {
        let date = self.prompt_date.filter(|date| *date != PROMPT_DATE);
        if date.is_none() && !self.enable_thinking && self.stop.is_empty() {
            return digest.to_string();
        }
        let mut hasher = blake3::Hasher::new();
        let date = date.map_or_else(String::new, |date| date.to_string());
        let thinking = if self.enable_thinking { "thinking" } else { "" };
        for part in [digest, &date, thinking]
            .into_iter()
            .chain(self.stop.iter().map(String::as_str))
        {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.finalize().to_hex()[..32].to_string()
    }
}

/// A compiled chat template, or the frame of a model that has none.
#[derive(Debug)]
pub struct ChatTemplate {
    /// `None` is the completion frame.
    renderer: Option<Renderer>,
    /// Where the template is from, for messages.
    origin: String,
    /// Frames that were asked for, by system text and number of parts.
    frames: [OnceLock<Arc<[Slot]>>; 4],
}

impl ChatTemplate {
    /// Reads a model's template; a model without one gets the completion frame.
    ///
    /// # Errors
    /// A template that is damaged, by file.
    pub fn load(files: &ModelFiles, options: &ChatOptions) -> Result<Self> {
        let settings = match files.read("tokenizer_config.json")? {
            Some(content) => read_json(files, "tokenizer_config.json", &content)?,
            None => Value::Null,
        };
        if let Some(content) = files.read("chat_template.jinja")? {
            let origin = files.describe("chat_template.jinja");
            let source = String::from_utf8(content.to_vec()).map_err(|e| {
                Error::corrupt(format!("{origin} is not UTF-8; fetch it again")).with_source(e)
            })?;
            return Self::new(&origin, &source, &settings, options);
        }
        let origin = files.describe("tokenizer_config.json");
        let source = match settings.get("chat_template") {
            Some(Value::String(source)) => Some(source.as_str()),
            Some(Value::Array(named)) => default_of(named),
            _ => None,
        };
        match source {
            Some(source) => Self::new(&origin, source, &settings, options),
            None => Ok(Self::with(None, &origin)),
        }
    }

    /// Compiles a template; `settings` is tokenizer_config.json, for the spelling of its tokens.
    ///
    /// # Errors
    /// A template with a syntax error.
    pub fn new(
        origin: &str,
        source: &str,
        settings: &Value,
        options: &ChatOptions,
    ) -> Result<Self> {
        let date = options.prompt_date.unwrap_or(PROMPT_DATE);
        let renderer = Renderer::new(source, settings, date, options.enable_thinking);
        let renderer = renderer.map_err(|e| {
            Error::corrupt(format!(
                "{origin}: the chat template does not compile ({e})"
            ))
            .with_source(e)
        })?;
        Ok(Self::with(Some(renderer), origin))
    }

    fn with(renderer: Option<Renderer>, origin: &str) -> Self {
        Self {
            renderer,
            origin: origin.to_string(),
            frames: Default::default(),
        }
    }

    /// Whether the model has no template, so that its prompts are texts to be completed.
    pub fn completes(&self) -> bool {
        self.renderer.is_none()
    }

    /// The prompt of a conversation with a document: system text, then one message of the user
    /// that is the document followed by the task.
    ///
    /// # Errors
    /// As [`ChatTemplate::frame`].
    pub fn split(&self, system: Option<&str>, document: &str, task: &str) -> Result<PromptParts> {
        let frame = self.frame(system.is_some(), 2)?;
        let at = document_at(&frame);
        let pieces = fill(&frame, system, &[document, task]);
        let (document, tail) = pieces[at..]
            .split_first()
            .map_or((None, &[][..]), |(d, t)| (Some(d), t));
        Ok(PromptParts {
            head: pieces[..at].to_vec(),
            document: match document {
                Some(Piece::Template(text) | Piece::Text(text)) => text.clone(),
                None => String::new(),
            },
            tail: tail.to_vec(),
        })
    }

    /// The template cut at its slots: the system text, if there is one, comes before the `parts`
    /// (one or two) of the user's message, which are adjacent; the end is the start of the reply.
    /// A template without a system role gets the system text at the start of the user's message.
    ///
    /// # Errors
    /// `Unsupported` for a template that fails, repeats its input or changes its order.
    pub fn frame(&self, with_system: bool, parts: usize) -> Result<Arc<[Slot]>> {
        let parts = parts.clamp(1, 2);
        let known = &self.frames[usize::from(with_system) + 2 * (parts - 1)];
        if let Some(frame) = known.get() {
            return Ok(Arc::clone(frame));
        }
        let frame = match &self.renderer {
            Some(renderer) => self.rendered(renderer, with_system, parts)?,
            None => completion::frame(with_system, parts),
        };
        Ok(Arc::clone(known.get_or_init(|| frame.into())))
    }

    fn rendered(&self, renderer: &Renderer, with_system: bool, parts: usize) -> Result<Vec<Slot>> {
        let user = PARTS[..parts].concat();
        let own = format!("{BEFORE}{user}{AFTER}");
        let mut first = None;
        for message in [message, message_in_parts] {
            let cut = |messages, merged| {
                let text = renderer.render(messages, true).map_err(|e| self.fails(e))?;
                self.cut(&text, with_system, merged, parts)
            };
            let found = if with_system {
                let system = message("system", &format!("{BEFORE}{SYSTEM}{AFTER}"));
                let merged = format!("{BEFORE}{SYSTEM}\n\n{user}{AFTER}");
                cut(vec![system, message("user", &own)], false)
                    .or_else(|_| cut(vec![message("user", &merged)], true))
            } else {
                cut(vec![message("user", &own)], false)
            };
            match found {
                Ok(frame) => return Ok(frame),
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first.unwrap_or_else(|| self.unusable("writes nothing")))
    }

    /// What the template writes around a reply.
    ///
    /// # Errors
    /// `Unsupported` for a template that fails or leaves the reply out.
    pub fn reply(&self) -> Result<ReplyFrame> {
        let Some(renderer) = &self.renderer else {
            return Ok(completion::reply());
        };
        let mut first = None;
        for message in [message, message_in_parts] {
            match self.reply_of(renderer, message) {
                Ok(frame) => return Ok(frame),
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first.unwrap_or_else(|| self.unusable("writes nothing")))
    }

    fn reply_of(
        &self,
        renderer: &Renderer,
        message: fn(&str, &str) -> minijinja::Value,
    ) -> Result<ReplyFrame> {
        let user = message("user", PARTS[0]);
        let answer = message("assistant", &format!("{BEFORE}{ANSWER}{AFTER}"));
        let prompt = renderer.render(vec![user.clone()], true);
        let prompt = prompt.map_err(|e| self.fails(e))?;
        let whole = renderer.render(vec![user, answer], false);
        let whole = whole.map_err(|e| self.fails(e))?;
        let Some((start, end)) = whole.rsplit_once(ANSWER) else {
            return Err(self.unusable("leaves out the assistant's reply"));
        };
        let (start, stripped_start) = without_before(start);
        let (after, stripped_end) = without_after(end);
        let before = match start.strip_prefix(prompt.as_str()) {
            Some(before) => before,
            // the prompt makes the model think first: a reply that does not closes that at once
            None if thinking::opened_by(&prompt) => "\n</think>\n\n",
            None => "",
        };
        let prompt_end = prompt.rsplit_once(PARTS[0]).map_or("", |(_, end)| end);
        Ok(ReplyFrame {
            prompt_end: prompt_end.to_string(),
            before: before.to_string(),
            stripped: Stripped {
                start: stripped_start,
                end: stripped_end,
            },
            after: after.to_string(),
        })
    }

    /// `merged` is true where system text and user's message are one content.
    fn cut(&self, text: &str, system: bool, merged: bool, parts: usize) -> Result<Vec<Slot>> {
        let marks = [SYSTEM].into_iter().filter(|_| system);
        let mut slots = Vec::new();
        let mut rest = text;
        for mark in marks.chain(PARTS.into_iter().take(parts)) {
            if text.matches(mark).count() != 1 {
                return Err(self.unusable("does not contain each message exactly once"));
            }
            let Some((mut before, mut after)) = rest.split_once(mark) else {
                return Err(self.unusable("changes the order of the messages"));
            };
            let mut stripped = Stripped::default();
            if mark == SYSTEM || (mark == PARTS[0] && !merged) {
                (before, stripped.start) = without_before(before);
            }
            if mark == PARTS[parts - 1] || (mark == SYSTEM && !merged) {
                (after, stripped.end) = without_after(after);
            }
            if mark == PARTS[1] && !before.is_empty() {
                return Err(self.unusable("writes into the user's message"));
            }
            if !before.is_empty() {
                slots.push(Slot::Template(before.to_string()));
            }
            slots.push(match mark {
                SYSTEM => Slot::System(stripped),
                mark => Slot::Part(usize::from(mark == PARTS[1]), stripped),
            });
            rest = after;
        }
        if !rest.is_empty() {
            slots.push(Slot::Template(rest.to_string()));
        }
        Ok(slots)
    }

    fn fails(&self, source: minijinja::Error) -> Error {
        Error::unsupported(format!(
            "{}: the chat template fails ({source}); give the model a chat_template.jinja that \
             accepts a user message",
            self.origin
        ))
        .with_source(source)
    }

    fn unusable(&self, what: &str) -> Error {
        Error::unsupported(format!(
            "{}: the chat template {what}; give the model a chat_template.jinja that writes the \
             system text and then the user's message, once each",
            self.origin
        ))
    }
}

/// What is before a content without the blank before it, and what the template stripped of that.
fn without_before(text: &str) -> (&str, Strip) {
    match (text.strip_suffix(BEFORE), text.strip_suffix(BLANK)) {
        (Some(text), _) => (text, Strip::Nothing),
        (None, Some(text)) => (text, Strip::Newlines),
        (None, None) => (text, Strip::Space),
    }
}

/// As [`without_before`], on the other side.
fn without_after(text: &str) -> (&str, Strip) {
    match (text.strip_prefix(AFTER), text.strip_prefix(BLANK)) {
        (Some(text), _) => (text, Strip::Nothing),
        (None, Some(text)) => (text, Strip::Newlines),
        (None, None) => (text, Strip::Space),
    }
}

/// Some models list several templates by name; `default` is the one for plain conversations.
fn default_of(named: &[Value]) -> Option<&str> {
    let default = named
        .iter()
        .find(|e| e.get("name").and_then(Value::as_str) == Some("default"));
    default.or(named.first())?.get("template")?.as_str()
}
