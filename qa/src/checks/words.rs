//! Which words, names and numbers does a text hold?
//!
//! A small tokenizer for the checks: enough for opinions and for English; other languages fall
//! back to plain words.

use crate::sentence::is_abbreviation;

/// What a token is, for the weight it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Starts with a digit.
    Number,
    /// Capitalised, not at the start of a sentence, or a party before "v.".
    Name,
    /// Anything else.
    Word,
}

/// A word or number of a text.
#[derive(Debug, Clone)]
pub(super) struct Token {
    /// Lower case, without possessive; digits without separators and leading zeros.
    pub(super) key: String,
    pub(super) kind: Kind,
    /// As written.
    pub(super) text: String,
}

/// The tokens of `text` in order.
pub(super) fn tokens(text: &str) -> Vec<Token> {
    let mut out: Vec<Token> = Vec::new();
    let mut starts_sentence = true;
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        if !c.is_alphanumeric() {
            let ended = match c {
                '?' | '!' | ':' => true,
                '.' => out.last().is_some_and(|last| !is_abbreviation(&last.text)),
                _ => false,
            };
            starts_sentence |= ended;
            at += c.len_utf8();
            continue;
        }
        let end = token_end(text, at);
        let word = &text[at..end];
        let kind = if c.is_ascii_digit() {
            Kind::Number
        } else if c.is_uppercase() && !starts_sentence {
            Kind::Name
        } else {
            Kind::Word
        };
        let key = if kind == Kind::Number {
            number_key(word)
        } else {
            word_key(word)
        };
        if matches!(key.as_str(), "v" | "vs")
            && let Some(party) = out
                .last_mut()
                .filter(|t| t.text.starts_with(char::is_uppercase))
        {
            party.kind = Kind::Name;
        }
        out.push(Token {
            key,
            kind,
            text: word.to_owned(),
        });
        starts_sentence = false;
        at = end;
    }
    out
}

fn token_end(text: &str, start: usize) -> usize {
    let mut end = start;
    let mut letters = text[start..].chars().peekable();
    let mut last = ' ';
    let number = text[start..].starts_with(|c: char| c.is_ascii_digit());
    while let Some(c) = letters.next() {
        let inside = match c {
            '\'' | '\u{2019}' => !number && letters.peek().is_some_and(|n| n.is_alphabetic()),
            ',' | '.' => {
                number && last.is_ascii_digit() && letters.peek().is_some_and(char::is_ascii_digit)
            }
            _ => c.is_alphanumeric(),
        };
        if !inside {
            break;
        }
        last = c;
        end += c.len_utf8();
    }
    end
}

fn word_key(word: &str) -> String {
    let word = word
        .strip_suffix("'s")
        .or_else(|| word.strip_suffix("\u{2019}s"))
        .unwrap_or(word);
    word.to_lowercase().replace('\u{2019}', "'")
}

/// "301,709.56" is 301709.56, "03" is 3, "$500.00" is 500, "2d" is 2.
fn number_key(word: &str) -> String {
    let digits: String = word
        .chars()
        .filter(|c| *c != ',')
        .take_while(|c| c.is_ascii_digit() || *c == '.')
        .collect();
    let digits = digits.trim_end_matches('.');
    let digits = digits
        .strip_suffix(".00")
        .unwrap_or(digits)
        .trim_start_matches('0');
    if digits.is_empty() {
        "0".to_owned()
    } else {
        digits.to_owned()
    }
}

/// The word without its ending, so that "affirmed" finds "affirm".
pub(super) fn stem(word: &str) -> String {
    if let Some((_, base)) = IRREGULAR.iter().find(|(form, _)| *form == word) {
        return (*base).to_owned();
    }
    let long = |least: usize| word.chars().count() >= least;
    let cut = |ending: &str| word.strip_suffix(ending);
    let base = if let Some(base) = cut("ies").filter(|_| long(5)) {
        return format!("{base}i");
    } else if let Some(base) = cut("ing").filter(|_| long(6)) {
        undouble(base)
    } else if let Some(base) = cut("ed").filter(|_| long(5)) {
        undouble(base)
    } else if let Some(base) = cut("ly").filter(|_| long(6)) {
        base
    } else if let Some(base) = cut("es").filter(|_| long(5)) {
        base
    } else if let Some(base) = cut("s").filter(|base| long(4) && !base.ends_with('s')) {
        base
    } else {
        word
    };
    let base = base.strip_suffix('e').unwrap_or(base);
    base.strip_suffix('y')
        .map_or_else(|| base.to_owned(), |base| format!("{base}i"))
}

/// "dropp" is drop, "dismiss" stays.
fn undouble(base: &str) -> &str {
    let mut last = base.chars().rev();
    match (last.next(), last.next()) {
        (Some(a), Some(b)) if a == b && a.is_ascii() && !matches!(a, 'l' | 's' | 'e' | 'o') => {
            &base[..base.len() - 1]
        }
        _ => base,
    }
}

