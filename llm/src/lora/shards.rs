//! How the work of one optimiser step is spread over the processor's cores.
//!
//! Matrices of a LoRA step are too small to keep many cores busy one after the other, but its
//! sequences do not depend on each other: each worker takes some of them through the whole forward
//! and backward pass, with its own threads. Gradients are summed in the order of the workers, so
//! the result depends on their number and on nothing else.

use candle_core::Device;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::backward::Gradients;
use super::micro_batch::{MicroBatch, micro_step};
use crate::model::Decoder;
use crate::{Error, Result};

/// Fewer tokens than this are not worth a worker of their own.
const MIN_SHARD_TOKENS: usize = 128;

/// The workers of a run.
pub(super) struct Workers {
    pools: Vec<ThreadPool>,
}

impl Workers {
    /// One worker per core as far as steps of `step_tokens` have work for them; one on a GPU.
    pub(super) fn new(device: &Device, step_tokens: usize) -> Result<Self> {
        let threads = rayon::current_num_threads();
        let count = match device.is_cpu() {
            true => threads.min(step_tokens / MIN_SHARD_TOKENS).max(1),
            false => 1,
        };
        let pool = |_| {
            ThreadPoolBuilder::new()
                .num_threads((threads / count).max(1))
                .thread_name(|i| format!("casebook-train-{i}"))
                .build()
                .map_err(|e| Error::internal(format!("training threads cannot start: {e}")))
        };
        Ok(Self {
            pools: (0..count).map(pool).collect::<Result<_>>()?,
        })
    }

    /// Into how many shards a micro-batch should be split when a step has `micro_batches`.
    pub(super) fn shards(&self, micro_batches: usize) -> usize {
        self.pools.len().div_ceil(micro_batches.max(1))
    }

    /// The summed loss of all `batches`; their gradients, each times `weight`.
    pub(super) fn gradients(
        &self,
        decoder: &Decoder,
        batches: &[MicroBatch],
        weight: f64,
    ) -> Result<(f64, Gradients)> {
        let work = |worker: usize| -> Result<(f64, Gradients)> {
            let mut gradients = Gradients::default();
            let mut loss = 0.0;
            for batch in batches.iter().skip(worker).step_by(self.pools.len()) {
                loss += micro_step(decoder, batch, weight, &mut gradients)?;
            }
            Ok((loss, gradients))
        };
        let done: Vec<_> = std::thread::scope(|scope| {
            let running: Vec<_> = self
                .pools
                .iter()
                .enumerate()
                .map(|(worker, pool)| scope.spawn(move || pool.install(|| work(worker))))
                .collect();
            running
                .into_iter()
                .map(|worker| {
                    let lost = |_| Error::internal("a training thread panicked");
                    worker.join().map_err(lost)?
                })
                .collect()
        });
        let (mut loss, mut gradients) = (0.0, Gradients::default());
        for part in done {
            let (part_loss, part_gradients) = part?;
            loss += part_loss;
            gradients.merge(part_gradients)?;
        }
        Ok((loss, gradients))
    }
}

/// Splits `lengths` into at most `shards` groups of about the same number of tokens, longest first.
pub(super) fn split(lengths: &[usize], shards: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|i| std::cmp::Reverse(lengths[*i]));
    let mut groups = vec![(0, vec![]); shards.clamp(1, lengths.len().max(1))];
    for i in order {
        if let Some((used, group)) = groups.iter_mut().min_by_key(|(used, _)| *used) {
            *used += lengths[i];
            group.push(i);
        }
    }
    groups.into_iter().map(|(_, group)| group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_even_and_complete() {
        assert_eq!(split(&[9, 1, 5, 5], 2), [vec![0, 1], vec![2, 3]]);
        assert_eq!(split(&[4], 3), [vec![0]]);
        assert_eq!(split(&[4, 4], 1), [vec![0, 1]]);
    }
}
