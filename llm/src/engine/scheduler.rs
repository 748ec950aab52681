//! What runs next: admission of branches, one packed step after the other, completions.
//!
//! Nothing here knows text except through [`Reply`], and nothing here is asynchronous: this is
//! the engine's thread.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use candle_core::{DType, Tensor};
use rayon::prelude::*;
use tokio::sync::mpsc::{self, error::TryRecvError};
use tokio::sync::oneshot;

use super::branch::{Branch, lost};
use super::message::{BranchRequest, Message, Node, NodeKind};
use super::options::Limits;
use super::reply::Reply;
use super::request::{Completion, Request};
use super::sampler::sample;
use super::tally::add;
use super::tree::Tree;
use crate::model::{Decoder, Prompter, StepSegment};
use crate::{Error, Result};

/// Branches that may start before an older one whose prefix has no place yet.
const MAX_OVERTAKERS: usize = 256;
/// How often an idle engine looks for work on resident prefixes before it gives one up, and how
/// long it waits each time: callers that just got a question back ask for its answer next.
const GRACE_LOOKS: usize = 50;
const GRACE_WAIT: Duration = Duration::from_millis(1);

/// Rows of one step.
#[derive(Debug)]
enum Rows {
    /// Tokens of a shared node.
    Node {
        node: Arc<Node>,
        range: Range<usize>,
    },
    /// Tokens of a branch's suffix.
    Suffix { branch: usize, range: Range<usize> },
    /// The last sampled token of a branch.
    Decode { branch: usize },
}

/// The engine's thread.
#[derive(Debug)]
pub(crate) struct Scheduler {
    decoder: Decoder,
    prompter: Arc<Prompter>,
    limits: Limits,
    receiver: mpsc::Receiver<Message>,
    cached: Arc<AtomicUsize>,
    tree: Tree,
    waiting: VecDeque<BranchRequest>,
    active: Vec<Branch>,
    overtakers: usize,
}

impl Scheduler {
    pub(crate) fn new(
        decoder: Decoder,
        prompter: Arc<Prompter>,
        limits: Limits,
        receiver: mpsc::Receiver<Message>,
        cached: Arc<AtomicUsize>,
    ) -> Self {
        Self {
            decoder,
            prompter,
            limits,
            receiver,
            cached,
            tree: Tree::default(),
            waiting: VecDeque::new(),
            active: Vec::new(),
            overtakers: 0,
        }
    }

