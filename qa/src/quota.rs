//! In which order are the chunks of a document visited?
//!
//! With `max_pairs_per_document`, generation stops at the quota. Visiting chunks from the front
//! would then ask about the first pages only; here every beginning of the order is spread evenly
//! over the whole document, from a start that the seed chooses.

/// Chunk indices in the order to visit them; an iterator.
#[derive(Debug, Clone)]
pub struct ChunkOrder {
    chunks: usize,
    start: usize,
    stride: usize,
    visited: usize,
}

/// The order in which to visit `chunks` chunks that are asked `per_chunk` questions each.
///
/// Reading order when there is no quota or all questions together stay within it. The caller
/// stops when the accepted pairs reach the quota.
///
/// ```
/// use casebook_qa::quota::spread;
/// assert_eq!(spread(4, 2, None, 7).collect::<Vec<_>>(), [0, 1, 2, 3]);
/// let mut first: Vec<usize> = spread(100, 2, Some(8), 7).take(4).collect();
/// first.sort();
/// assert!(first[0] < 40 && first[3] >= 60, "not the first pages only: {first:?}");
/// ```
pub fn spread(
    chunks: usize,
    per_chunk: usize,
    max_per_document: Option<usize>,
    seed: u64,
) -> ChunkOrder {
    let all = chunks.saturating_mul(per_chunk);
    let quota = max_per_document.filter(|most| all > *most);
    ChunkOrder::new(chunks, quota, seed)
}

impl ChunkOrder {
    /// Reading order without a quota, spread whenever there is one; see [`spread`].
    pub fn new(chunks: usize, max_per_document: Option<usize>, seed: u64) -> Self {
        if max_per_document.is_none() || chunks < 2 {
            return Self {
                chunks,
                start: 0,
                stride: 1,
                visited: 0,
            };
        }
        // Steps of the golden section leave gaps of at most three sizes after any number of
        // visits (three-distance theorem); the nearest coprime stride visits each chunk once.
        let golden = (chunks as f64 * 0.618_033_988_749_895).round() as usize;
        let stride = (0..chunks)
            .flat_map(|away| [golden + away, golden.saturating_sub(away)])
            .find(|stride| *stride > 0 && gcd(*stride, chunks) == 1)
            .unwrap_or(1);
        let start = (seed % chunks as u64) as usize;
        Self {
            chunks,
            start,
            stride: stride % chunks,
            visited: 0,
        }
    }
}

impl Iterator for ChunkOrder {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.visited >= self.chunks {
            return None;
        }
        let step = (self.visited as u128 * self.stride as u128) % self.chunks as u128;
        self.visited += 1;
        Some((self.start + step as usize) % self.chunks)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.chunks - self.visited;
        (left, Some(left))
    }
}

impl ExactSizeIterator for ChunkOrder {}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn each_chunk_once_and_evenly(chunks in 1usize..400, per in 1usize..5, max in 1usize..60, seed: u64) {
            let order: Vec<usize> = spread(chunks, per, Some(max), seed).collect();
            let mut sorted = order.clone();
            sorted.sort_unstable();
            prop_assert_eq!(&sorted, &(0..chunks).collect::<Vec<_>>());
            prop_assert_eq!(order.clone(), spread(chunks, per, Some(max), seed).collect::<Vec<_>>());
            if chunks * per > max && chunks >= 20 {
                // no part of the document waits long: the largest gap after k visits, round the end
                let mut seen: Vec<usize> = order[..8].to_vec();
                seen.sort_unstable();
                let mut gap = seen[0] + chunks - seen[7];
                for pair in seen.windows(2) {
                    gap = gap.max(pair[1] - pair[0]);
                }
                prop_assert!(gap * 2 <= chunks, "gap {} of {}: {:?}", gap, chunks, seen);
            }
        }
    }

    #[test]
    fn no_quota_no_change() {
        assert_eq!(spread(3, 4, Some(12), 9).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(spread(0, 4, Some(1), 9).count(), 0);
        assert_eq!(spread(1, 4, Some(1), 9).collect::<Vec<_>>(), [0]);
        assert_eq!(spread(9, 4, Some(1), 9).len(), 9);
    }
}
