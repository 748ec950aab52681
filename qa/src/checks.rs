//! Is this pair good enough to train on?
//!
//! Rules in the order of their cost, first hit wins, each with a reason that ends up in the row.
//! [`judge_question`] can run before an answer is paid for; [`judge`] decides about the row.
//! The rules are lexical: they catch what is visibly wrong, they do not judge meaning.

mod answer;
mod duplicate;
mod grounding;
mod question;
mod words;

use regex::Regex;
use serde::{Deserialize, Serialize};

pub(crate) use answer::says_not_there;
pub use grounding::grounding;

use crate::header::CASE_LABEL;
use duplicate::Seen;
use grounding::Source;

/// Which checks run, and their thresholds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Checks {
    /// Reject what stopped at the token limit.
    pub truncated: bool,
    /// Reject questions that do not read as one.
    pub not_a_question: bool,
    /// Reject questions that need the page ("the text", "this case").
    pub leans_on_document: bool,
    /// Reject questions without the case name, where the header has one.
    pub unnamed_document: bool,
    /// Reject preambles such as "Based on the text".
    pub boilerplate: bool,
    /// Reject questions already asked about the document.
    pub duplicate: bool,
    /// Word 3-gram overlap (Jaccard, 0 to 1) from which two questions are the same; 1: only exact.
    pub near_duplicate: f64,
    /// Reject answers, and names and numbers in questions, that the chunk does not support.
    pub ungrounded: bool,
    /// Least [`grounding`] of an answer, 0 to 1.
    pub min_grounding: f64,
    /// Reject answers that say there is none.
    pub not_in_document: bool,
    /// Reject output that repeats itself.
    pub degenerate: bool,
    /// How often the same four words may occur in one text before it counts as a loop.
    pub max_repeats: u32,
}

impl Default for Checks {
    fn default() -> Self {
        Self {
            truncated: true,
            not_a_question: true,
            leans_on_document: true,
            unnamed_document: true,
            boilerplate: true,
            duplicate: true,
            near_duplicate: 0.7,
            ungrounded: true,
            min_grounding: 0.5,
            not_in_document: true,
            degenerate: true,
            max_repeats: 4,
        }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Why a row is not ok.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Reason {
            $($(#[$doc])* $variant,)*
        }

        impl Reason {
            /// All reasons, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word in the `reason` column.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

reasons! {
    /// The output stopped at the token limit.
    Truncated = "truncated",
    /// The question does not read as one.
    NotAQuestion = "not_a_question",
    /// The question needs the page.
    LeansOnDocument = "leans_on_document",
    /// The question does not name the case.
    UnnamedDocument = "unnamed_document",
    /// A preamble instead of the matter.
    Boilerplate = "boilerplate",
    /// Asked before about the same document.
    Duplicate = "duplicate",
    /// Names, numbers or too many words that the chunk does not have.
    Ungrounded = "ungrounded",
    /// The answerer found no answer.
    NotInDocument = "not_in_document",
    /// The output repeats itself.
    Degenerate = "degenerate",
    /// The prompt does not fit the model's context.
    TooLong = "too_long",
    /// The document has no text.
    EmptyText = "empty_text",
    /// The same text was seen before under no id of its own.
    DuplicateDocument = "duplicate_document",
    /// The asker wrote nothing.
    NoQuestion = "no_question",
    /// The answerer wrote nothing.
    NoAnswer = "no_answer",
    /// The engine failed on this row.
    EngineError = "engine_error",
}

/// What became of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// Fit to train on.
    Ok,
    /// Generated, but a check said no.
    Rejected,
    /// Not generated.
    Failed,
}

impl Status {
    /// The word in the `status` column.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Rejected => "rejected",
            Self::Failed => "failed",
        }
    }
}

impl Reason {
    /// Whether the row failed (nothing usable was generated) rather than being rejected.
    pub fn status(self) -> Status {
        match self {
            Self::TooLong
            | Self::EmptyText
            | Self::DuplicateDocument
            | Self::NoQuestion
            | Self::NoAnswer
            | Self::EngineError => Status::Failed,
            _ => Status::Rejected,
        }
    }
}

/// The outcome of the checks on a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// What became of it.
    pub status: Status,
    /// Absent exactly when ok.
    pub reason: Option<Reason>,
    /// [`grounding`] of the answer; absent without one.
    pub grounding: Option<f32>,
}

impl Verdict {
    /// Nothing to object to.
    pub const OK: Self = Self {
        status: Status::Ok,
        reason: None,
        grounding: None,
    };

    /// A verdict for `reason`, with the status that goes with it.
    pub fn of(reason: Reason) -> Self {
        Self {
            status: reason.status(),
            reason: Some(reason),
            grounding: None,
        }
    }

