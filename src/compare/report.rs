//! The result of a comparison: numbers, answers, and the table a terminal shows.

use std::fmt;

use casebook_llm::lora::log::StepRecord;
use casebook_qa::score::{Estimate, exact_match, is_refusal, token_f1};
use serde::Serialize;

use super::reply::Reply;
use super::sets::{EvaluationSet, SetKind};

/// Base and tuned model on all sets.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The base model.
    pub base: String,
    /// The tuned model.
    pub tuned: String,
    /// One per evaluation set.
    pub sets: Vec<SetReport>,
    /// The steps that made the adapter, if its run log is there.
    #[serde(skip)]
    pub training: Vec<StepRecord>,
}

/// Both models on one set.
#[derive(Debug, Clone, Serialize)]
pub struct SetReport {
    /// What the set measures.
    pub kind: SetKind,
    /// Rows of the table that were not asked, because they are incomplete.
    pub incomplete: usize,
    /// The table has more rows than were asked.
    pub has_more: bool,
    /// Scores of the base model.
    pub base: Scores,
    /// Scores of the tuned model.
    pub tuned: Scores,
    /// Every question with both answers.
    #[serde(skip)]
    pub answers: Vec<Answered>,
}

/// How well a model did on a set; each with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Scores {
    /// Share of answers that say the expected words.
    pub exact_match: Estimate,
    /// Mean overlap of words.
    pub token_f1: Estimate,
    /// Share of answers that say there is none.
    pub refusal: Estimate,
    /// Answers that were cut at the token limit, and may have gone on.
    pub cut: usize,
}

/// One question with both answers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answered {
    /// What was asked.
    pub question: String,
    /// The right answer.
    pub expected: String,
    /// The base model's answer.
    pub base: String,
    /// The tuned model's answer.
    pub tuned: String,
}

impl SetReport {
    pub(super) fn new(set: EvaluationSet, base: Vec<Reply>, tuned: Vec<Reply>) -> Self {
        let cut = |replies: &[Reply]| replies.iter().filter(|reply| reply.cut).count();
        let (base_cut, tuned_cut) = (cut(&base), cut(&tuned));
        let answers: Vec<Answered> = set
            .items
            .into_iter()
            .zip(base.into_iter().zip(tuned))
            .map(|(item, (base, tuned))| Answered {
                question: item.question,
                expected: item.expected,
                base: base.text,
                tuned: tuned.text,
            })
            .collect();
        let scores = |answer: fn(&Answered) -> &str, cut| Scores::of(&answers, answer, cut);
        Self {
            kind: set.kind,
            incomplete: set.incomplete,
            has_more: set.has_more,
            base: scores(|a| &a.base, base_cut),
            tuned: scores(|a| &a.tuned, tuned_cut),
            answers,
        }
    }
}

impl SetReport {
    /// What of the table was not asked, in words; none if all was.
    pub(super) fn left_out(&self) -> Option<String> {
        let incomplete = (self.incomplete > 0).then(|| {
            let rows = if self.incomplete == 1 { "row" } else { "rows" };
            let without = match self.kind {
                SetKind::HeldOut => "document, question or answer",
                SetKind::Paraphrase => "paraphrase or answer",
                _ => "question or answer",
            };
            format!("{} {rows} without {without}", self.incomplete)
        });
        let more = self.has_more.then(|| {
            let asked = self.answers.len() + self.incomplete;
            format!("all rows after the first {asked} (max_questions)")
        });
        match (incomplete, more) {
            (Some(incomplete), Some(more)) => Some(format!("{incomplete}, and {more}")),
            (incomplete, more) => incomplete.or(more),
        }
    }
}

impl Scores {
    fn of(answers: &[Answered], answer: fn(&Answered) -> &str, cut: usize) -> Self {
        let n = answers.len();
        let count = |test: &dyn Fn(&Answered) -> bool| {
            Estimate::share(answers.iter().filter(|a| test(a)).count(), n)
        };
        let f1: Vec<f64> = answers
            .iter()
            .map(|a| token_f1(answer(a), &a.expected))
            .collect();
        Self {
            exact_match: count(&|a| exact_match(answer(a), &a.expected)),
            token_f1: Estimate::mean(&f1),
            refusal: count(&|a| is_refusal(answer(a))),
            cut,
        }
    }
}

/// `98 % (91-100)`
pub(super) fn percent(estimate: &Estimate) -> String {
    if estimate.n == 0 {
        return "-".into();
    }
    let whole = |share: f64| (share * 100.0).round();
    format!(
        "{} % ({}-{})",
        whole(estimate.mean),
        whole(estimate.low),
        whole(estimate.high)
    )
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "base:  {}\ntuned: {}\n", self.base, self.tuned)?;
        writeln!(
            f,
            "{:<20} {:>4}  {:<32} {:<32} refusals",
            "", "n", "exact match (95 % interval)", "token F1"
        )?;
        writeln!(
            f,
            "{:<20} {:>4}  {:<16}{:<16} {:<16}{:<16} {:<16}tuned",
            "set", "", "base", "tuned", "base", "tuned", "base"
        )?;
        for set in &self.sets {
            writeln!(
                f,
                "{:<20} {:>4}  {:<16}{:<16} {:<16}{:<16} {:<16}{}",
                set.kind.title(),
                set.answers.len(),
                percent(&set.base.exact_match),
                percent(&set.tuned.exact_match),
                percent(&set.base.token_f1),
                percent(&set.tuned.token_f1),
                percent(&set.base.refusal),
                percent(&set.tuned.refusal),
            )?;
        }
        let cut = |scores: fn(&SetReport) -> &Scores| -> usize {
            self.sets.iter().map(|set| scores(set).cut).sum()
        };
        let (base, tuned) = (cut(|set| &set.base), cut(|set| &set.tuned));
        if base + tuned > 0 {
            writeln!(
                f,
                "\ncut at the token limit: {base} answers of the base, {tuned} of the tuned model"
            )?;
        }
        for set in &self.sets {
            if let Some(left_out) = set.left_out() {
                write!(f, "\n{}: not asked: {left_out}", set.kind.title())?;
            }
        }
        if self.sets.iter().any(|set| set.left_out().is_some()) {
            writeln!(f)?;
        }
        for set in &self.sets {
            let Some(shown) = set.answers.iter().find(|a| a.base != a.tuned) else {
                continue;
            };
            write!(
                f,
                "\n{}: {}\n  expected  {}\n  base      {}\n  tuned     {}\n",
                set.kind.title(),
                shown.question,
                shown.expected,
                shown.base,
                shown.tuned
            )?;
        }
        Ok(())
    }
}
