//! How a model's chat template frames system text, document and task.
//!
//! The template (chat_template.jinja, or `chat_template` in tokenizer_config.json) is rendered
//! once with placeholders and cut at them. So the part before the document is byte-identical for
//! all documents, and no text from outside ever passes through the template language.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind as JinjaKind, Value as JinjaValue};
use serde_json::{Value, json};

use super::source::{ModelFiles, json as read_json};
use super::tokenizer::token_text;
use crate::{Error, Result};

/// For models without a template: the texts, each followed by an empty line.
const PLAIN: &str = "{% for m in messages %}{{ m.content }}\n\n{% endfor %}";

const SYSTEM: &str = "@@casebook-system@@";
const ANSWER: &str = "@@casebook-answer@@";
const PARTS: [&str; 2] = ["@@casebook-part-0@@", "@@casebook-part-1@@"];

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// Where the template is from, for messages.
    origin: String,
    tokens: Value,
}

/// A prompt cut into what the template wrote and where text goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Slot {
    /// Text of the template; control tokens in it count.
    Template(String),
    /// The system text goes here.
    System,
    /// Part `i` of the user's message goes here.
    Part(usize),
}

/// A prompt with a document in three parts that are tokenised separately.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptParts {
    /// Everything before the document: the same for all documents.
    pub head: Vec<Piece>,
    /// The document.
    pub document: String,
    /// The task, the template's end and the start of the reply.
    pub tail: Vec<Piece>,
}

/// Text with its origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// From the template; control tokens in it count.
    Template(String),
    /// From outside; control tokens in it are letters.
    Text(String),
}

impl ChatTemplate {
    /// Reads a model's template; a model without one gets a plain layout: system text, document
    /// and task, each followed by an empty line.
    ///
    /// # Errors
    /// A template that is damaged, by file.
    pub fn load(files: &ModelFiles) -> Result<Self> {
        let settings = match files.read("tokenizer_config.json")? {
            Some(content) => read_json(files, "tokenizer_config.json", &content)?,
            None => Value::Null,
        };
        let (origin, source) = if let Some(content) = files.read("chat_template.jinja")? {
            let origin = files.describe("chat_template.jinja");
            let source = String::from_utf8(content.to_vec()).map_err(|e| {
                Error::corrupt(format!("{origin} is not UTF-8; fetch it again")).with_source(e)
            })?;
            (origin, source)
        } else {
            let source = match settings.get("chat_template") {
                Some(Value::String(source)) => source.clone(),
                Some(Value::Array(named)) => default_of(named),
                _ => PLAIN.to_string(),
            };
            (files.describe("tokenizer_config.json"), source)
        };
        Self::new(&origin, &source, &settings)
    }

