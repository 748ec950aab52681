//! What of a tokenizer.json is taken as it is, changed, or refused, before anything is built of it.
//!
//! The file comes from outside. Merges are not left to chance (BPE dropout), nothing is padded or
//! cut, and a text does not grow without bound on its way to tokens.

use serde_json::Value;
use tokenizers::Tokenizer;

use super::source::{ModelFiles, json};
use crate::{Error, Result};

const FILE: &str = "tokenizer.json";
/// The largest published ones have 35 MB.
const MOST_BYTES: usize = 256 << 20;
/// How much longer replacements may make a text in all: a blank becomes three bytes.
const MOST_GROWTH: usize = 64;
/// Steps of a normalizer, pre-tokenizer or decoder within each other.
const MOST_DEPTH: usize = 16;

/// The tokenizers that one file gives.
pub(super) struct Tokenizers {
    /// Parses control tokens.
    pub(super) template: Tokenizer,
    /// Takes control tokens as letters.
    pub(super) text: Tokenizer,
    /// As `text`, for text within a prompt, where it makes a difference.
    pub(super) inner: Option<Tokenizer>,
    /// The token for what the vocabulary lacks.
    pub(super) unknown: Option<u32>,
    /// Tokens such as `<0x0A>` become bytes.
    pub(super) byte_fallback: bool,
}

/// Reads tokenizer.json.
///
/// # Errors
/// A file that is missing, damaged or hostile, by name.
pub(super) fn read(files: &ModelFiles) -> Result<Tokenizers> {
    let content = files.require(FILE)?;
    let name = files.describe(FILE);
    if content.len() > MOST_BYTES {
        return Err(Error::unsupported(format!(
            "{name} has more than {MOST_BYTES} bytes; is it the tokenizer of this model?"
        )));
    }
    let mut value = json(files, FILE, &content)?;
    refuse_growth(&name, &value)?;
    for key in ["padding", "truncation"] {
        value[key] = Value::Null;
    }
    if let Some(dropout) = value.pointer_mut("/model/dropout") {
        *dropout = Value::Null; // with it, the same text has other tokens each time
    }
    let template = build(&name, value.clone())?;
    mark_controls(&mut value);
    let mut text = build(&name, value.clone())?;
    text.set_encode_special_tokens(true);
    let inner = match starts_plain(&mut value["pre_tokenizer"], 0) {
        true => {
            let mut inner = build(&name, value.clone())?;
            inner.set_encode_special_tokens(true);
            Some(inner)
        }
        false => None,
    };
    let unknown = match (
        value.pointer("/model/unk_token"),
        value.pointer("/model/unk_id"),
    ) {
        (Some(Value::String(token)), _) => template.token_to_id(token),
        (_, Some(id)) => id.as_u64().and_then(|id| u32::try_from(id).ok()),
        _ => None,
    };
    Ok(Tokenizers {
        template,
        text,
        inner,
        unknown,
        byte_fallback: any(&value["decoder"], 0, &|step| is(step, "ByteFallback")),
    })
}

/// A tokenizer of the file's content. What the library does not survive is the file's fault.
fn build(name: &str, value: Value) -> Result<Tokenizer> {
    let damaged = |what: &str| {
        Error::corrupt(format!(
            "{name} is not a tokenizer ({what}); fetch the file again"
        ))
    };
    let built = guarded(|| serde_json::from_value::<Tokenizer>(value));
    match built {
        Ok(Ok(tokenizer)) => Ok(tokenizer),
        Ok(Err(e)) => Err(damaged(&e.to_string()).with_source(e)),
        Err(what) => Err(damaged(&what)),
    }
}

/// Runs the tokenizer library, whose panics become what they said.
pub(super) fn guarded<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_string());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        text.unwrap_or_else(|| "the tokenizer library failed without a message".to_string())
    })
}

fn is(step: &Value, kind: &str) -> bool {
    step.get("type").and_then(Value::as_str) == Some(kind)
}

/// The steps within a step: a sequence calls them by one of three names.
fn inside(step: &Value) -> impl Iterator<Item = &Value> {
    let lists = ["normalizers", "pretokenizers", "decoders"].into_iter();
    lists.filter_map(|key| step.get(key)?.as_array()).flatten()
}

fn any(step: &Value, depth: usize, found: &dyn Fn(&Value) -> bool) -> bool {
    found(step) || (depth < MOST_DEPTH && inside(step).any(|step| any(step, depth + 1, found)))
}

/// Turns a prefix that only the start of a prompt gets off; true if there was one.
fn starts_plain(step: &mut Value, depth: usize) -> bool {
    if depth > MOST_DEPTH {
        return false;
    }
    let mut changed = false;
    if is(step, "Metaspace") && step.get("prepend_scheme").and_then(Value::as_str) == Some("first")
    {
        step["prepend_scheme"] = Value::from("never");
        changed = true;
    }
    let steps = step.get_mut("pretokenizers").and_then(Value::as_array_mut);
    for step in steps.into_iter().flatten() {
        changed |= starts_plain(step, depth + 1);
    }
    changed
}

/// Replacements one after the other multiply: forty that double a letter make a terabyte of it.
fn refuse_growth(name: &str, value: &Value) -> Result<()> {
    for key in ["normalizer", "pre_tokenizer", "decoder"] {
        let growth = value.get(key).map_or(Some(1), |step| growth(step, 0));
        if growth.is_none_or(|growth| growth > MOST_GROWTH) {
            return Err(Error::unsupported(format!(
                "{name}: its {key} makes texts more than {MOST_GROWTH} times as long; fetch the \
                 file of the model's authors"
            )));
        }
    }
    Ok(())
}

/// How much longer a text can become; none beyond all bounds.
fn growth(step: &Value, depth: usize) -> Option<usize> {
    if depth > MOST_DEPTH {
        return None;
    }
    let own = match is(step, "Replace") {
        false => 1,
        true => {
            let content = step
                .get("content")
                .and_then(Value::as_str)
                .unwrap_or_default();
            let pattern = step.pointer("/pattern/String").and_then(Value::as_str);
            content
                .len()
                .div_ceil(pattern.map_or(1, str::len).max(1))
                .max(1)
        }
    };
    inside(step).try_fold(own, |all, step| {
        let all = all.checked_mul(growth(step, depth + 1)?)?;
        (all <= MOST_GROWTH).then_some(all)
    })
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