    /// Whether the row may be used.
    pub fn is_ok(&self) -> bool {
        self.status == Status::Ok
    }
}

/// A generated pair and what it was generated from. [`judge_question`] does not look at the answer.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pair<'a> {
    /// The parsed question.
    pub question: &'a str,
    /// The parsed answer.
    pub answer: &'a str,
    /// The question stopped at the token limit.
    pub question_truncated: bool,
    /// The answer stopped at the token limit.
    pub answer_truncated: bool,
    /// [`crate::prompt::header`] of the document.
    pub header: &'a str,
    /// The chunk, as it is or normalised.
    pub chunk: &'a str,
}

/// What the checks remember about one document: the questions that passed, and
/// the words of the chunk at hand. Make one per document; rows of one document go in order.
#[derive(Debug, Default)]
pub struct DocumentState {
    seen: Seen,
    source: Option<Source>,
}

impl DocumentState {
    /// For a document about which nothing has been asked.
    pub fn new() -> Self {
        Self::default()
    }

    /// Remembers a question that is already in the target table, so that resumed work does not
    /// repeat it.
    pub fn remember(&mut self, question: &str, header: &str) {
        self.seen.insert(question, case_name(header));
    }

    /// The words of the pair's chunk, kept while the chunk stays the same.
    fn source(&mut self, pair: &Pair<'_>) -> &Source {
        self.source
            .take_if(|source| !source.is_of(pair.header, pair.chunk));
        self.source
            .get_or_insert_with(|| Source::new(pair.header, pair.chunk))
    }
}

/// The whole pair: its question, and if that passes, its answer. A question that passes is
/// remembered: the same one later is a duplicate, whatever became of the answer.
///
/// ```
/// use casebook_qa::checks::{Checks, DocumentState, Pair, Reason, judge};
/// let mut state = DocumentState::new();
/// let pair = Pair {
///     question: "What did the court affirm in Monga v. Glover Landing?",
///     answer: "The court affirmed the fee award of $301,709.56.",
///     header: "Case: Monga v. Glover Landing",
///     chunk: "The fee award of $301,709.56 arose from a complaint. We affirm.",
///     ..Pair::default()
/// };
/// assert!(judge(&Checks::default(), &pair, &mut state).is_ok());
/// let again = judge(&Checks::default(), &pair, &mut state);
/// assert_eq!(again.reason, Some(Reason::Duplicate));
/// ```
pub fn judge(checks: &Checks, pair: &Pair<'_>, state: &mut DocumentState) -> Verdict {
    state.source(pair);
    if let Some(reason) = judge_question(checks, pair, state) {
        return Verdict::of(reason);
    }
    state.remember(pair.question, pair.header);
    judge_answer(checks, pair, state.source(pair))
}

/// What is wrong with the question alone, if anything; run it before an answer is paid for. It
/// remembers nothing: [`judge`] does.
pub fn judge_question(checks: &Checks, pair: &Pair<'_>, state: &DocumentState) -> Option<Reason> {
    let case = case_name(pair.header);
    let complaint = question::complaint(checks, pair, case);
    if complaint.is_some() {
        return complaint;
    }
    let kept = state
        .source
        .as_ref()
        .filter(|source| source.is_of(pair.header, pair.chunk));
    let supported = |source: &Source| source.supports_question(pair.question);
    if checks.ungrounded
        && !kept.map_or_else(
            || supported(&Source::new(pair.header, pair.chunk)),
            supported,
        )
    {
        return Some(Reason::Ungrounded);
    }
    let repeated = checks.duplicate
        && state
            .seen
            .contains(pair.question, case, checks.near_duplicate);
    repeated.then_some(Reason::Duplicate)
}

fn judge_answer(checks: &Checks, pair: &Pair<'_>, source: &Source) -> Verdict {
    let reason = answer::complaint(checks, pair);
    if reason == Some(Reason::NoAnswer) {
        return Verdict::of(Reason::NoAnswer);
    }
    let grounding = source.grounding(pair.answer, pair.question);
    let low = checks.ungrounded && f64::from(grounding) < checks.min_grounding;
    let reason = reason.or(low.then_some(Reason::Ungrounded));
    Verdict {
        grounding: Some(grounding),
        ..reason.map_or(Verdict::OK, Verdict::of)
    }
}

/// The name after "Case:" in a header.
fn case_name(header: &str) -> Option<&str> {
    header
        .lines()
        .find_map(|line| line.strip_prefix(CASE_LABEL)?.strip_prefix(':'))
        .map(str::trim)
}

/// Compiles a pattern that is part of the program.
#[expect(
    clippy::expect_used,
    reason = "constant patterns, each compiled by the tests"
)]
pub(crate) fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a constant pattern")
}

#[cfg(test)]
mod tests;
