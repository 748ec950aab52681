//! Does the answer say something, at once and once?
//!
//! Everything about an answer that can be seen without the document.

use std::collections::HashMap;
use std::sync::LazyLock;

use regex::Regex;

use super::{Checks, Pair, Reason, pattern};

pub(super) fn complaint(checks: &Checks, pair: &Pair<'_>) -> Option<Reason> {
    let answer = pair.answer.trim();
    if !answer.contains(char::is_alphanumeric) {
        Some(Reason::NoAnswer)
    } else if checks.truncated && pair.answer_truncated {
        Some(Reason::Truncated)
    } else if checks.degenerate && is_loop(answer, checks.max_repeats) {
        Some(Reason::Degenerate)
    } else if checks.not_in_document && says_not_there(answer) {
        Some(Reason::NotInDocument)
    } else if checks.boilerplate && PREAMBLE.is_match(answer) {
        Some(Reason::Boilerplate)
    } else {
        None
    }
}

/// Openings that belong to a chat and not to an answer.
static PREAMBLE: LazyLock<Regex> = LazyLock::new(|| {
    let page = r"(?:(?:above|provided|given|reference|source|following|attached) )*(?:reference material|source material|text|document|passage|excerpt|context|material|information|snippet|transcript)";
    pattern(&format!(
        r"(?i)^(?:based (?:solely |only |entirely |purely )?(?:up)?on (?:the |this )?{page}\b|(?:according to|per|as (?:stated|mentioned|described|noted|indicated|discussed|outlined) in|from|in) (?:the|this) (?:(?:above|provided|given|reference|source|following|attached) )+(?:opinion|case|article|{page})\b|(?:according to|as (?:stated|mentioned|described|noted|indicated|discussed|outlined) in) (?:the|this) {page}\b|(?:the|this) {page} (?:states|says|mentions|indicates|describes|explains|notes|suggests|discusses|provides)\b|(?:sure|okay|ok|great question|thanks)[,!.]|(?:certainly|absolutely|of course|thank you)!|here(?:'s| is| are) (?:the|an|a|your|my) (?:\w+ )?(?:answer|response|summary)|i(?:'d| would) be (?:happy|glad)|i(?:'m| am) (?:happy|glad) to|as an? (?:ai|assistant|language model|paralegal|expert|helpful)\b|the answer (?:to (?:the|this|your) question )?is\b|i apologi[sz]e)"
    ))
});

/// Whether the answer is that there is none.
pub(crate) fn says_not_there(answer: &str) -> bool {
    NOT_THERE.is_match(answer)
}

/// No answer, in the words the profiles ask for and in those that models use.
static NOT_THERE: LazyLock<Regex> = LazyLock::new(|| {
    let page = r"(?:(?:above|provided|given|reference|source|following|attached) )*(?:text|document|passage|excerpt|context|reference material|material|information|opinion|snippet|transcript)";
    pattern(&format!(
        r"(?i)(?:^\W*not[ _]in[ _](?:the[ _])?document\b|^(?:it is |this is |that is |the answer is )?not (?:mentioned|stated|specified|provided|given|available|found|known|disclosed)\W*$|\b(?:not|n't|never) (?:explicitly |directly |specifically |clearly )?(?:mentioned|stated|specified|provided|given|available|found|discussed|disclosed|contained|included|identified|answered) (?:anywhere )?(?:in|by|within) (?:the|this) {page}\b|\b(?:the|this) {page} (?:does not|doesn't|do not|did not) (?:explicitly |directly |specifically |clearly )?(?:mention|state|specify|provide|say|give|indicate|discuss|disclose|identify|answer|address this)\b|\b(?:the|this) {page} (?:does not|doesn't) (?:contain|include) (?:any |enough |sufficient |that |this |such )*(?:information|details?|mention|answer)|^i (?:do not|don't|cannot|can't|could not|am unable to|am not able to) (?:know|find|answer|determine|provide|see)\b|^i(?:'m| am) not (?:aware|sure)\b|\bcannot be determined (?:from|based on) (?:the|this)\b|^there is no (?:mention|information|indication|answer)\b[^.]* in (?:the|this) {page}\b|^insufficient information\b|^unknown\W*$|^n/a\W*$)"
    ))
});

/// Whether the text runs in circles: four words in a row that occur more than `max_repeats`
/// times, one word six times in a row, or a long run of one character.
pub(super) fn is_loop(text: &str, max_repeats: u32) -> bool {
    let words: Vec<String> = text.split_whitespace().map(str::to_lowercase).collect();
    let mut counts: HashMap<&[String], u32> = HashMap::new();
    for window in words.windows(4) {
        let count = counts.entry(window).or_default();
        *count += 1;
        if *count > max_repeats {
            return true;
        }
    }
    if words
        .windows(6)
        .any(|window| window.iter().all(|word| *word == window[0]))
    {
        return true;
    }
    let (mut last, mut run) = ('\0', 0);
    text.chars().any(|c| {
        run = if c == last { run + 1 } else { 1 };
        last = c;
        run >= 24 && !c.is_whitespace()
    })
}