    /// Runs until every handle of the engine is gone.
    pub(crate) fn run(mut self) {
        let mut looks = 0;
        loop {
            if self.active.is_empty() && self.waiting.is_empty() {
                self.tree.sweep();
                self.publish();
                match self.receiver.blocking_recv() {
                    Some(message) => self.receive(message),
                    None => return,
                }
            }
            while self.waiting.len() < self.limits.queue_capacity {
                match self.receiver.try_recv() {
                    Ok(message) => self.receive(message),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
            self.waiting.retain(|ask| !ask.reply.is_closed());
            self.active.retain(|branch| !branch.ask.reply.is_closed());
            self.tree.sweep();
            self.admit();
            if self.active.is_empty() && !self.waiting.is_empty() {
                looks += 1;
                if looks <= GRACE_LOOKS {
                    std::thread::sleep(GRACE_WAIT);
                } else {
                    self.make_room();
                }
                continue;
            }
            looks = 0;
            self.publish();
            if !self.active.is_empty()
                && let Err(error) = self.step()
            {
                self.fail(error);
            }
        }
    }

    fn receive(&mut self, message: Message) {
        match message {
            Message::Generate(ask) => self.waiting.push_back(*ask),
            Message::Released => {}
        }
    }

    fn publish(&self) {
        self.cached.store(self.used(), Ordering::Relaxed);
    }

    /// Tokens with a place or a promise of one.
    fn used(&self) -> usize {
        self.tree.tokens() + self.active.iter().map(|b| b.reserved).sum::<usize>()
    }

    /// Tokens a branch needs beside its prefix.
    fn reserve(&self, ask: &BranchRequest) -> usize {
        let room = self
            .decoder
            .config
            .context_tokens()
            .saturating_sub(ask.prompt_tokens());
        ask.suffix.len() + ask.request.max_new_tokens.min(room)
    }

    /// Starts waiting branches in order of arrival. One whose prefix finds no place lets those
    /// pass whose prefix has one, but not for ever.
    fn admit(&mut self) {
        let mut at = 0;
        let mut blocked = false;
        let mut used = self.used();
        while at < self.waiting.len() && self.active.len() < self.limits.max_rows {
            let ask = &self.waiting[at];
            let path = ask.path();
            let reserve = self.reserve(ask);
            let missing = self.tree.missing(&path);
            let fits = used + missing + reserve <= self.limits.max_cached_tokens;
            let may_start =
                fits && (!blocked || (missing == 0 && self.overtakers < MAX_OVERTAKERS));
            if !may_start {
                blocked = true;
                at += 1;
                continue;
            }
            if blocked {
                self.overtakers += 1;
            } else {
                self.overtakers = 0;
            }
            if let Some(ask) = self.waiting.remove(at) {
                match self.start(ask, path, reserve) {
                    Ok(branch) => self.active.push(branch),
                    Err((reply, error)) => drop(reply.send(Err(error))),
                }
                used = self.used();
            }
        }
    }

    #[allow(clippy::type_complexity)] // the reply channel of a branch that could not start
    fn start(
        &mut self,
        ask: BranchRequest,
        path: Vec<Arc<Node>>,
        reserved: usize,
    ) -> Result<Branch, (oneshot::Sender<Result<Completion>>, Error)> {
        let prompt_tokens = ask.prompt_tokens();
        let shared = match self.tree.place(&path, &self.decoder) {
            Ok(shared) => shared,
            Err(error) => return Err((ask.reply, error)),
        };
        add(&ask.tally.branches, 1);
        add(&ask.tally.prompt, prompt_tokens);
        add(&ask.tally.shared, shared);
        let room = self
            .decoder
            .config
            .context_tokens()
            .saturating_sub(prompt_tokens);
        let reply = Reply::new(&ask.request, &self.prompter, room);
        let blocks = Vec::new();
        Ok(Branch {
            path,
            prompt_tokens,
            fed: 0,
            next: None,
            blocks,
            reserved,
            reply,
            ask,
        })
    }

    /// Nothing runs and the oldest waiting branch does not fit: gives up prefixes that are held
    /// but not in use, or the branch if that cannot help.
    fn make_room(&mut self) {
        let Some(ask) = self.waiting.front() else {
            return;
        };
        let path = ask.path();
        let reserve = self.reserve(ask);
        while self.used() + self.tree.missing(&path) + reserve > self.limits.max_cached_tokens {
            if !self.tree.evict(&path) {
                let need = path.iter().map(|n| n.tokens.len()).sum::<usize>() + reserve;
                let error = Error::exhausted(format!(
                    "a prompt and its reply need room for {need} tokens, max_cached_tokens is {}; \
                     raise it, use smaller chunks or lower max_new_tokens",
                    self.limits.max_cached_tokens
                ));
                if let Some(ask) = self.waiting.pop_front() {
                    drop(ask.reply.send(Err(error)));
                }
                return;
            }
        }
    }

    /// After a failed step every branch ends, and no key or value is trusted.
    fn fail(&mut self, error: Error) {
        let kind = error.kind;
        let cause = error
            .source
            .as_ref()
            .map(|s| format!(" ({s})"))
            .unwrap_or_default();
        let message = format!("a step of the model failed: {error}{cause}");
        for branch in self.active.drain(..) {
            drop(
                branch
                    .ask
                    .reply
                    .send(Err(Error::new(kind, message.clone()))),
            );
        }
        self.tree.clear();
    }

    /// Rows of the next step: all replying branches, and prompts within the budget.
    fn plan(&self) -> Vec<Rows> {
        let replying = |b: &Branch| b.next.is_some();
        let mut decode: Vec<usize> = (0..self.active.len())
            .filter(|i| replying(&self.active[*i]))
            .collect();
        // neighbours that share a document read it together
        decode.sort_by_key(|i| (self.active[*i].path.last().map(|n| n.id), *i));
        let mut plan: Vec<Rows> = decode
            .into_iter()
            .map(|branch| Rows::Decode { branch })
            .collect();
        let mut budget = self.limits.max_step_tokens.saturating_sub(plan.len());
        let mut planned: HashMap<u64, usize> = HashMap::new();
        for (i, branch) in self.active.iter().enumerate().filter(|(_, b)| !replying(b)) {
            let mut complete = true;
            for node in &branch.path {
                let filled = self.tree.get(node.id).map_or(0, |resident| resident.filled);
                let filled = planned.entry(node.id).or_insert(filled);
                let end = node.tokens.len().min(*filled + budget);
                if end > *filled {
                    plan.push(Rows::Node {
                        node: Arc::clone(node),
                        range: *filled..end,
                    });
                    budget -= end - *filled;
                    *filled = end;
                }
                complete &= end == node.tokens.len();
                if !complete {
                    break;
                }
            }
            let end = branch.ask.suffix.len().min(branch.fed + budget);
            if complete && end > branch.fed {
                plan.push(Rows::Suffix {
                    branch: i,
                    range: branch.fed..end,
                });
                budget -= end - branch.fed;
            }
            if budget == 0 {
                break;
            }
        }
        plan
    }

    fn step(&mut self) -> Result<()> {
        let plan = self.plan();
        for rows in &plan {
            if let Rows::Suffix { branch, .. } | Rows::Decode { branch } = rows {
                self.active[*branch].make_place(&self.decoder)?;
            }
        }
        let mut segments = Vec::with_capacity(plan.len());
        let mut samples = Vec::new(); // row, branch
        let mut row = 0;
        for rows in &plan {
            let segment = match rows {
                Rows::Node { node, range } => self.node_segment(node, range.clone())?,
                Rows::Suffix { branch, range } => {
                    let branch = &self.active[*branch];
                    branch.segment(&self.tree, &branch.ask.suffix[range.clone()])?
                }
                Rows::Decode { branch } => {
                    let branch = &self.active[*branch];
                    branch.segment(&self.tree, branch.next.as_slice())?
                }
            };
            row += segment.tokens.len();
            match rows {
                Rows::Decode { branch } => samples.push((row as u32 - 1, *branch)),
                Rows::Suffix { branch, range }
                    if range.end == self.active[*branch].ask.suffix.len() =>
                {
                    samples.push((row as u32 - 1, *branch));
                }
                _ => {}
            }
            segments.push(segment);
        }
        let hidden = self.decoder.forward(&segments)?;
        drop(segments);
        self.advance(&plan);
        self.sample(&hidden, &samples)
    }

    fn node_segment<'a>(
        &'a self,
        node: &'a Arc<Node>,
        range: Range<usize>,
    ) -> Result<StepSegment<'a>> {
        let mut past = Vec::new();
        let mut above = node.parent.as_ref();
        while let Some(node) = above {
            let resident = self.tree.get(node.id).ok_or_else(lost)?;
            past.insert(0, (&resident.block, node.tokens.len()));
            above = node.parent.as_ref();
        }
        let resident = self.tree.get(node.id).ok_or_else(lost)?;
        Ok(StepSegment {
            tokens: &node.tokens[range.clone()],
            position: node.position + range.start,
            past,
            block: &resident.block,
            filled: range.start,
        })
    }

