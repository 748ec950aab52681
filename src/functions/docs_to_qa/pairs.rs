//! One document to rows: chunk, ask, answer, judge.
//!
//! Chunks are generated side by side but judged in order, so that what counts as a duplicate does
//! not depend on timing. Every question asked, and every chunk or document that yields none,
//! leaves a row.

use std::sync::Arc;

use casebook_llm::{Completion, Finish, Prefix, Request, TextTokenizer};
use casebook_qa::checks::{self, DocumentState, Pair, Reason, Status};
use casebook_qa::chunk::{Chunk, ChunkOptions, TokenCounter, chunks};
use casebook_qa::identity::{QaKey, branch_seed, qa_id};
use casebook_qa::profile::{QuestionMode, Sampling};
use casebook_qa::quota::spread;
use casebook_qa::{parse, prompt};
use datafusion::error::{DataFusionError, Result};
use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesOrdered;
use tokio::sync::mpsc;

use super::document::Document;
use super::generate::Query;
use super::rows::QaRow;

/// Tokens kept free in the context beyond chunk, task and reply: template and rounding.
const CONTEXT_MARGIN: usize = 32;

/// Generates the rows of `document` and sends them chunk by chunk. `first` is false if another
/// document with the same text, and no id either, came before.
pub(super) async fn document(
    query: Arc<Query>,
    document: Arc<Document>,
    first: bool,
    rows: mpsc::Sender<Vec<QaRow>>,
) -> Result<()> {
    let refuse = |reason| vec![query.row(&document, None, None).rejected(reason)];
    if document.text.trim().is_empty() {
        rows.send(refuse(Reason::EmptyText)).await.ok();
        return Ok(());
    }
    if !first {
        rows.send(refuse(Reason::DuplicateDocument)).await.ok();
        return Ok(());
    }
    let Some(options) = query.chunk_options(&document) else {
        rows.send(refuse(Reason::TooLong)).await.ok();
        return Ok(());
    };
    let ranges = split(Arc::clone(&query), Arc::clone(&document), options).await?;
    if ranges.is_empty() {
        rows.send(refuse(Reason::EmptyText)).await.ok();
        return Ok(());
    }
    let profile = &query.profile;
    let mut order = spread(
        ranges.len(),
        profile.questions_per_chunk,
        profile.max_pairs_per_document,
        branch_seed(profile.seed, &document.id, 0, 0),
    )
    .map(|i| ranges[i]);
    let mut state = DocumentState::default();
    let mut remaining = profile.max_pairs_per_document.unwrap_or(usize::MAX);
    let mut asked_ahead = 0;
    let mut generating = FuturesOrdered::new();
    loop {
        // Never ask for more than the quota still allows: a pair too many would be paid for and
        // then dropped.
        while generating.len() < query.chunks_ahead && asked_ahead < remaining {
            let Some(chunk) = order.next() else { break };
            let questions = profile.questions_per_chunk.min(remaining - asked_ahead);
            asked_ahead += questions;
            let (query, document) = (&query, &document);
            generating.push_back(async move {
                (
                    questions,
                    chunk_pairs(query, document, chunk, questions).await,
                )
            });
        }
        let Some((questions, work)) = generating.next().await else {
            return Ok(());
        };
        asked_ahead -= questions;
        let work = work?;
        let judged = judge(&query, &document, work, &mut state);
        remaining -= judged
            .iter()
            .filter(|row| row.status == Status::Ok)
            .count()
            .min(remaining);
        if rows.send(judged).await.is_err() {
            return Ok(());
        }
    }
}

/// The document's chunks, found off the async threads: tokenising a long text takes a while.
async fn split(
    query: Arc<Query>,
    document: Arc<Document>,
    options: ChunkOptions,
) -> Result<Vec<Chunk>> {
    tokio::task::spawn_blocking(move || {
        let counter = Counter(query.engine.tokenizer());
        chunks(&document.text, &counter, &options).collect()
    })
    .await
    .map_err(|e| DataFusionError::ExecutionJoin(Box::new(e)))
}

struct Counter<'a>(&'a TextTokenizer);

impl TokenCounter for Counter<'_> {
    fn count(&self, text: &str) -> usize {
        // A text that cannot be tokenised fits nowhere; its row says why when it is prefilled.
        self.0.count(text).unwrap_or(usize::MAX / 4)
    }
}

/// A chunk with what the model made of it, not yet judged.
struct ChunkWork {
    chunk: Chunk,
    text: String,
    rendered: String,
    pairs: Vec<RawPair>,
}

/// A question, perhaps with its answer.
#[derive(Default)]
struct RawPair {
    question: Option<String>,
    answer: Option<String>,
    question_truncated: bool,
    answer_truncated: bool,
    prompt_tokens: usize,
    output_tokens: usize,
    failed: Option<Reason>,
}

