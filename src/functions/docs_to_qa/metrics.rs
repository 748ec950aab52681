//! Counters of one run of `QaExec`, as EXPLAIN ANALYZE shows them.
//!
//! Reasons are part of the counter's name, because the display merges by name and drops labels.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::common::human_readable_count;
use datafusion::physical_plan::metrics::{
    BaselineMetrics, Count, CustomMetricValue, ExecutionPlanMetricsSet, MetricBuilder, MetricValue,
};

use crate::generator::{Counters, Tokens};

/// Counters of one query; the model's own totals are not used.
#[derive(Debug)]
pub(super) struct QaMetrics {
    pub(super) baseline: BaselineMetrics,
    pub(super) documents: Count,
    pub(super) chunks: Count,
    pub(super) pairs_ok: Count,
    set: ExecutionPlanMetricsSet,
    partition: usize,
    rejected: BTreeMap<&'static str, Count>,
    tokens: Vec<Arc<TokenMetric>>,
    requests: Count,
    kept_replies: Count,
    seen: Counters,
}

impl QaMetrics {
    pub(super) fn new(set: &ExecutionPlanMetricsSet, partition: usize) -> Self {
        let counter = |name: &'static str| MetricBuilder::new(set).counter(name, partition);
        let tokens = |name: &'static str| {
            let value = Arc::<TokenMetric>::default();
            let metric = MetricValue::Custom {
                name: name.into(),
                value: Arc::clone(&value) as Arc<dyn CustomMetricValue>,
            };
            MetricBuilder::new(set)
                .with_partition(partition)
                .build(metric);
            value
        };
        Self {
            baseline: BaselineMetrics::new(set, partition),
            documents: counter("documents"),
            chunks: counter("chunks"),
            pairs_ok: counter("pairs_ok"),
            set: set.clone(),
            partition,
            rejected: BTreeMap::new(),
            tokens: Counters::NAMES.iter().map(|name| tokens(name)).collect(),
            requests: counter("requests"),
            kept_replies: counter("kept_replies"),
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

    /// Moves the counters of the model to `now` and returns what is new since the last call.
    pub(super) fn tokens(&mut self, now: Counters) -> Counters {
        let new = now.since(&self.seen);
        for (metric, tokens) in self.tokens.iter().zip(new.tokens()) {
            metric.add(tokens);
        }
        self.requests.add(new.requests as usize);
        self.kept_replies.add(new.kept_replies as usize);
        self.seen = now;
        new
    }
}

/// A count of tokens that shows as NULL where a part of it is not known.
#[derive(Debug, Default)]
struct TokenMetric(Mutex<Tokens>);

impl TokenMetric {
    fn add(&self, more: Tokens) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *all = all.plus(more);
    }

    fn get(&self) -> Tokens {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for TokenMetric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.get().sum() {
            Some(sum) => f.write_str(&human_readable_count(sum as usize)),
            None => f.write_str("NULL"),
        }
    }
}

impl CustomMetricValue for TokenMetric {
    fn new_empty(&self) -> Arc<dyn CustomMetricValue> {
        Arc::<Self>::default()
    }

    fn aggregate(&self, other: Arc<dyn CustomMetricValue>) {
        if let Some(other) = other.as_any().downcast_ref::<Self>() {
            self.add(other.get());
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_usize(&self) -> usize {
        self.get().said() as usize
    }

    fn is_eq(&self, other: &Arc<dyn CustomMetricValue>) -> bool {
        let other = other.as_any().downcast_ref::<Self>();
        other.is_some_and(|other| other.get() == self.get())
    }
}
