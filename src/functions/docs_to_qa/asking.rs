//! One chunk to questions and answers, not yet judged.

use std::sync::Arc;

use casebook_llm::{Finish, Request};
use casebook_qa::checks::{self, DocumentState, Pair, Reason};
use casebook_qa::chunk::Chunk;
use casebook_qa::identity::branch_seed;
use casebook_qa::profile::{Profile, QuestionMode, Sampling};
use casebook_qa::{parse, prompt};
use datafusion::error::Result;
use futures::future::join_all;

use super::document::Document;
use super::query::Query;
use crate::error::{Error, ErrorKind};
use crate::generator::{Prefix, Reply, Tokens};

/// A chunk with what the model made of it, not yet judged.
pub(super) struct ChunkWork {
    pub(super) chunk: Chunk,
    pub(super) text: String,
    /// Header and text as the model reads them.
    pub(super) rendered: Arc<str>,
    pub(super) pairs: Vec<RawPair>,
}

/// A question, perhaps with its answer.
#[derive(Default)]
pub(super) struct RawPair {
    pub(super) question: Option<String>,
    pub(super) answer: Option<String>,
    question_truncated: bool,
    answer_truncated: bool,
    pub(super) prompt_tokens: Tokens,
    pub(super) output_tokens: Tokens,
    pub(super) failed: Option<Reason>,
    /// What the engine said, if it failed.
    pub(super) failure: Option<String>,
}

/// Asks `questions` questions about `chunk` and answers those worth answering. Errors of the
/// engine become rows; only a cancelled or lost task is an error here.
pub(super) async fn chunk_pairs(
    query: &Query,
    document: &Document,
    chunk: Chunk,
    questions: usize,
) -> Result<ChunkWork> {
    let profile = &query.profile;
    let text = document.text[chunk.start..chunk.end].to_owned();
    let rendered = prompt::document(&document.header, &text, profile).into();
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
    let tokens = profile.max_question_tokens;
    let request = request(profile, &profile.question_sampling, seed, tokens);
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
    let request = request(profile, &profile.question_sampling, seed, budget);
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
    let tokens = profile.max_answer_tokens;
    let request = request(profile, &profile.answer_sampling, seed, tokens);
    match generate(prefix, &task, request).await {
        Ok(reply) => {
            pair.answer = Some(parse::answer(&reply.text)).filter(|a| !a.is_empty());
            pair.answer_truncated = reply.finish == Finish::Length;
            pair.prompt_tokens = pair.prompt_tokens.plus(reply.prompt_tokens);
            pair.output_tokens = pair.output_tokens.plus(reply.output_tokens);
        }
        Err(error) => pair.fail(&error),
    }
    pair
}

/// Generates; a reply that ran out of budget gets one more try with twice the budget.
async fn generate(prefix: &Prefix, task: &str, request: Request) -> crate::Result<Reply> {
    let reply = prefix.generate(task, request.clone()).await?;
    if reply.finish != Finish::Length {
        return Ok(reply);
    }
    let more = Request {
        max_new_tokens: request.max_new_tokens * 2,
        ..request
    };
    let mut second = prefix.generate(task, more).await?;
    second.prompt_tokens = second.prompt_tokens.plus(reply.prompt_tokens);
    second.output_tokens = second.output_tokens.plus(reply.output_tokens);
    Ok(second)
}

fn request(profile: &Profile, sampling: &Sampling, seed: u64, max_new_tokens: usize) -> Request {
    Request {
        sampling: casebook_llm::Sampling {
            temperature: sampling.temperature as f32,
            top_k: sampling.top_k,
            top_p: sampling.top_p as f32,
            min_p: sampling.min_p as f32,
        },
        seed,
        max_new_tokens,
        stop: profile.stop.clone(),
    }
}

impl RawPair {
    fn failed(error: &Error) -> Self {
        let mut pair = Self::default();
        pair.fail(error);
        pair
    }

    fn fail(&mut self, error: &Error) {
        self.failed = Some(reason(error));
        self.failure = Some(error.to_string());
    }

    fn from_question(reply: &Reply) -> Self {
        Self {
            question_truncated: reply.finish == Finish::Length,
            prompt_tokens: reply.prompt_tokens,
            output_tokens: reply.output_tokens,
            ..Self::default()
        }
    }

    pub(super) fn as_pair<'a>(&'a self, header: &'a str, chunk: &'a str) -> Pair<'a> {
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
fn reason(error: &Error) -> Reason {
    match error.kind() {
        ErrorKind::InvalidInput => Reason::TooLong,
        _ => Reason::EngineError,
    }
}
