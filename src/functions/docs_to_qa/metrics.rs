//! Counters of one run of `QaExec`, as EXPLAIN ANALYZE shows them.
//!
//! Reasons are part of the counter's name, because the display merges by name and drops labels.

use std::collections::BTreeMap;

use casebook_llm::Counters;
use datafusion::physical_plan::metrics::{
    BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder,
};

/// Reads one of the engine's token counters.
type ReadCounter = fn(&Counters) -> u64;

/// Counters of one query; the engine's own totals are not used.
#[derive(Debug)]
pub(super) struct QaMetrics {
    pub(super) baseline: BaselineMetrics,
    pub(super) documents: Count,
    pub(super) chunks: Count,
    pub(super) pairs_ok: Count,
    set: ExecutionPlanMetricsSet,
    partition: usize,
    rejected: BTreeMap<&'static str, Count>,
    tokens: Vec<(Count, ReadCounter)>,
    seen: Counters,
}

impl QaMetrics {
    pub(super) fn new(set: &ExecutionPlanMetricsSet, partition: usize) -> Self {
        let counter = |name: &'static str| MetricBuilder::new(set).counter(name, partition);
        let tokens: Vec<(Count, ReadCounter)> = vec![
            (counter("system_tokens"), |c| c.system_tokens),
            (counter("chunk_tokens"), |c| c.chunk_tokens),
            (counter("suffix_tokens"), |c| c.suffix_tokens),
            (counter("prefill_tokens"), |c| c.prefill_tokens),
            (counter("shared_prefix_tokens"), |c| c.shared_prefix_tokens),
            (counter("prompt_tokens"), |c| c.prompt_tokens),
            (counter("decode_tokens"), |c| c.decode_tokens),
        ];
        Self {
            baseline: BaselineMetrics::new(set, partition),
            documents: counter("documents"),
            chunks: counter("chunks"),
            pairs_ok: counter("pairs_ok"),
            set: set.clone(),
            partition,
            rejected: BTreeMap::new(),
            tokens,
            seen: Counters::default(),
        }
    }

    /// Counts a row that is not ok.
    pub(super) fn rejected(&mut self, reason: &'static str) {
        let (set, partition) = (&self.set, self.partition);
        self.rejected
            .entry(reason)
            .or_insert_with(|| {
                MetricBuilder::new(set).counter(format!("rejected_{reason}"), partition)
            })
            .add(1);
    }

    /// Moves the token counters to `now` and returns (prefilled, decoded) since the last call.
    pub(super) fn tokens(&mut self, now: Counters) -> (u64, u64) {
        for (count, get) in &self.tokens {
            count.add(get(&now).saturating_sub(get(&self.seen)) as usize);
        }
        let delta = (
            now.prefill_tokens.saturating_sub(self.seen.prefill_tokens),
            now.decode_tokens.saturating_sub(self.seen.decode_tokens),
        );
        self.seen = now;
        delta
    }
}
