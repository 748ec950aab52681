//! What a session has done, counted while it does it.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a session has done so far, in tokens; `prefill_tokens` is always the sum of
/// `system_tokens`, `chunk_tokens` and `suffix_tokens`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Prefilled for system texts: once per session and text.
    pub system_tokens: u64,
    /// Prefilled for documents: once per prefix.
    pub chunk_tokens: u64,
    /// Prefilled for tasks and for whole prompts without a document.
    pub suffix_tokens: u64,
    /// Prefilled in all.
    pub prefill_tokens: u64,
    /// Taken from a shared prefix instead of being prefilled again.
    pub shared_prefix_tokens: u64,
    /// Chosen by the sampler, ending tokens included.
    pub decode_tokens: u64,
    /// In the prompts of all branches, shared ones included.
    pub prompt_tokens: u64,
    /// Branches that were started.
    pub branches: u64,
}

/// [`Counters`] as they grow.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) system: AtomicU64,
    pub(crate) chunk: AtomicU64,
    pub(crate) suffix: AtomicU64,
    pub(crate) shared: AtomicU64,
    pub(crate) decode: AtomicU64,
    pub(crate) prompt: AtomicU64,
    pub(crate) branches: AtomicU64,
}

pub(crate) fn add(counter: &AtomicU64, tokens: usize) {
    counter.fetch_add(tokens as u64, Ordering::Relaxed);
}

impl Tally {
    /// What was counted so far.
    pub(crate) fn counters(&self) -> Counters {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (system, chunk, suffix) = (get(&self.system), get(&self.chunk), get(&self.suffix));
        Counters {
            system_tokens: system,
            chunk_tokens: chunk,
            suffix_tokens: suffix,
            prefill_tokens: system + chunk + suffix,
            shared_prefix_tokens: get(&self.shared),
            decode_tokens: get(&self.decode),
            prompt_tokens: get(&self.prompt),
            branches: get(&self.branches),
        }
    }
}
