//! The comparison as one HTML page that needs nothing beside it: scores, loss curve, answers.

use std::path::Path;

use casebook_llm::lora::log::StepRecord;
use casebook_llm::output;
use casebook_qa::score::{exact_match, is_refusal};
use minijinja::value::Serde;
use minijinja::{Environment, Value, context};
use serde::Serialize;

use super::report::{Answered, Report, Scores, SetReport};
use crate::error::{Error, ErrorKind, Result};

const TEMPLATE: &str = include_str!("page.html");
/// Size of the loss curve's plot area in SVG units.
const PLOT: (f64, f64) = (640.0, 220.0);
/// Points of a curve; longer runs are averaged down to it.
const CURVE_POINTS: usize = 400;

/// Writes the page to `path`: whole, or not at all.
pub(super) fn write(path: &Path, report: &Report) -> Result<()> {
    let html = render(report)?;
    output::write(path, html.as_bytes()).map_err(failed)
}

/// Refuses a `path` that [`write`] could not write to, before there is anything to write.
pub(super) fn check(path: &Path) -> Result<()> {
    output::check_file(path).map_err(failed)
}

fn failed(error: casebook_llm::Error) -> Error {
    let error = Error::from(error);
    let message = format!("writing the comparison: {error}");
    Error::new(error.kind(), message).with_source(error)
}

fn render(report: &Report) -> Result<String> {
    let mut environment = Environment::new();
    environment.add_filter("percent", |share: f64| format!("{:.0}", share * 100.0));
    let render = |e: minijinja::Error| {
        Error::new(
            ErrorKind::Internal,
            format!("the page cannot be made: {e:#}"),
        )
        .with_source(e)
    };
    // The name ends in .html, which makes every value escaped.
    environment
        .add_template("page.html", TEMPLATE)
        .map_err(render)?;
    let page = environment.get_template("page.html").map_err(render)?;
    let sets: Vec<Set> = report.sets.iter().map(Set::new).collect();
    page.render(context! {
        base => &report.base,
        tuned => &report.tuned,
        sets => Value::from(Serde(sets)),
        curve => Value::from(Serde(Curve::new(&report.training))),
    })
    .map_err(render)
}

/// A set as the template sees it.
#[derive(Serialize)]
struct Set<'a> {
    title: &'static str,
    meaning: &'static str,
    n: usize,
    left_out: Option<String>,
    base: &'a Scores,
    tuned: &'a Scores,
    answers: Vec<Row<'a>>,
}

/// A question as the template sees it.
#[derive(Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    answered: &'a Answered,
    base_verdict: &'static str,
    tuned_verdict: &'static str,
}

impl<'a> Set<'a> {
    fn new(set: &'a SetReport) -> Self {
        let verdict = |answer: &str, expected: &str| match answer {
            a if exact_match(a, expected) => "right",
            a if is_refusal(a) => "refusal",
            _ => "wrong",
        };
        let answers = set.answers.iter().map(|answered| Row {
            base_verdict: verdict(&answered.base, &answered.expected),
            tuned_verdict: verdict(&answered.tuned, &answered.expected),
            answered,
        });
        Self {
            title: set.kind.title(),
            meaning: set.kind.meaning(),
            n: set.answers.len(),
            left_out: set.left_out(),
            base: &set.base,
            tuned: &set.tuned,
            answers: answers.collect(),
        }
    }
}

/// The loss over the steps, in SVG units.
#[derive(Serialize)]
struct Curve {
    width: f64,
    height: f64,
    /// Each step (or the mean of a few), as `x,y x,y ...`.
    line: String,
    /// The mean of the last tenth of the run at each step.
    smooth: String,
    /// Horizontal lines: (y, label).
    levels: Vec<(f64, String)>,
    steps: u64,
    tokens: u64,
    first: f64,
    last: f64,
}

