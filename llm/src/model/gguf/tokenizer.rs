//! The tokenizer of a GGUF file as tokenizer.json and tokenizer_config.json would have it: byte-pair
//! merges of GPT-2's kind, or a SentencePiece vocabulary with scores.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::{Gguf, pretokenizers};
use crate::{Error, Result};

/// Kinds of tokens in `tokenizer.ggml.token_type`.
const UNKNOWN: i64 = 2;
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;
const NORMAL: i64 = 1;

/// What SentencePiece writes for a blank.
const BLANK: &str = "\u{2581}";

struct Vocabulary<'a> {
    tokens: Vec<&'a str>,
    kinds: Vec<i64>,
}

/// What tokenizer.json would say.
pub(super) fn tokenizer(file: &Gguf) -> Result<Value> {
    let header = &file.header;
    let tokens = header.texts("tokenizer.ggml.tokens")?;
    let tokens = tokens.ok_or_else(|| header.missing("tokenizer.ggml.tokens"))?;
    let kinds: Vec<i64> = match header.numbers("tokenizer.ggml.token_type")? {
        Some(kinds) if kinds.len() == tokens.len() => kinds.iter().map(|k| *k as i64).collect(),
        Some(_) => return Err(unequal(file, "tokenizer.ggml.token_type")),
        None => vec![NORMAL; tokens.len()],
    };
    let vocabulary = Vocabulary { tokens, kinds };
    let parts = match header.need_text("tokenizer.ggml.model")? {
        "gpt2" => byte_pairs(file, &vocabulary)?,
        "llama" => sentence_pieces(file, &vocabulary)?,
        other => {
            return Err(Error::unsupported(format!(
                "{}: tokenizer \"{other}\" is not supported; supported are gpt2 and llama. Put the \
                 model's tokenizer.json beside the file and name their directory",
                file.path
            )));
        }
    };
    let mut all = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": added(&vocabulary),
        "post_processor": first_token(file, &vocabulary)?,
    });
    for (key, part) in parts {
        all[key] = part;
    }
    Ok(all)
}

/// What tokenizer_config.json would say.
pub(super) fn settings(file: &Gguf) -> Result<Value> {
    let header = &file.header;
    let tokens = header.texts("tokenizer.ggml.tokens")?.unwrap_or_default();
    let token = |key: &str| -> Result<Option<&str>> {
        let id = header.optional_size(&format!("tokenizer.ggml.{key}_token_id"))?;
        Ok(id.and_then(|id| tokens.get(id).copied()))
    };
    let mut settings = Map::new();
    for (to, from) in [
        ("bos_token", "bos"),
        ("eos_token", "eos"),
        ("unk_token", "unknown"),
    ] {
        if let Some(token) = token(from)? {
            settings.insert(to.into(), json!(token));
        }
    }
    if let Some(template) = header.text("tokenizer.chat_template")? {
        settings.insert("chat_template".into(), json!(template));
    }
    Ok(Value::Object(settings))
}