    /// Compiles a template; `settings` is tokenizer_config.json, for the spelling of its tokens.
    ///
    /// # Errors
    /// A template with a syntax error.
    pub fn new(origin: &str, source: &str, settings: &Value) -> Result<Self> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build();
        environment.set_syntax(
            syntax.map_err(|e| {
                Error::internal("the template syntax could not be set").with_source(e)
            })?,
        );
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| {
            Err::<JinjaValue, _>(minijinja::Error::new(JinjaKind::InvalidOperation, message))
        });
        environment.add_filter("tojson", to_json);
        // strftime_now stays undefined: templates that ask for the date then use their fixed one,
        // because a prompt must not change from day to day
        environment
            .add_template_owned("chat", without_generation_blocks(source))
            .map_err(|e| {
                Error::corrupt(format!(
                    "{origin}: the chat template does not compile ({e})"
                ))
                .with_source(e)
            })?;
        let token = |key: &str| token_text(settings, key).unwrap_or_default();
        let tokens = json!({
            "bos_token": token("bos_token"), "eos_token": token("eos_token"),
            "unk_token": token("unk_token"), "pad_token": token("pad_token"),
        });
        Ok(Self {
            environment,
            origin: origin.to_string(),
            tokens,
        })
    }

    /// The prompt of a conversation with a document: system text, then one message of the user
    /// that is the document followed by the task.
    ///
    /// # Errors
    /// As [`ChatTemplate::frame`].
    pub fn split(&self, system: Option<&str>, document: &str, task: &str) -> Result<PromptParts> {
        let frame = self.frame(system.is_some(), 2)?;
        let cut = frame
            .iter()
            .position(|slot| *slot == Slot::Part(0))
            .unwrap_or(0);
        let fill = |slots: &[Slot]| fill(slots, system, &[document, task]);
        Ok(PromptParts {
            head: fill(&frame[..cut]),
            document: document.to_string(),
            tail: fill(&frame[cut + 1..]),
        })
    }

    /// The template cut at its slots: the system text, if there is one, comes before the `parts`
    /// (one or two) of the user's message, which are adjacent; the end is the start of the reply.
    /// A template without a system role gets the system text at the start of the user's message.
    ///
    /// # Errors
    /// `Unsupported` for a template that fails, repeats its input or changes its order.
    pub fn frame(&self, with_system: bool, parts: usize) -> Result<Vec<Slot>> {
        let user = PARTS[..parts.min(2)].concat();
        let user_message = json!({"role": "user", "content": user});
        if !with_system {
            let text = self
                .render(json!([user_message]), true)
                .map_err(|e| self.fails(e))?;
            return self.cut(&text, with_system, parts);
        }
        let system = json!({"role": "system", "content": SYSTEM});
        if let Ok(text) = self.render(json!([system, user_message]), true)
            && let Ok(frame) = self.cut(&text, with_system, parts)
        {
            return Ok(frame);
        }
        let merged = json!([{"role": "user", "content": format!("{SYSTEM}\n\n{user}")}]);
        let text = self.render(merged, true).map_err(|e| self.fails(e))?;
        self.cut(&text, with_system, parts)
    }

    /// What the template writes after a reply: usually the token that ends it.
    ///
    /// # Errors
    /// `Unsupported` for a template that fails or leaves the reply out.
    pub fn after_reply(&self) -> Result<String> {
        let messages = json!([
            {"role": "user", "content": PARTS[0]}, {"role": "assistant", "content": ANSWER}
        ]);
        let text = self.render(messages, false).map_err(|e| self.fails(e))?;
        match text.rsplit_once(ANSWER) {
            Some((_, after)) => Ok(after.to_string()),
            None => Err(self.unusable("leaves out the assistant's reply")),
        }
    }

    fn render(&self, messages: Value, reply: bool) -> Result<String, minijinja::Error> {
        let mut context = self.tokens.clone();
        context["messages"] = messages;
        context["add_generation_prompt"] = Value::Bool(reply);
        context["tools"] = Value::Null;
        context["documents"] = Value::Null;
        self.environment
            .get_template("chat")?
            .render(JinjaValue::from(Serde(&context)))
    }

    fn cut(&self, text: &str, with_system: bool, parts: usize) -> Result<Vec<Slot>> {
        let mut marks: Vec<(&str, Slot)> = Vec::new();
        if with_system {
            marks.push((SYSTEM, Slot::System));
        }
        marks.extend((0..parts.min(2)).map(|i| (PARTS[i], Slot::Part(i))));
        let mut slots = Vec::new();
        let mut rest = text;
        for (mark, slot) in marks {
            if text.matches(mark).count() != 1 {
                return Err(self.unusable("does not contain each message exactly once"));
            }
            let Some((before, after)) = rest.split_once(mark) else {
                return Err(self.unusable("changes the order of the messages"));
            };
            match slot {
                Slot::Part(1) if !before.is_empty() => {
                    return Err(self.unusable("writes into the user's message"));
                }
                _ if !before.is_empty() => slots.push(Slot::Template(before.to_string())),
                _ => {}
            }
            slots.push(slot);
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

/// Puts text into slots.
pub(crate) fn fill(slots: &[Slot], system: Option<&str>, parts: &[&str]) -> Vec<Piece> {
    let piece = |slot: &Slot| match slot {
        Slot::Template(text) => Piece::Template(text.clone()),
        Slot::System => Piece::Text(system.unwrap_or_default().to_string()),
        Slot::Part(i) => Piece::Text(parts.get(*i).copied().unwrap_or_default().to_string()),
    };
    slots.iter().map(piece).collect()
}

/// Some models list several templates by name; `default` is the one for plain conversations.
fn default_of(named: &[Value]) -> String {
    let source = |entry: &Value| Some(entry.get("template")?.as_str()?.to_string());
    let default = named
        .iter()
        .find(|e| e.get("name").and_then(Value::as_str) == Some("default"));
    default
        .or(named.first())
        .and_then(source)
        .unwrap_or_else(|| PLAIN.to_string())
}

/// transformers' `{% generation %}` marks what a reply is; it prints nothing. A block that always
/// holds takes its place, so that whitespace control keeps its meaning.
fn without_generation_blocks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let Some(end) = tag.find("%}") else {
            rest = tag;
            break;
        };
        let (tag, after) = tag.split_at(end + 2);
        match tag[2..end].trim_matches(['-', '+', ' ', '\t', '\n']) {
            "generation" => out.push_str(&tag.replacen("generation", "if true", 1)),
            "endgeneration" => out.push_str(&tag.replacen("endgeneration", "endif", 1)),
            _ => out.push_str(tag),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Python's `json.dumps(value, ensure_ascii=False)`: minijinja's own filter escapes for HTML.
fn to_json(
    value: &JinjaValue,
    options: minijinja::value::Kwargs,
) -> Result<JinjaValue, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    let bad = |e: serde_json::Error| {
        minijinja::Error::new(JinjaKind::BadSerialization, "tojson failed").with_source(e)
    };
    let text = match indent {
        None => serde_json::to_string(value).map_err(bad)?,
        Some(_) => serde_json::to_string_pretty(value).map_err(bad)?,
    };
    Ok(JinjaValue::from_safe_string(text))
}
