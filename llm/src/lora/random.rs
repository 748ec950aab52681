//! Random numbers that depend only on what they are for: a counter through a mixer (SplitMix64,
//! Steele et al. 2014), so that nothing is left to restore when a run resumes.

/// A stream of numbers named by its seed and purpose.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    /// The stream for `purpose` (any numbers that tell it from the others).
    pub(super) fn new(seed: u64, purpose: &[u64]) -> Self {
        let mut state = seed;
        for part in purpose {
            state = mix(state ^ part.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1));
        }
        Self(state)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// In `0.0..1.0`.
    pub(super) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Fisher-Yates.
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            let j = (self.next() % (i as u64 + 1)) as usize;
            items.swap(i, j);
        }
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