/// Tokens that are found before the text is cut: control tokens, and those of the model's authors.
fn added(vocabulary: &Vocabulary<'_>) -> Vec<Value> {
    let all = vocabulary.tokens.iter().zip(&vocabulary.kinds).enumerate();
    let added = all.filter(|(_, (token, kind))| {
        matches!(**kind, UNKNOWN | CONTROL | USER_DEFINED) && !token.is_empty()
    });
    added
        .map(|(id, (token, kind))| {
            json!({"id": id, "content": token, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": *kind != USER_DEFINED})
        })
        .collect()
}

/// Puts the first token before a text, if the model wants one.
fn first_token(file: &Gguf, vocabulary: &Vocabulary<'_>) -> Result<Value> {
    let header = &file.header;
    let pieces = header.text("tokenizer.ggml.model")? == Some("llama");
    let adds = header
        .flag("tokenizer.ggml.add_bos_token")?
        .unwrap_or(pieces);
    let bos = header.optional_size("tokenizer.ggml.bos_token_id")?;
    let token = bos.and_then(|id| Some((id, *vocabulary.tokens.get(id)?)));
    Ok(match token.filter(|_| adds) {
        None => Value::Null,
        Some((id, bos)) => json!({
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": bos, "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"SpecialToken": {"id": bos, "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {bos: {"id": bos, "ids": [id], "tokens": [bos]}},
        }),
    })
}

type Parts = Vec<(&'static str, Value)>;

fn byte_pairs(file: &Gguf, vocabulary: &Vocabulary<'_>) -> Result<Parts> {
    let header = &file.header;
    let name = header.text("tokenizer.ggml.pre")?.unwrap_or("default");
    let Some(rule) = pretokenizers::find(name) else {
        return Err(Error::unsupported(format!(
            "{}: how its tokenizer cuts text (tokenizer.ggml.pre is \"{name}\") is not known; known \
             are {}. Put the model's tokenizer.json beside the file and name their directory",
            file.path,
            pretokenizers::names()
        )));
    };
    let merges = header.texts("tokenizer.ggml.merges")?;
    let merges = merges.ok_or_else(|| header.missing("tokenizer.ggml.merges"))?;
    let merges = merges.into_iter().map(|merge| {
        // A blank itself is written as another letter.
        let pair = merge.split_once(' ');
        pair.map(|(left, right)| json!([left, right]))
            .ok_or_else(|| unequal(file, "tokenizer.ggml.merges"))
    });
    let model = json!({
        "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
        "ignore_merges": rule.ignores_merges, "vocab": ids(vocabulary),
        "merges": merges.collect::<Result<Vec<_>>>()?,
    });
    let decoder = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
        "use_regex": true});
    Ok(vec![
        ("normalizer", rule.normalizer()),
        ("pre_tokenizer", rule.pre_tokenizer()),
        ("decoder", decoder),
        ("model", model),
    ])
}

/// SentencePiece joins the two neighbours whose union has the best score; as byte-pair merges that
/// is every way to split a token into two, ranked by the token's score.
fn sentence_pieces(file: &Gguf, vocabulary: &Vocabulary<'_>) -> Result<Parts> {
    let header = &file.header;
    let scores = header.numbers("tokenizer.ggml.scores")?;
    let scores = scores.ok_or_else(|| header.missing("tokenizer.ggml.scores"))?;
    if scores.len() != vocabulary.tokens.len() {
        return Err(unequal(file, "tokenizer.ggml.scores"));
    }
    let normal = |id: usize| vocabulary.kinds[id] == NORMAL;
    let mut known: HashMap<&str, usize> = HashMap::with_capacity(vocabulary.tokens.len());
    for (id, token) in vocabulary
        .tokens
        .iter()
        .enumerate()
        .filter(|(id, _)| normal(*id))
    {
        known.entry(token).or_insert(id);
    }
    let mut merges: Vec<(usize, usize, usize)> = vec![]; // token, its halves
    for (id, token) in vocabulary
        .tokens
        .iter()
        .enumerate()
        .filter(|(id, _)| normal(*id))
    {
        let cuts = token
            .char_indices()
            .skip(1)
            .map(|(at, _)| token.split_at(at));
        for (left, right) in cuts {
            if let (Some(left), Some(right)) = (known.get(left), known.get(right)) {
                merges.push((id, *left, *right));
            }
        }
    }
    merges.sort_by(|a, b| {
        let scores = scores[b.0].total_cmp(&scores[a.0]);
        scores.then_with(|| a.cmp(b))
    });
    let text = |id: usize| vocabulary.tokens[id];
    let merges: Vec<Value> = merges
        .into_iter()
        .map(|(_, left, right)| json!([text(left), text(right)]))
        .collect();
    let unknown = vocabulary.kinds.iter().position(|kind| *kind == UNKNOWN);
    let named = header.optional_size("tokenizer.ggml.unknown_token_id")?;
    let unknown = unknown.or(named).and_then(|id| vocabulary.tokens.get(id));
    let bytes = ["<0x00>", "<0xFF>"]
        .iter()
        .all(|byte| vocabulary.tokens.contains(byte));
    let model = json!({
        "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": bytes,
        "ignore_merges": false, "vocab": ids(vocabulary), "merges": merges,
    });
    let prefix = header
        .flag("tokenizer.ggml.add_space_prefix")?
        .unwrap_or(true);
    let blanks = json!({"type": "Replace", "pattern": {"String": " "}, "content": BLANK});
    let mut normalizers = vec![];
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": BLANK}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        normalizers.push(json!({"type": "Prepend", "prepend": BLANK}));
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    normalizers.push(blanks);
    Ok(vec![
        (
            "normalizer",
            json!({"type": "Sequence", "normalizers": normalizers}),
        ),
        ("pre_tokenizer", Value::Null),
        ("decoder", json!({"type": "Sequence", "decoders": decoders})),
        ("model", model),
    ])
}

fn ids(vocabulary: &Vocabulary<'_>) -> Map<String, Value> {
    let tokens = vocabulary.tokens.iter().enumerate();
    tokens
        .map(|(id, token)| ((*token).to_string(), json!(id)))
        .collect()
}

fn unequal(file: &Gguf, key: &str) -> Error {
    Error::corrupt(format!(
        "{}: {key} does not fit the vocabulary; fetch the file again",
        file.path
    ))
}