impl Curve {
    fn new(records: &[StepRecord]) -> Option<Self> {
        let (first, last) = (records.first()?, records.last()?);
        let stride = records.len().div_ceil(CURVE_POINTS);
        let points: Vec<(f64, f64)> = records
            .chunks(stride)
            .map(|part| {
                let loss = part.iter().map(|r| r.loss).sum::<f64>() / part.len() as f64;
                (part[part.len() - 1].step as f64, loss)
            })
            .collect();
        let window = points.len().div_ceil(10);
        let smooth: Vec<(f64, f64)> = (0..points.len())
            .map(|i| {
                let part = &points[(i + 1).saturating_sub(window)..=i];
                let mean = part.iter().map(|p| p.1).sum::<f64>() / part.len() as f64;
                (points[i].0, mean)
            })
            .collect();
        let top = points.iter().map(|p| p.1).fold(0.0, f64::max).max(1e-6);
        let unit = [0.1, 0.25, 0.5, 1.0, 2.0, 5.0]
            .into_iter()
            .find(|unit| top / unit <= 6.0)
            .unwrap_or(10.0);
        let top = (top / unit).ceil() * unit;
        let y = |loss: f64| PLOT.1 * (1.0 - loss / top);
        let path = |points: &[(f64, f64)]| {
            let at = |(step, loss): &(f64, f64)| {
                format!("{:.1},{:.1}", PLOT.0 * step / last.step as f64, y(*loss))
            };
            points.iter().map(at).collect::<Vec<_>>().join(" ")
        };
        let levels = (0..=(top / unit).round() as usize)
            .map(|i| (y(i as f64 * unit), format!("{}", i as f64 * unit)))
            .collect();
        Some(Self {
            width: PLOT.0,
            height: PLOT.1,
            line: path(&points),
            smooth: path(&smooth),
            levels,
            steps: last.step,
            tokens: records.iter().map(|r| r.tokens).sum(),
            first: first.loss,
            last: last.loss,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::reply::Reply;
    use crate::compare::{EvaluationSet, Item, SetKind};

    fn report() -> Report {
        let set = EvaluationSet {
            kind: SetKind::Seen,
            items: vec![Item {
                question: "Who won in <A> v. B?".into(),
                expected: "B".into(),
                document: None,
            }],
            incomplete: 2,
            has_more: true,
        };
        let step = |step: u64, loss: f64| StepRecord {
            step,
            epoch: 1.0,
            loss,
            learning_rate: 1e-3,
            grad_norm: 1.0,
            tokens: 10,
            supervised_tokens: 5,
            tokens_per_second: 1.0,
        };
        let reply = |text: &str, cut| Reply {
            text: text.into(),
            cut,
        };
        Report {
            base: "base".into(),
            tuned: "tuned".into(),
            sets: vec![SetReport::new(
                set,
                vec![reply("Not in document.", true)],
                vec![reply("B.", false)],
            )],
            training: (1..=1000).map(|i| step(i, 5.0 / i as f64)).collect(),
        }
    }

    #[test]
    fn the_page_is_whole_escaped_and_bounded() {
        let html = render(&report()).unwrap();
        let told = report().to_string();
        assert!(
            told.contains("1 answers of the base, 0 of the tuned"),
            "{told}"
        );
        assert!(html.contains("Who won in &lt;A&gt; v. B?"), "{html}");
        let left_out = "not asked: 2 rows without question or answer, and all rows after the first 3 \
                        (max_questions).";
        assert!(html.contains(left_out), "{html}");
        assert!(html.contains("class=\"refusal\"") && html.contains("class=\"right\""));
        assert!(
            !html.contains("src=") && !html.contains("href="),
            "needs other files"
        );
        let line = html.split("points=\"").nth(1).unwrap();
        let points = line.split('"').next().unwrap().split(' ').count();
        assert!(points <= CURVE_POINTS, "{points}");
    }

    #[test]
    fn a_comparison_without_a_run_log_has_no_curve() {
        let html = render(&Report {
            training: vec![],
            ..report()
        })
        .unwrap();
        assert!(!html.contains("polyline"));
    }
}