/// Asks `questions` questions about `chunk` and answers those worth answering. Errors of the
/// engine become rows; only a cancelled or lost task is an error here.
async fn chunk_pairs(
    query: &Query,
    document: &Document,
    chunk: Chunk,
    questions: usize,
) -> Result<ChunkWork> {
    let profile = &query.profile;
    let text = document.text[chunk.start..chunk.end].to_owned();
    let rendered = prompt::document(&document.header, &text, profile);
    let mut work = ChunkWork {
        chunk,
        text,
        rendered,
        pairs: vec![],
    };
    let prefix = match query.session.prefix(Some(&profile.system), &work.rendered) {
        Ok(prefix) => prefix,
        Err(error) => {
            work.pairs.push(RawPair::failed(&error));
            return Ok(work);
        }
    };
    let asked = match profile.question_mode {
        QuestionMode::Branch => {
            let ask = |n| ask_one(query, document, &work, &prefix, n, questions);
            join_all((1..=questions).map(ask)).await
        }
        QuestionMode::List => ask_list(query, document, &work, &prefix, questions).await,
    };
    let answers = asked
        .into_iter()
        .map(|pair| answer(query, document, &work, &prefix, pair));
    work.pairs = join_all(answers).await;
    Ok(work)
}

async fn ask_one(
    query: &Query,
    document: &Document,
    work: &ChunkWork,
    prefix: &Prefix,
    number: usize,
    of: usize,
) -> RawPair {
    let profile = &query.profile;
    let task = prompt::ask_task(profile, number, of);
    let seed = branch_seed(profile.seed, &document.id, work.chunk.no, number as i32);
    let request = request(
        &profile.question_sampling,
        seed,
        profile.max_question_tokens,
    );
    let reply = match generate(prefix, &task, request).await {
        Ok(reply) => reply,
        Err(error) => return RawPair::failed(&error),
    };
    let mut pair = RawPair::from_question(&reply);
    pair.question = parse::questions(&reply.text, profile.question_mode)
        .into_iter()
        .next();
    pair
}

async fn ask_list(
    query: &Query,
    document: &Document,
    work: &ChunkWork,
    prefix: &Prefix,
    questions: usize,
) -> Vec<RawPair> {
    let profile = &query.profile;
    let task = prompt::ask_task(profile, 1, questions);
    let seed = branch_seed(profile.seed, &document.id, work.chunk.no, 1);
    let budget = profile.max_question_tokens * questions;
    let request = request(&profile.question_sampling, seed, budget);
    let reply = match generate(prefix, &task, request).await {
        Ok(reply) => reply,
        Err(error) => return vec![RawPair::failed(&error)],
    };
    let mut found = parse::questions(&reply.text, profile.question_mode);
    let cut = reply.finish == Finish::Length && found.len() > 1;
    if cut {
        // The last item of a list that ran out of budget is half a question.
        found.pop();
    }
    if found.is_empty() {
        return vec![RawPair::from_question(&reply)];
    }
    let mut pairs: Vec<RawPair> = found
        .into_iter()
        .take(questions)
        .map(|question| RawPair {
            question: Some(question),
            ..RawPair::default()
        })
        .collect();
    // The list was paid for once: its tokens stand with the first question.
    if let Some(first) = pairs.first_mut() {
        (first.prompt_tokens, first.output_tokens) = (reply.prompt_tokens, reply.output_tokens);
    }
    pairs
}

/// Adds the answer, unless the question would be rejected anyway.
async fn answer(
    query: &Query,
    document: &Document,
    work: &ChunkWork,
    prefix: &Prefix,
    mut pair: RawPair,
) -> RawPair {
    let profile = &query.profile;
    let Some(question) = pair.question.clone().filter(|_| pair.failed.is_none()) else {
        return pair;
    };
    let state = DocumentState::default();
    let verdict = checks::judge_question(
        &profile.checks,
        &pair.as_pair(&document.header, &work.text),
        &state,
    );
    if verdict.is_some() {
        return pair;
    }
    let task = prompt::answer_task(profile, &question);
    let seed = branch_seed(profile.seed, &document.id, work.chunk.no, -1);
    let request = request(&profile.answer_sampling, seed, profile.max_answer_tokens);
    match generate(prefix, &task, request).await {
        Ok(reply) => {
            pair.answer = Some(parse::answer(&reply.text)).filter(|a| !a.is_empty());
            pair.answer_truncated = reply.finish == Finish::Length;
            pair.prompt_tokens += reply.prompt_tokens;
            pair.output_tokens += reply.output_tokens;
        }
        Err(error) => pair.failed = Some(reason(&error)),
    }
    pair
}

/// Generates; a reply that ran out of budget gets one more try with twice the budget.
async fn generate(
    prefix: &Prefix,
    task: &str,
    request: Request,
) -> casebook_llm::Result<Completion> {
    let reply = prefix.generate(task, request.clone()).await?;
    if reply.finish != Finish::Length {
        return Ok(reply);
    }
    let more = Request {
        max_new_tokens: request.max_new_tokens * 2,
        ..request
    };
    let mut second = prefix.generate(task, more).await?;
    second.prompt_tokens += reply.prompt_tokens;
    second.output_tokens += reply.output_tokens;
    Ok(second)
}

