//! Base model and tuned model side by side: what was learned, and what was forgotten.
//!
//! Both answer the same questions greedily. Five evaluation sets, never mixed up: questions that
//! were trained, the same facts in words that were not, other facts of the same documents, other
//! documents with the document in the prompt, and unrelated control questions.

mod page;
mod reply;
mod report;
mod sets;

use std::path::PathBuf;
use std::sync::Arc;

use casebook_llm::lora::log::{self, StepRecord};
use casebook_llm::lora::run::RUN;
use casebook_llm::{Finish, Request, Sampling};
use casebook_qa::profile::Profile;
use casebook_qa::prompt;
use datafusion::prelude::SessionContext;
use futures::{StreamExt, TryStreamExt};

use crate::context::Casebook;
use crate::error::{Error, ErrorKind, Result};
use crate::functions::lookup;
use crate::generator::Generator;
use crate::models::ModelSpec;
use crate::profiles;
use crate::stopping::Work;

use reply::Reply;
pub use report::{Answered, Report, Scores, SetReport};
pub use sets::{EvaluationSet, Item, SetKind};

/// Questions that are with a model at the same time.
const QUESTIONS_AHEAD: usize = 32;
/// Budget of an answer without a document; with one the profile has it.
const MAX_ANSWER_TOKENS: usize = 256;

/// What to compare. Tables are names in the session, or CSV, Parquet or JSON files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// The tuned model: a LORA table, an adapter directory, a `[models]` entry or a model directory.
    pub tuned: String,
    /// The base model; absent: the tuned one without its adapter.
    pub base: Option<String>,
    /// Profile whose prompts go around a document; absent: general.
    pub profile: Option<String>,
    /// Trained questions: columns question, answer, and paraphrase (the same fact, never trained).
    pub probes: Option<String>,
    /// Facts of the trained documents that were not trained: columns question, answer.
    pub other_facts: Option<String>,
    /// Questions on documents that were not trained: columns document, question, answer.
    pub held_out: Option<String>,
    /// Questions that tuning should not change: columns question, answer, perhaps document.
    pub control: Option<String>,
    /// At most this many questions per set; absent: 500.
    pub max_questions: Option<usize>,
    /// Where to write the comparison as one self-contained HTML page.
    pub html: Option<PathBuf>,
}

/// Refuses what [`compare`] would refuse before it asks anything, but for the models. Some questions
/// are `held_out` of training where no table of others is named.
///
/// # Errors
/// As [`compare`].
pub async fn check(ctx: &SessionContext, comparison: &Comparison, held_out: bool) -> Result<()> {
    if let Some(path) = &comparison.html {
        page::check(path)?;
    }
    sets::check(ctx, comparison, held_out).await
}

/// Asks both models everything, and writes the page if one is wanted.
///
/// # Errors
/// A model or table that is not there or lacks a column; no questions at all; a page that cannot
/// be written; [`ErrorKind::Interrupted`] after a cancellation.
pub async fn compare(
    ctx: &SessionContext,
    casebook: &Arc<Casebook>,
    comparison: &Comparison,
) -> Result<Report> {
    if let Some(path) = &comparison.html {
        page::check(path)?;
    }
    let host = ctx.state_weak_ref();
    let tuned = lookup::model(&casebook.models, &host, &comparison.tuned).await?;
    let base = match &comparison.base {
        Some(name) => lookup::model(&casebook.models, &host, name).await?,
        None if tuned.adapter.is_some() => ModelSpec {
            adapter: None,
            ..tuned.clone()
        },
        None => {
            return Err(Error::invalid(format!(
                "compare: '{}' has no adapter, so there is no base to compare it with; name one \
                 with base",
                comparison.tuned
            )));
        }
    };
    let sets = sets::read(ctx, comparison).await?;
    let progress = &casebook.progress;
    let questions: usize = sets.iter().map(|set| set.items.len()).sum();
    progress.compared.set(0);
    progress.compared_total.set(2 * questions as u64);
    let work = casebook.begin_work();
    let mut answers = vec![];
    for spec in [&base, &tuned] {
        let model = casebook.models.generator(spec).await?;
        let name = comparison.profile.as_deref().unwrap_or("general");
        let profile = profiles::resolve(casebook, name, model.profile_overlay())?;
        let mut per_set = vec![];
        for set in &sets {
            per_set.push(answer_all(casebook, &work, &model, &profile, set).await?);
        }
        answers.push(per_set.into_iter());
    }
    let (Some(tuned_answers), Some(base_answers)) = (answers.pop(), answers.pop()) else {
        return Err(Error::new(ErrorKind::Internal, "compare: answers are lost"));
    };
    let sets = sets
        .into_iter()
        .zip(base_answers.zip(tuned_answers))
        .map(|(set, (base, tuned))| SetReport::new(set, base, tuned))
        .collect();
    let directory = lookup::adapter_directory(&host, &comparison.tuned).await?;
    let report = Report {
        base: casebook.hidden.out_of(&base.shown()),
        tuned: casebook.hidden.out_of(&tuned.shown()),
        sets,
        training: training(&directory)?,
    };
    if let Some(path) = &comparison.html {
        page::write(path, &report)?;
    }
    Ok(report)
}

/// Greedy answers to the questions of `set`, in their order.
async fn answer_all(
    casebook: &Arc<Casebook>,
    work: &Work,
    model: &Generator,
    profile: &Profile,
    set: &EvaluationSet,
) -> Result<Vec<Reply>> {
    let session = model.session();
    let (session, progress) = (&session, &casebook.progress);
    let answers = futures::stream::iter(&set.items)
        .map(|item| async move {
            let reply = match &item.document {
                None => {
                    let request = greedy(MAX_ANSWER_TOKENS, profile);
                    session.chat(None, &item.question, &request).await?
                }
                Some(document) => {
                    let prefix = session.prefix(Some(&profile.system), document)?;
                    let task = prompt::answer_task(profile, &item.question);
                    let request = greedy(profile.max_answer_tokens, profile);
                    prefix.generate(&task, request).await?
                }
            };
            progress.compared.add(1);
            Ok::<_, Error>(Reply {
                text: reply.text.trim().to_owned(),
                cut: reply.finish == Finish::Length,
            })
        })
        .buffered(QUESTIONS_AHEAD)
        .try_collect();
    tokio::select! {
        answers = answers => answers,
        () = work.stopped() => Err(Error::new(
            ErrorKind::Interrupted,
            "the comparison was stopped; run it again",
        )),
    }
}

fn greedy(max_new_tokens: usize, profile: &Profile) -> Request {
    Request {
        sampling: Sampling {
            temperature: 0.0,
            ..Sampling::default()
        },
        seed: 0,
        max_new_tokens,
        stop: profile.stop.clone(),
    }
}

/// The steps of the run that made the adapter; none if it came from elsewhere.
fn training(directory: &std::path::Path) -> Result<Vec<StepRecord>> {
    let path = directory.join(RUN).join(log::FILE);
    if path.exists() {
        return Ok(log::read(&path)?);
    }
    Ok(vec![])
}
