//! Which token comes next, given its scores.
//!
//! Randomness is a function of seed and step, not a stream: what else is in the batch, and in
//! which order, cannot change it.

use super::request::Sampling;

/// Chooses a token; `step` counts the tokens of the reply so far. `None` if no score is a number.
pub(crate) fn sample(logits: &[f32], sampling: &Sampling, seed: u64, step: usize) -> Option<u32> {
    let best = argmax(logits)?;
    if sampling.temperature == 0.0 || sampling.top_k == 1 {
        return Some(best as u32);
    }
    let top = logits[best];
    let weight = |logit: f32| f64::from((logit - top) / sampling.temperature).exp();
    // the most likely token has weight 1, so min_p is a bound on the weight itself
    let floor = f64::from(sampling.min_p);
    let mut kept: Vec<(u32, f64)> = logits
        .iter()
        .enumerate()
        .map(|(id, logit)| (id as u32, weight(*logit)))
        .filter(|(_, weight)| *weight > 1e-12 && *weight >= floor)
        .collect();
    let order = |a: &(u32, f64), b: &(u32, f64)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    if sampling.top_k > 0 && sampling.top_k < kept.len() {
        kept.select_nth_unstable_by(sampling.top_k - 1, order);
        kept.truncate(sampling.top_k);
    }
    kept.sort_unstable_by(order);
    if sampling.top_p < 1.0 {
        let bound = f64::from(sampling.top_p) * kept.iter().map(|k| k.1).sum::<f64>();
        let mut sum = 0.0;
        let reach = kept.iter().position(|(_, weight)| {
            sum += weight;
            sum >= bound
        });
        kept.truncate(reach.map_or(kept.len(), |at| at + 1));
    }
    let total: f64 = kept.iter().map(|k| k.1).sum();
    let mut left = uniform(seed, step as u64) * total;
    for (id, weight) in &kept {
        left -= weight;
        if left < 0.0 {
            return Some(*id);
        }
    }
    kept.last().map(|k| k.0)
}

/// The place of the largest number, the first among equals.
fn argmax(values: &[f32]) -> Option<usize> {
    let mut best: Option<(usize, f32)> = None;
    for (i, value) in values.iter().enumerate() {
        if value.is_finite() && best.is_none_or(|(_, top)| *value > top) {
            best = Some((i, *value));
        }
    }
    best.map(|b| b.0)
}

/// A number in `[0, 1)` that depends on `seed` and `step` only: two rounds of the finaliser of
/// SplitMix64 (Steele, Lea and Flood 2014).
fn uniform(seed: u64, step: u64) -> f64 {
    let mix = |mut z: u64| {
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let golden = 0x9e37_79b9_7f4a_7c15u64;
    let key = mix(seed.wrapping_add(golden));
    let bits = mix(key ^ mix(step.wrapping_mul(golden).wrapping_add(golden)));
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(sampling: Sampling, logits: &[f32]) -> Vec<u32> {
        (0..2000)
            .filter_map(|seed| sample(logits, &sampling, seed, 3))
            .collect()
    }

    fn share(drawn: &[u32], id: u32) -> f64 {
        drawn.iter().filter(|d| **d == id).count() as f64 / drawn.len() as f64
    }

    #[test]
    fn greedy_takes_the_first_of_equals() {
        assert_eq!(
            sample(&[0.0, 2.0, 2.0, f32::NAN], &Sampling::default(), 1, 0),
            Some(1)
        );
        assert_eq!(sample(&[f32::NAN], &Sampling::default(), 1, 0), None);
    }

    #[test]
    fn samples_the_distribution() {
        let logits = [0.0, 1.0, 2.0];
        let drawn = draw(
            Sampling {
                temperature: 1.0,
                ..Default::default()
            },
            &logits,
        );
        let total: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
        for (id, logit) in logits.iter().enumerate() {
            let wanted = f64::from(*logit).exp() / total;
            assert!((share(&drawn, id as u32) - wanted).abs() < 0.04);
        }
    }

    #[test]
    fn filters_keep_the_likely() {
        let logits = [0.0, 1.0, 2.0, -5.0];
        let hot = Sampling {
            temperature: 2.0,
            ..Default::default()
        };
        let kept = |sampling| {
            let mut ids = draw(sampling, &logits);
            ids.sort_unstable();
            ids.dedup();
            ids
        };
        assert_eq!(kept(Sampling { top_k: 2, ..hot }), [1, 2]);
        assert_eq!(kept(Sampling { top_p: 0.3, ..hot }), [2]);
        assert_eq!(kept(Sampling { min_p: 0.5, ..hot }), [1, 2]);
        assert_eq!(kept(hot), [0, 1, 2, 3]);
    }

    #[test]
    fn steps_differ_and_repeat() {
        let at = |step| uniform(7, step);
        assert_eq!(at(5), at(5));
        assert!((0..100).all(|step| at(step) != at(step + 1) && (0.0..1.0).contains(&at(step))));
    }
}
