//! Is this a question, and can it stand alone?
//!
//! Everything about a question that needs neither the other questions nor the chunk.

use std::sync::LazyLock;

use regex::Regex;

use super::answer::is_loop;
use super::words::{Kind, is_stopword, tokens};
use super::{Checks, Pair, Reason, pattern};

pub(super) fn complaint(checks: &Checks, pair: &Pair<'_>, case: Option<&str>) -> Option<Reason> {
    let question = pair.question.trim();
    if question.is_empty() {
        Some(Reason::NoQuestion)
    } else if checks.truncated && pair.question_truncated {
        Some(Reason::Truncated)
    } else if checks.not_a_question && !is_question(question) {
        Some(Reason::NotAQuestion)
    } else if checks.degenerate && is_loop(question, checks.max_repeats) {
        Some(Reason::Degenerate)
    } else if checks.boilerplate && PREAMBLE.is_match(question) {
        Some(Reason::Boilerplate)
    } else if checks.leans_on_document && leans(question, case) {
        Some(Reason::LeansOnDocument)
    } else if checks.unnamed_document
        && case.is_some_and(|case| !names(question, case))
        && !names_cited_case(question, pair.chunk)
    {
        Some(Reason::UnnamedDocument)
    } else {
        None
    }
}

fn is_question(question: &str) -> bool {
    let closing = ['"', '\'', ')', ']', '\u{201d}', '\u{2019}', ' '];
    let words = question
        .split_whitespace()
        .filter(|w| w.contains(char::is_alphabetic))
        .count();
    // writing without blanks has no words to count
    let unspaced = question.chars().filter(|c| *c as u32 >= 0x2e80).count();
    question
        .trim_end_matches(closing)
        .ends_with(['?', '\u{ff1f}'])
        && (words >= 3 || unspaced >= 4)
}

static PREAMBLE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)^(?:sure\b|certainly\b|of course\b|absolutely\b|here(?:'s| is| are)\b|great question|i(?:'d| would| am|'m) (?:be )?(?:happy|glad)|as an ai\b|(?:can|could) you (?:please )?(?:tell|explain|provide|give)|based (?:solely |only )?on the (?:above|provided|given|following|reference|text|document|passage|excerpt|information))",
    )
});

/// A page that only the asker sees.
static PAGE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\b(?:(?:the|this|that) (?:(?:above|provided|given|following|attached|reference|source) )?(?:text|passage|excerpt|snippet|transcript|reference material|source material|context)|(?:the|this|that) (?:above|provided|given|attached|reference) (?:document|opinion|case|article|section|paragraph|material|information)|this (?:document|article|paragraph|section|page|bill|chunk|report|memo|memorandum)|(?:mentioned|described|discussed|stated|listed|quoted|cited|given|shown|outlined) (?:above|below)|the above)\b",
    )
});

/// "the document" where it is a page and not a thing in the story.
static DOCUMENT: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)(?:\b(?:according to|per|based (?:solely |only )?on|stated in|mentioned in|described in|discussed in|cited in|listed in|given in|provided in|outlined in|referenced in|contained in|identified in|named in) (?:the|this) (?:document|article|section|paragraph|page|material|author)\b|\b(?:does|did|do|is|are) the (?:document|article|author|writer|narrator)s? (?:say|state|mention|describe|discuss|argue|claim|refer|explain|about|cite|conclude|suggest|indicate|identify|name|list)|\b(?:is|are) (?:the|this) (?:document|article|page) about\b|\b(?:title|author|subject|topic|purpose|main (?:idea|point|topic)|theme) of (?:the|this) (?:document|article|page)\b)",
    )
});

/// Fine beside the name of the case, useless without.
static CASE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\b(?:(?:in|of|from|by|according to|per|about) (?:the|this|that) (?:present |instant |current |above )?(?:case|opinion|decision|ruling|judgment|lawsuit|dispute|matter)|(?:does|did|do|is|was|are|were|has|had) (?:the|this) (?:case|opinion|decision))\b",
    )
});

static THIS_CASE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\b(?:(?:this|the present|the instant|the current) (?:court )?(?:case|opinion|decision|ruling|judgment|lawsuit))\b",
    )
});

/// A case cited by its parties.
static CITED: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"\b[A-Z][\w.'&,-]* (?:v|vs)\.? (?:the )?[A-Z]|\b(?:In re|In the Matter of|Ex parte|Matter of) [A-Z]",
    )
});

fn leans(question: &str, case: Option<&str>) -> bool {
    let named = CITED.is_match(question) || case.is_some_and(|case| names(question, case));
    // "the text of the statute", "the passage of time", "in the case of a minor" lean on nothing
    let loose = |regex: &Regex| {
        regex.find_iter(question).any(|found| {
            let rest = question[found.end()..].trim_start();
            !(rest.starts_with("of ") || rest.starts_with("between ") || rest.starts_with("below"))
                || ["of the document", "of the opinion", "of this"]
                    .iter()
                    .any(|p| rest.starts_with(p))
        })
    };
    loose(&PAGE)
        || DOCUMENT.is_match(question)
        || (!named && loose(&CASE))
        || (THIS_CASE.is_match(question) && !case.is_some_and(|case| names(question, case)))
}

/// Whether the question names a case that the chunk cites in the same words: "What is the citation
/// of Foley v. Lowell?" stands alone, too.
fn names_cited_case(question: &str, chunk: &str) -> bool {
    let question = tokens(question);
    let is_party = |at: usize| {
        question
            .get(at)
            .is_some_and(|token| token.kind == Kind::Name && token.key != "v")
    };
    let Some(v) = question.iter().position(|token| token.key == "v") else {
        return false;
    };
    let start = (0..v).rev().take_while(|at| is_party(*at)).last();
    let end = (v + 1..question.len())
        .take_while(|at| is_party(*at))
        .last();
    let (Some(start), Some(end)) = (start, end) else {
        return false;
    };
    let name: Vec<&str> = question[start..=end]
        .iter()
        .map(|token| token.key.as_str())
        .collect();
    let chunk = tokens(chunk);
    chunk
        .windows(name.len())
        .any(|words| words.iter().map(|word| &word.key).eq(&name))
}

/// Whether the question names the case: its name as it is, or both parties by a word of each in
/// their order, or (no parties) at least half of its words.
pub(super) fn names(question: &str, case: &str) -> bool {
    let keys = |text: &str| tokens(text).into_iter().map(|t| t.key).collect::<Vec<_>>();
    let (question, case) = (keys(question), keys(case));
    if case.is_empty() || question.windows(case.len()).any(|window| window == case) {
        return true;
    }
    let is_v = |word: &String| matches!(word.as_str(), "v" | "vs" | "versus");
    let matter = |words: &[String]| -> Vec<String> {
        let says = |w: &&String| {
            !is_stopword(w) && !matches!(w.as_str(), "re" | "ex" | "parte" | "matter")
        };
        words.iter().filter(says).cloned().collect()
    };
    if let Some(at) = case.iter().position(is_v) {
        let (left, right) = (matter(&case[..at]), matter(&case[at + 1..]));
        return question
            .iter()
            .enumerate()
            .filter(|(_, word)| is_v(word))
            .any(|(at, _)| {
                let has = |side: &[String], words: &[String]| {
                    side.is_empty() || words.iter().any(|word| side.contains(word))
                };
                has(&left, &question[at.saturating_sub(8)..at]) && has(&right, &question[at + 1..])
            });
    }
    let words = matter(&case);
    let found = words.iter().filter(|word| question.contains(word)).count();
    words.is_empty() || found * 2 >= words.len()
}
