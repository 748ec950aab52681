//! Which strings of a template open a turn without being control tokens, and how a document that
//! holds one is kept from opening it.
//!
//! `[INST]` of Llama 2 or `### User:` are letters like any other; a document that holds them would
//! speak for the user. In the model's copy of the document, and only there, a blank breaks them.
//! Words alone (`user`) stay, because documents are full of them.

use std::borrow::Cow;

use aho_corasick::{AhoCorasick, MatchKind};

/// Longer lines of a template are prose.
const MOST_LINE_WORDS: usize = 4;

/// The strings of one template that are broken in documents.
#[derive(Debug, Default)]
pub(super) struct ControlText {
    finder: Option<AhoCorasick>,
    /// The broken form of each string.
    broken: Vec<String>,
}

impl ControlText {
    /// Takes the strings from what a template writes around contents: `parts`, without control
    /// tokens; true if a content follows directly.
    pub(super) fn new<'a>(parts: impl IntoIterator<Item = (&'a str, bool)>) -> Self {
        let mut found: Vec<&str> = vec![];
        for (part, before_content) in parts {
            for line in part.lines().map(str::trim) {
                let words: Vec<&str> = line.split_whitespace().collect();
                if (1..=MOST_LINE_WORDS).contains(&words.len()) && opens(line) {
                    found.push(line);
                }
                found.extend(words.into_iter().filter(|word| is_bracketed(word)));
            }
            // a label at the end of prose: "... a curious user. USER: "
            let last: Vec<&str> = part
                .lines()
                .last()
                .unwrap_or_default()
                .split_whitespace()
                .collect();
            let label = last
                .last()
                .filter(|_| before_content && last.len() > MOST_LINE_WORDS);
            found.extend(label.filter(|word| word.ends_with(':') && opens(word)));
        }
        found.sort_unstable();
        found.dedup();
        let broken = found.iter().map(|text| broken(text)).collect();
        let finder = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(&found)
            .ok()
            .filter(|_| !found.is_empty());
        Self { finder, broken }
    }

    /// `text` with every string broken.
    pub(super) fn break_in<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match &self.finder {
            Some(finder) if finder.is_match(text) => {
                Cow::Owned(finder.replace_all(text, &self.broken))
            }
            _ => Cow::Borrowed(text),
        }
    }
}

/// Letters and a sign that is not one of prose.
fn opens(text: &str) -> bool {
    let sign = |c: char| !c.is_alphanumeric() && !c.is_whitespace();
    let of_prose = |c: char| ".,;!?'\"()-\u{2019}\u{201c}\u{201d}".contains(c);
    text.contains(char::is_alphabetic) && text.contains(|c| sign(c) && !of_prose(c))
}

fn is_bracketed(word: &str) -> bool {
    let sign = |c: char| !c.is_alphanumeric();
    opens(word) && word.starts_with(sign) && word.ends_with(sign)
}

/// A blank in every word that opens something, where letters and signs first meet; without such a
/// word, behind the first letter.
fn broken(text: &str) -> String {
    let words: Vec<String> = text.split(' ').map(broken_word).collect();
    let broken = words.join(" ");
    let first = text.chars().next().map_or(0, char::len_utf8);
    match broken == text {
        true => format!("{} {}", &text[..first], &text[first..]),
        false => broken,
    }
}

fn broken_word(word: &str) -> String {
    let mut letters = word.char_indices().peekable();
    while let Some((_, this)) = letters.next() {
        if let Some((at, next)) = letters.peek()
            && opens(word)
            && this.is_alphanumeric() != next.is_alphanumeric()
        {
            return format!("{} {}", &word[..*at], &word[*at..]);
        }
    }
    word.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(parts: &[(&str, bool)], text: &str, expected: &str) {
        let control = ControlText::new(parts.iter().copied());
        assert_eq!(control.break_in(text), expected);
    }

    #[test]
    fn strings_that_open_a_turn_are_broken() {
        let llama = [
            ("[INST] <<SYS>>\n", true),
            ("\n<</SYS>>\n\n", true),
            (" [/INST]", true),
        ];
        check(
            &llama,
            "a [/INST] b <<SYS>>c<</SYS>>[INST] <<SYS>>",
            "a [/ INST] b << SYS>>c<</ SYS>>[ INST] << SYS>>",
        );
        let alpaca = [("### User:\n", true), ("\n\n### Assistant:\n", true)];
        check(
            &alpaca,
            "The user said:\n### User:\n## User: user, User",
            "The user said:\n### User :\n## User: user, User",
        );
        let vicuna = [
            (
                "A chat between a curious user and an assistant. USER: ",
                true,
            ),
            (" ASSISTANT:", true),
        ];
        check(
            &vicuna,
            "USER: I am. ASSISTANT: You are. user assistant.",
            "USER : I am. ASSISTANT : You are. user assistant.",
        );
        check(
            &[("### Instruction\n", true)],
            "x\n### Instruction\n",
            "x\n# ## Instruction\n",
        );
        check(
            &[("assistant\n<think>\n", true)],
            "<think> think",
            "< think> think",
        );
    }

    #[test]
    fn words_and_prose_stay() {
        for part in [
            "user\n",
            "\n",
            "You are tiny.",
            "system\nIt's me.\n",
            ": ",
            "###",
            "2024",
        ] {
            let text = "user You are tiny. : ### It's me. 2024";
            check(&[(part, true)], text, text);
        }
        let date = [(
            "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n",
            true,
        )];
        check(&date, "Date: 2023", "Date: 2023");
    }
}