    /// Notes what the step has written, and counts it.
    fn advance(&mut self, plan: &[Rows]) {
        for rows in plan {
            match rows {
                Rows::Node { node, range } => {
                    if let Some(resident) = self.tree.get_mut(node.id) {
                        resident.filled = range.end;
                    }
                    let counter = match node.kind {
                        NodeKind::System => &node.tally.system,
                        NodeKind::Document => &node.tally.chunk,
                    };
                    add(counter, range.len());
                }
                Rows::Suffix { branch, range } => {
                    let branch = &mut self.active[*branch];
                    branch.fed = range.end;
                    branch.wrote(range.len());
                    add(&branch.ask.tally.suffix, range.len());
                }
                Rows::Decode { branch } => self.active[*branch].wrote(1),
            }
        }
    }

    /// Chooses a token for each `(row, branch)` and ends the branches that are done.
    fn sample(&mut self, hidden: &Tensor, samples: &[(u32, usize)]) -> Result<()> {
        if samples.is_empty() {
            return Ok(());
        }
        let rows: Vec<u32> = samples.iter().map(|(row, _)| *row).collect();
        let hidden = hidden.index_select(&Tensor::new(rows, hidden.device())?, 0)?;
        let logits = self.decoder.logits(&hidden)?.to_dtype(DType::F32)?;
        let logits = logits.to_vec2::<f32>()?; // [samples, vocab]
        let active = &self.active;
        let chosen: Vec<Option<u32>> = logits
            .par_iter()
            .zip(samples)
            .map(|(logits, (_, branch))| {
                let branch = &active[*branch];
                let Request { sampling, seed, .. } = &branch.ask.request;
                sample(logits, sampling, *seed, branch.reply.tokens())
            })
            .collect();
        let mut done = Vec::new();
        for ((_, index), id) in samples.iter().zip(chosen) {
            let branch = &mut self.active[*index];
            add(&branch.ask.tally.decode, 1);
            let outcome = match id {
                Some(id) => {
                    branch.next = Some(id);
                    branch.reply.push(self.prompter.tokenizer(), id)
                }
                None => Err(Error::internal(
                    "the model's scores are not numbers; use float32, or check the weights",
                )),
            };
            match outcome {
                Ok(None) => {}
                Ok(Some(finish)) => done.push((*index, Ok(finish))),
                Err(error) => done.push((*index, Err(error))),
            }
        }
        done.sort_by_key(|(index, _)| std::cmp::Reverse(*index));
        for (index, outcome) in done {
            let Branch {
                ask,
                prompt_tokens,
                reply,
                ..
            } = self.active.remove(index);
            let completion = outcome.map(|finish| reply.complete(finish, prompt_tokens));
            drop(ask.reply.send(completion)); // the caller may have gone
        }
        Ok(())
    }
}