fn request(sampling: &Sampling, seed: u64, max_new_tokens: usize) -> Request {
    Request {
        sampling: casebook_llm::Sampling {
            temperature: sampling.temperature as f32,
            top_k: sampling.top_k,
            top_p: sampling.top_p as f32,
            min_p: sampling.min_p as f32,
        },
        seed,
        max_new_tokens,
        stop: vec![],
    }
}

/// Turns a chunk's pairs into rows, in question order.
fn judge(
    query: &Query,
    document: &Document,
    work: ChunkWork,
    state: &mut DocumentState,
) -> Vec<QaRow> {
    if work.pairs.is_empty() {
        return vec![
            query
                .row(document, Some(&work), None)
                .rejected(Reason::NoQuestion),
        ];
    }
    let rows = work.pairs.iter().enumerate().map(|(i, pair)| {
        let mut row = query.row(document, Some(&work), Some(i as i32 + 1));
        row.question.clone_from(&pair.question);
        row.answer.clone_from(&pair.answer);
        row.prompt_tokens = i32::try_from(pair.prompt_tokens).ok();
        row.output_tokens = i32::try_from(pair.output_tokens).ok();
        if let Some(reason) = pair.failed {
            row.status = match reason {
                Reason::EngineError => Status::Failed,
                _ => Status::Rejected,
            };
            row.reason = Some(reason);
            return row;
        }
        let verdict = checks::judge(
            &query.profile.checks,
            &pair.as_pair(&document.header, &work.text),
            state,
        );
        row.status = verdict.status;
        row.reason = verdict.reason;
        row.grounding = verdict.grounding;
        row
    });
    rows.collect()
}

impl RawPair {
    fn failed(error: &casebook_llm::Error) -> Self {
        Self {
            failed: Some(reason(error)),
            ..Self::default()
        }
    }

    fn from_question(reply: &Completion) -> Self {
        Self {
            question_truncated: reply.finish == Finish::Length,
            prompt_tokens: reply.prompt_tokens,
            output_tokens: reply.output_tokens,
            ..Self::default()
        }
    }

    fn as_pair<'a>(&'a self, header: &'a str, chunk: &'a str) -> Pair<'a> {
        Pair {
            question: self.question.as_deref().unwrap_or_default(),
            answer: self.answer.as_deref().unwrap_or_default(),
            question_truncated: self.question_truncated,
            answer_truncated: self.answer_truncated,
            header,
            chunk,
        }
    }
}

/// The row reason for an engine error.
fn reason(error: &casebook_llm::Error) -> Reason {
    match error.kind() {
        casebook_llm::ErrorKind::InvalidInput => Reason::TooLong,
        _ => Reason::EngineError,
    }
}

impl Query {
    /// The chunk budget for `document`; none if its header alone fills the context.
    fn chunk_options(&self, document: &Document) -> Option<ChunkOptions> {
        let profile = &self.profile;
        let count = |text: &str| Counter(self.engine.tokenizer()).count(text);
        let replies = profile.max_question_tokens + 2 * profile.max_answer_tokens;
        let task = count(&prompt::answer_task(profile, "")).max(count(&prompt::ask_task(
            profile,
            1,
            profile.questions_per_chunk,
        )));
        let fixed =
            count(&profile.system) + count(&document.header) + task + replies + CONTEXT_MARGIN;
        let free = self.engine.info().context_tokens.checked_sub(fixed)?;
        let max_tokens = profile.max_chunk_tokens.min(free);
        (max_tokens >= profile.max_chunk_tokens.min(16)).then(|| ChunkOptions {
            max_tokens,
            overlap_tokens: profile.overlap_tokens.min(max_tokens / 2),
            normalize: true,
        })
    }

    fn row(&self, document: &Document, work: Option<&ChunkWork>, number: Option<i32>) -> QaRow {
        let (start, end) = work
            .map(|w| (w.chunk.start, w.chunk.end))
            .unwrap_or_default();
        let key = QaKey {
            doc_id: &document.id,
            prefix: work.map(|w| w.rendered.as_str()).unwrap_or_default(),
            chunk_start: start,
            chunk_end: end,
            profile_hash: &self.profile_hash,
            model_digest: &self.engine.info().digest,
            seed: self.profile.seed,
            question_no: number.unwrap_or(0),
        };
        QaRow {
            qa_id: qa_id(&key),
            chunk: work.map(|w| (w.chunk.no, start, end)),
            question_no: number,
            question: None,
            answer: None,
            status: Status::Ok,
            reason: None,
            grounding: None,
            prompt_tokens: None,
            output_tokens: None,
        }
    }
}

impl QaRow {
    fn rejected(mut self, reason: Reason) -> Self {
        (self.status, self.reason) = (Status::Rejected, Some(reason));
        self
    }
}