const IRREGULAR: &[(&str, &str)] = &[
    ("held", "hold"),
    ("found", "find"),
    ("brought", "bring"),
    ("sought", "seek"),
    ("gave", "giv"),
    ("given", "giv"),
    ("took", "tak"),
    ("taken", "tak"),
    ("said", "sai"),
    ("made", "mak"),
    ("wrote", "writ"),
    ("written", "writ"),
    ("began", "begin"),
    ("left", "leav"),
    ("paid", "pai"),
    ("lost", "los"),
    ("sent", "send"),
    ("told", "tell"),
    ("won", "win"),
    ("led", "lead"),
    ("met", "meet"),
    ("kept", "keep"),
    ("knew", "know"),
    ("known", "know"),
    ("rose", "ris"),
    ("arose", "aris"),
    ("fell", "fall"),
    ("felt", "feel"),
    ("dealt", "deal"),
    ("meant", "mean"),
    ("understood", "understand"),
    ("bought", "bui"),
    ("sold", "sell"),
    ("built", "build"),
    ("chose", "choos"),
    ("spoke", "speak"),
    ("convicted", "convict"),
    ("conviction", "convict"),
    ("dismissal", "dismiss"),
    ("affirmance", "affirm"),
    ("denial", "deni"),
    ("decision", "decid"),
    ("holding", "hold"),
    ("pled", "plead"),
    ("argument", "argu"),
    ("reversal", "revers"),
    ("conclusion", "conclud"),
];

/// Words that say nothing about the matter.
pub(super) fn is_stopword(key: &str) -> bool {
    STOPWORDS.contains(&key)
}

/// Capitalised words that name nobody: never weighed as names.
pub(super) fn is_generic_name(key: &str) -> bool {
    is_stopword(key) || GENERIC.contains(&key) || key.chars().count() == 1
}

const STOPWORDS: &[&str] = &[
    "a",
    "an",
    "the",
    "and",
    "or",
    "nor",
    "but",
    "if",
    "then",
    "than",
    "that",
    "this",
    "these",
    "those",
    "there",
    "here",
    "of",
    "in",
    "on",
    "at",
    "to",
    "from",
    "by",
    "for",
    "with",
    "without",
    "into",
    "onto",
    "upon",
    "under",
    "over",
    "as",
    "about",
    "after",
    "before",
    "between",
    "through",
    "during",
    "within",
    "against",
    "because",
    "since",
    "while",
    "until",
    "is",
    "are",
    "was",
    "were",
    "be",
    "been",
    "being",
    "am",
    "do",
    "does",
    "did",
    "done",
    "has",
    "have",
    "had",
    "having",
    "will",
    "would",
    "shall",
    "should",
    "may",
    "might",
    "must",
    "can",
    "could",
    "not",
    "no",
    "yes",
    "so",
    "such",
    "it",
    "its",
    "he",
    "him",
    "his",
    "she",
    "her",
    "hers",
    "they",
    "them",
    "their",
    "we",
    "us",
    "our",
    "you",
    "your",
    "i",
    "me",
    "my",
    "who",
    "whom",
    "whose",
    "which",
    "what",
    "when",
    "where",
    "why",
    "how",
    "any",
    "all",
    "each",
    "both",
    "some",
    "other",
    "another",
    "only",
    "also",
    "one",
    "own",
    "same",
    "very",
    "more",
    "most",
    "out",
    "up",
    "down",
    "again",
    "further",
    "however",
    "therefore",
    "thus",
    "whether",
    "either",
    "neither",
    "itself",
    "himself",
    "herself",
    "themselves",
    "v",
    "vs",
    "versus",
    "per",
    "via",
    "et",
];

const GENERIC: &[&str] = &[
    "court",
    "courts",
    "judge",
    "judges",
    "justice",
    "justices",
    "panel",
    "plaintiff",
    "plaintiffs",
    "defendant",
    "defendants",
    "appellant",
    "appellants",
    "appellee",
    "appellees",
    "petitioner",
    "petitioners",
    "respondent",
    "respondents",
    "government",
    "state",
    "federal",
    "american",
    "congress",
    "constitution",
    "constitutional",
    "district",
    "circuit",
    "appeals",
    "appeal",
    "supreme",
    "united",
    "states",
    "mr",
    "mrs",
    "ms",
    "dr",
    "hon",
    "honorable",
    "section",
    "sections",
    "act",
    "rule",
    "rules",
    "title",
    "no",
    "nos",
    "case",
    "opinion",
    "order",
    "chief",
    "senior",
    "associate",
    "magistrate",
    "jury",
    "board",
    "commission",
    "department",
    "agency",
    "company",
    "party",
    "parties",
    "counsel",
    "attorney",
    "english",
    "inc",
    "corp",
    "co",
    "ltd",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_keys() {
        let text = "Monga v. Glover Landing awarded $301,709.56 on May 27, 1992. The Mongas' fee. \
                    See F.2d 03 and don't.";
        let got: Vec<(String, Kind)> = tokens(text).into_iter().map(|t| (t.key, t.kind)).collect();
        let want =
            |key: &str, kind| assert!(got.contains(&(key.to_owned(), kind)), "{key}: {got:?}");
        want("monga", Kind::Name);
        want("landing", Kind::Name);
        want("301709.56", Kind::Number);
        want("27", Kind::Number);
        want("the", Kind::Word);
        want("mongas", Kind::Name);
        want("2", Kind::Number);
        want("3", Kind::Number);
        want("don't", Kind::Word);
    }

    #[test]
    fn stems_meet() {
        for (a, b) in [
            ("affirmed", "affirm"),
            ("affirms", "affirm"),
            ("decided", "decide"),
            ("denied", "deny"),
            ("denies", "deny"),
            ("held", "hold"),
            ("dropped", "drop"),
            ("dismissed", "dismiss"),
            ("parties", "party"),
            ("claims", "claim"),
            ("arguing", "argue"),
            ("reversed", "reverses"),
            ("awarding", "award"),
        ] {
            assert_eq!(stem(a), stem(b), "{a} {b}");
        }
        assert_ne!(stem("claim"), stem("clam"));
    }
}
