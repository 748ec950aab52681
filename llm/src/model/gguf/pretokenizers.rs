//! How text is cut before byte-pair merges: the rules behind the names in `tokenizer.ggml.pre`, as
//! the models' own tokenizer.json files write them.

use serde_json::{Value, json};

/// GPT-4's expression, with up to three digits in a piece.
const THREE_DIGITS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The same with one digit in a piece.
const ONE_DIGIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Mistral's: words are cut where small letters are followed by large ones.
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// GPT-4o's.
const OMNI: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// A rule for cutting text.
#[derive(Debug)]
pub(super) struct PreTokenizer {
    names: &'static [&'static str],
    cut: Cut,
    /// Text is composed first (NFC).
    composes: bool,
    /// A piece that is a token as a whole is not merged from its bytes.
    pub(super) ignores_merges: bool,
}

#[derive(Debug)]
enum Cut {
    /// GPT-2's own.
    Gpt2,
    /// Each digit alone, then GPT-2's.
    Digits,
    /// By an expression.
    Expression(&'static str),
}

/// All rules.
static RULES: &[PreTokenizer] = &[
    PreTokenizer {
        names: &["gpt-2", "gpt2"],
        cut: Cut::Gpt2,
        composes: false,
        ignores_merges: false,
    },
    PreTokenizer {
        names: &["smollm", "starcoder", "refact"],
        cut: Cut::Digits,
        composes: false,
        ignores_merges: false,
    },
    PreTokenizer {
        names: &["llama-bpe", "llama3", "llama-v3"],
        cut: Cut::Expression(THREE_DIGITS),
        composes: false,
        ignores_merges: true,
    },
    PreTokenizer {
        names: &["dbrx", "smaug-bpe"],
        cut: Cut::Expression(THREE_DIGITS),
        composes: false,
        ignores_merges: false,
    },
    PreTokenizer {
        names: &["qwen2", "deepseek-r1-qwen"],
        cut: Cut::Expression(ONE_DIGIT),
        composes: true,
        ignores_merges: false,
    },
    PreTokenizer {
        names: &["tekken"],
        cut: Cut::Expression(TEKKEN),
        composes: false,
        ignores_merges: true,
    },
    PreTokenizer {
        names: &["gpt-4o"],
        cut: Cut::Expression(OMNI),
        composes: false,
        ignores_merges: false,
    },
];

/// The rule of a name.
pub(super) fn find(name: &str) -> Option<&'static PreTokenizer> {
    RULES.iter().find(|rule| rule.names.contains(&name))
}

/// All names, as a list for messages.
pub(super) fn names() -> String {
    let names = RULES.iter().flat_map(|rule| rule.names).copied();
    names.collect::<Vec<_>>().join(", ")
}

impl PreTokenizer {
    /// As tokenizer.json writes it.
    pub(super) fn pre_tokenizer(&self) -> Value {
        let bytes = |expression: bool| {
            json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                "use_regex": expression})
        };
        match self.cut {
            Cut::Gpt2 => bytes(true),
            Cut::Digits => json!({"type": "Sequence", "pretokenizers": [
                {"type": "Digits", "individual_digits": true}, bytes(true)]}),
            Cut::Expression(expression) => json!({"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated",
                    "invert": false},
                bytes(false)]}),
        }
    }

    /// As tokenizer.json writes it.
    pub(super) fn normalizer(&self) -> Value {
        match self.composes {
            true => json!({"type": "NFC"}),
            false => Value::Null,
        }
    }
}
