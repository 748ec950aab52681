//! What did the model write?
//!
//! Takes questions and answers out of raw output. Never fails on any output, never repairs text
//! and never deletes a repeat: bad output is for the checks to reject, not for the parser to mend.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use crate::checks::pattern;
use crate::profile::QuestionMode;

/// What stands in front of an item: "1.", "2)", "- ", "Q3:", "Question 1:", bold or not.
static MARKER: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"^(?:\s*(?:\*\*|__)?(?:[-*\u{2022}]\s+|\(?\d{1,3}[.)]\s+|(?:Q|Question)\s*(?:\d{1,3}\s*)?[:.)]\s*)(?:\*\*|__)?)+",
    )
});
static ANSWER_LABEL: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"^(?:\*\*|__)?(?:A|Answer|ANSWER)\s*:\s*(?:\*\*|__)?\s*"));
static JSON_QUESTION: LazyLock<Regex> =
    LazyLock::new(|| pattern(r#""(?i:question)[\w ]*"\s*:\s*("(?:[^"\\]|\\.)*")"#));
static JSON_STRING: LazyLock<Regex> = LazyLock::new(|| pattern(r#""(?:[^"\\]|\\.)*""#));

/// The questions in an output of the asker.
///
/// Branch mode gives one question at most. List mode reads numbered and bulleted lists and JSON
/// arrays (of strings, or of objects with a `question`). Of output that stopped at the token limit
/// the last item may be cut: that is for the caller, who knows, to drop.
///
/// ```
/// use casebook_qa::{parse::questions, profile::QuestionMode};
/// let output = "Here are two questions:\n1. Who won?\n2. Why?";
/// assert_eq!(questions(output, QuestionMode::List), ["Who won?", "Why?"]);
/// assert_eq!(questions("Question: \"Who won?\"", QuestionMode::Branch), ["Who won?"]);
/// ```
pub fn questions(output: &str, mode: QuestionMode) -> Vec<String> {
    match mode {
        QuestionMode::Branch => one(output).into_iter().collect(),
        QuestionMode::List => {
            let mut items = json_items(output).unwrap_or_else(|| list_items(output));
            items.retain(|item| !item.is_empty());
            items
        }
    }
}

/// The answer in an output of the answerer: without a leading label and outer whitespace, else
/// exactly as written.
pub fn answer(output: &str) -> String {
    let text = output.trim();
    let label = ANSWER_LABEL.find(text).map_or(0, |label| label.end());
    text[label..].trim().to_owned()
}

fn one(output: &str) -> Option<String> {
    if let Some(first) = json_items(output).and_then(|items| items.into_iter().next()) {
        return Some(first).filter(|item| !item.is_empty());
    }
    let mut lines = output
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .peekable();
    let mut line = lines.next()?;
    while is_preamble(line) && lines.peek().is_some() {
        line = lines.next()?;
    }
    let mut question = line.to_owned();
    while !question.contains('?') {
        match lines.next() {
            Some(next) if next.starts_with(char::is_lowercase) => {
                question.push(' ');
                question.push_str(next);
            }
            _ => break,
        }
    }
    let question = clean(&question);
    Some(clean(to_question_mark(&question))).filter(|question| !question.is_empty())
}

/// Lines such as "Sure! Here is a question:" or "Question:".
fn is_preamble(line: &str) -> bool {
    let line = line.trim_end_matches(['*', '_', ' ']);
    !line.contains('?')
        && (line.ends_with(':') || line.starts_with("```") || clean(line).is_empty())
}

fn list_items(output: &str) -> Vec<String> {
    let lines: Vec<&str> = output
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty() && !l.starts_with("```"))
        .collect();
    let has_markers = lines.iter().any(|line| MARKER.is_match(line));
    let mut items: Vec<String> = Vec::new();
    for line in lines {
        if !has_markers {
            if !is_preamble(line) {
                items.push(line.to_owned());
            }
        } else if MARKER.is_match(line) {
            items.push(line.to_owned());
        } else if let Some(item) = items.last_mut().filter(|item| !item.contains('?')) {
            item.push(' ');
            item.push_str(line);
        }
    }
    items
        .iter()
        .map(|item| clean(to_question_mark(item)))
        .collect()
}

/// The items of a JSON array, whole or cut; `None` when the output is no JSON array.
fn json_items(output: &str) -> Option<Vec<String>> {
    let text = output
        .trim()
        .trim_start_matches("```json")
        .trim_matches('`')
        .trim();
    if !text.starts_with('[') && !text.starts_with('{') {
        return None;
    }
    if let Ok(value) = serde_json::from_str::<Value>(text) {
        let items = match value {
            Value::Array(items) => items,
            Value::Object(mut object) => match object.remove("questions") {
                Some(Value::Array(items)) => items,
                _ => vec![Value::Object(object)],
            },
            _ => return None,
        };
        let texts: Vec<String> = items.iter().filter_map(json_question).collect();
        return (!texts.is_empty()).then_some(texts);
    }
    let unquote = |text: &str| {
        let text: String = serde_json::from_str(text).ok()?;
        Some(text.trim().to_owned())
    };
    let mut items: Vec<String> = JSON_QUESTION
        .captures_iter(text)
        .filter_map(|c| unquote(&c[1]))
        .collect();
    if items.is_empty() && text.starts_with('[') && !text.contains('{') {
        items = JSON_STRING
            .find_iter(text)
            .filter_map(|found| unquote(found.as_str()))
            .collect();
    }
    (!items.is_empty()).then_some(items)
}

fn json_question(item: &Value) -> Option<String> {
    match item {
        Value::String(text) => Some(text.trim().to_owned()),
        Value::Object(fields) => {
            let key = ["question", "Question", "q"]
                .into_iter()
                .find(|key| fields.contains_key(*key));
            fields
                .get(key?)?
                .as_str()
                .map(|text| text.trim().to_owned())
        }
        _ => None,
    }
}

/// Without item marker, bold marks and quotes around the whole.
fn clean(line: &str) -> String {
    let marker = MARKER.find(line).map_or(0, |marker| marker.end());
    let mut text = line[marker..].trim();
    for (open, close) in [
        ("**", "**"),
        ("\"", "\""),
        ("\u{201c}", "\u{201d}"),
        ("*", "*"),
    ] {
        let inner = text
            .strip_prefix(open)
            .and_then(|rest| rest.strip_suffix(close));
        if let Some(inner) = inner.filter(|inner| !inner.contains(open) && !inner.contains(close)) {
            text = inner.trim();
        }
    }
    text.to_owned()
}

/// Up to and with the first question mark that ends a sentence; all of it when there is none.
fn to_question_mark(text: &str) -> &str {
    for (at, _) in text.match_indices('?') {
        let mut end = at + 1;
        end += text[end..]
            .chars()
            .take_while(|c| matches!(c, '"' | '\'' | ')' | ']' | '*' | '\u{201d}' | '\u{2019}'))
            .map(char::len_utf8)
            .sum::<usize>();
        let rest = text[end..].trim_start();
        let spaced = rest.is_empty() || rest.len() < text.len() - end;
        if spaced && !rest.starts_with(char::is_lowercase) {
            return &text[..end];
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_question() {
        for (output, want) in [
            (
                "Who won in Monga v. Glover Landing?",
                "Who won in Monga v. Glover Landing?",
            ),
            ("\n\n  Question: Who won?\n", "Who won?"),
            ("Q1. Who won?", "Who won?"),
            ("1. Who won?", "Who won?"),
            ("**Question 1:** Who won?", "Who won?"),
            ("- \"Who won?\"", "Who won?"),
            (
                "Sure! Here is a question:\n\nWho won?\nLet me know!",
                "Who won?",
            ),
            ("Question:\nWho won?", "Who won?"),
            (
                "In A v. B, the court affirmed. Why? Because",
                "In A v. B, the court affirmed. Why?",
            ),
            (
                "What did the court\nhold in A v. B?",
                "What did the court hold in A v. B?",
            ),
            (
                "What did he mean by \"why?\" in A v. B? X",
                "What did he mean by \"why?\" in A v. B?",
            ),
            (
                "Why was Walla Walla -- the city -- sued?",
                "Why was Walla Walla -- the city -- sued?",
            ),
            ("[\"Who won?\"]", "Who won?"),
            ("Explain the holding", "Explain the holding"),
        ] {
            assert_eq!(
                questions(output, QuestionMode::Branch),
                [want],
                "{output:?}"
            );
        }
        for output in ["", " \n ", "\"\"", "Question:", "**"] {
            let got = questions(output, QuestionMode::Branch);
            assert!(got.iter().all(|q| !q.contains('?')), "{output:?}: {got:?}");
        }
    }

    #[test]
    fn lists() {
        let two = ["Who won?", "Why did 1. of the Act fail?"];
        for output in [
            "1. Who won?\n2. Why did 1. of the Act fail?",
            "Here you are:\n\n1) Who won?\n\n2) Why did 1. of\nthe Act fail?\n\nI hope this helps.",
            "- Who won?\n- Why did 1. of the Act fail?",
            "**Q1:** Who won?\n**Q2:** Why did 1. of the Act fail?",
            "Who won?\nWhy did 1. of the Act fail?",
            "[\"Who won?\", \"Why did 1. of the Act fail?\"]",
            "```json\n[{\"question\": \"Who won?\", \"answer\": \"A\"}, {\"question\": \"Why did 1. of the Act fail?\"}]\n```",
            "{\"questions\": [\"Who won?\", \"Why did 1. of the Act fail?\"]}",
        ] {
            assert_eq!(questions(output, QuestionMode::List), two, "{output:?}");
        }
        assert_eq!(
            questions("[\"Who won?\", \"Wh", QuestionMode::List),
            ["Who won?"]
        );
        assert_eq!(
            questions("[\" Who won? \", \" \", \"Wh", QuestionMode::List),
            ["Who won?"]
        );
        assert_eq!(questions("1. A?\n2. A?", QuestionMode::List), ["A?", "A?"]);
    }

    #[test]
    fn answers_are_left_alone() {
        for (output, want) in [
            (" Answer: The fee stands. ", "The fee stands."),
            ("A: Yes.", "Yes."),
            ("**Answer:** Yes.", "Yes."),
            (
                "A fee of $301,709.56 -- \"all\" of it.",
                "A fee of $301,709.56 -- \"all\" of it.",
            ),
            (
                "1. Walla Walla, Walla Walla.",
                "1. Walla Walla, Walla Walla.",
            ),
            ("\"No,\" he said, \"no.\"", "\"No,\" he said, \"no.\""),
            (
                "Section 1. Title.\n\n1. No vehicles.",
                "Section 1. Title.\n\n1. No vehicles.",
            ),
            ("Answer: Answer: twice", "Answer: twice"),
            ("", ""),
        ] {
            assert_eq!(answer(output), want, "{output:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics_and_words_survive(
            output in "(?s)[\\PC\n]{0,60}|([0-9]{0,2}[.)?\\[\\]{}\"'*: \n`-]{1,4}[A-Za-z\u{e9}]{0,6}){0,12}",
        ) {
            for mode in [QuestionMode::Branch, QuestionMode::List] {
                for question in questions(&output, mode) {
                    prop_assert!(!question.is_empty());
                    prop_assert_eq!(question.trim(), question.as_str());
                }
            }
            let text = answer(&output);
            prop_assert!(output.contains(text.as_str()));
        }

        #[test]
        fn a_plain_question_survives(words in proptest::collection::vec("[a-z]{1,8}", 1..12)) {
            let question = format!("What {}?", words.join(" "));
            let want = [question.clone()];
            let two = [question.clone(), "Next?".to_owned()];
            prop_assert_eq!(questions(&question, QuestionMode::Branch), &want);
            prop_assert_eq!(questions(&format!("1. {question}\n2. Next?"), QuestionMode::List), &two);
        }
    }
}
