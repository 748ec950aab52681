//! How a few rows attend to a tile of keys: scores, running softmax, weighted sum of values.

use super::vector::Vector;

/// Keys per tile.
pub(crate) const TILE: usize = 64;
/// From this many rows on, lanes run over rows; below, over the width of a head.
pub(crate) const MATRIX_ROWS: usize = 4;
/// Stands for minus infinity without its arithmetic: its exponential is below 1e-37.
pub(crate) const MASKED: f32 = -1e30;

/// The rows that attend to a tile of keys.
pub(crate) struct Tile<'a> {
    pub(crate) q: &'a [f32],
    pub(crate) q_columns: &'a [f32],
    /// Row stride of `q_columns`.
    pub(crate) all: usize,
    pub(crate) o: &'a mut [f32],
    pub(crate) max: &'a mut [f32],
    pub(crate) sum: &'a mut [f32],
    pub(crate) s: &'a mut [f32],
    pub(crate) state: &'a mut [f32],
    pub(crate) m: usize,
    pub(crate) d: usize,
    /// Scores are bent below it.
    pub(crate) softcap: Option<f32>,
    /// Rows may not see the first keys.
    pub(crate) windowed: bool,
}

impl Tile<'_> {
    /// Adds `n` keys and values, rows of the given stride; row `i` sees the first `visible(i)`
    /// without the first `hidden(i)` of them. A row that sees none yet gets weights that vanish
    /// when it sees its first.
    #[inline(always)]
    pub(crate) fn add<V: Vector>(
        &mut self,
        keys: &[f32],
        values: &[f32],
        stride: usize,
        n: usize,
        visible: &impl Fn(usize) -> usize,
        hidden: &impl Fn(usize) -> usize,
    ) {
        if self.m >= MATRIX_ROWS {
            self.add_columns::<V>(keys, values, stride, n, visible, hidden);
        } else {
            self.add_rows::<V>(keys, values, stride, n, visible, hidden);
        }
    }

    /// Lanes run over rows: scores are `[n, m rounded up]`.
    #[inline(always)]
    fn add_columns<V: Vector>(
        &mut self,
        keys: &[f32],
        values: &[f32],
        stride: usize,
        n: usize,
        visible: &impl Fn(usize) -> usize,
        hidden: &impl Fn(usize) -> usize,
    ) {
        let (m, d, l) = (self.m, self.d, V::LANES);
        let padded = m.next_multiple_of(l);
        let mut j = 0;
        while j < n {
            let four = j + 4 <= n;
            let k: [&[f32]; 4] = std::array::from_fn(|r| {
                let row = if four { j + r } else { j };
                &keys[row * stride..row * stride + d]
            });
            for c in (0..padded).step_by(l) {
                let columns = &self.q_columns[c..];
                let mut acc = [V::splat(0.0); 4];
                if four {
                    for i in 0..d {
                        let q = V::load(&columns[i * self.all..]);
                        acc[0] = V::splat(k[0][i]).fma(q, acc[0]);
                        acc[1] = V::splat(k[1][i]).fma(q, acc[1]);
                        acc[2] = V::splat(k[2][i]).fma(q, acc[2]);
                        acc[3] = V::splat(k[3][i]).fma(q, acc[3]);
                    }
                    for (r, acc) in acc.iter().enumerate() {
                        acc.store(&mut self.s[(j + r) * padded + c..]);
                    }
                } else {
                    for (i, k) in k[0].iter().enumerate() {
                        acc[0] = V::splat(*k).fma(V::load(&columns[i * self.all..]), acc[0]);
                    }
                    acc[0].store(&mut self.s[j * padded + c..]);
                }
            }
            j += if four { 4 } else { 1 };
        }
        if let Some(cap) = self.softcap {
            bend::<V>(&mut self.s[..n * padded], cap);
        }
        if visible(0) < n {
            for i in 0..m {
                let visible = visible(i);
                if visible == n {
                    break; // later rows see more
                }
                for j in visible..n {
                    self.s[j * padded + i] = MASKED;
                }
            }
        }
        if self.windowed {
            for i in 0..m {
                for j in 0..hidden(i) {
                    self.s[j * padded + i] = MASKED;
                }
            }
        }
        let (max, rest) = self.state.split_at_mut(padded);
        let (sum, shrink) = rest.split_at_mut(padded);
        max[..m].copy_from_slice(self.max);
        sum[..m].copy_from_slice(self.sum);
        for c in (0..padded).step_by(l) {
            let old = V::load(&max[c..]);
            let mut top = old;
            for j in 0..n {
                top = top.max(V::load(&self.s[j * padded + c..]));
            }
            let below = top.mul(V::splat(-1.0));
            let factor = old.add(below).exp();
            let mut total = V::load(&sum[c..]).mul(factor);
            for j in 0..n {
                let score = &mut self.s[j * padded + c..];
                let weight = V::load(score).add(below).exp();
                weight.store(score);
                total = total.add(weight);
            }
            top.store(&mut max[c..]);
            total.store(&mut sum[c..]);
            factor.store(&mut shrink[c..]);
        }
        self.max.copy_from_slice(&max[..m]);
        self.sum.copy_from_slice(&sum[..m]);
        for (o, shrink) in self.o.chunks_mut(d).zip(shrink.iter()) {
            if *shrink != 1.0 {
                o.iter_mut().for_each(|o| *o *= shrink);
            }
        }
        let mut i = 0;
        while i + 4 <= m {
            let (s, o) = (&self.s[i..], &mut self.o[i * d..(i + 4) * d]);
            mix::<V, 4>(s, padded, values, stride, n, o, d);
            i += 4;
        }
        while i < m {
            let (s, o) = (&self.s[i..], &mut self.o[i * d..(i + 1) * d]);
            mix::<V, 1>(s, padded, values, stride, n, o, d);
            i += 1;
        }
    }

    /// Lanes run over the width of a head: for few rows.
    #[inline(always)]
    fn add_rows<V: Vector>(
        &mut self,
        keys: &[f32],
        values: &[f32],
        stride: usize,
        n: usize,
        visible: &impl Fn(usize) -> usize,
        hidden: &impl Fn(usize) -> usize,
    ) {
        let (d, l) = (self.d, V::LANES);
        for i in 0..self.m {
            let (visible, hidden) = (visible(i), hidden(i));
            if visible <= hidden {
                continue;
            }
            let q = &self.q[i * d..(i + 1) * d];
            let s = &mut self.s[..TILE];
            for (j, s) in s[..visible.min(n)].iter_mut().enumerate() {
                *s = dot::<V>(q, &keys[j * stride..j * stride + d]);
            }
            let used = visible.next_multiple_of(l);
            if let Some(cap) = self.softcap {
                bend::<V>(&mut s[..used], cap);
            }
            s[visible..].fill(MASKED);
            s[..hidden].fill(MASKED);
            let mut top = V::splat(self.max[i]);
            for s in s[..used].chunks(l) {
                top = top.max(V::load(s));
            }
            let top = top.largest();
            let mut total = V::splat(0.0);
            for s in s[..used].chunks_mut(l) {
                let weight = V::load(s).add(V::splat(-top)).exp();
                weight.store(s);
                total = total.add(weight);
            }
            let mut shrink = [0f32; 16];
            V::splat(self.max[i] - top).exp().store(&mut shrink);
            self.sum[i] = self.sum[i] * shrink[0] + total.sum();
            self.max[i] = top;
            let o = &mut self.o[i * d..(i + 1) * d];
            o.iter_mut().for_each(|o| *o *= shrink[0]);
            mix::<V, 1>(s, 1, values, stride, visible, o, d);
        }
    }
}

/// `cap tanh(s / cap)` for a whole number of vectors, with `tanh x = 1 - 2 / (exp(2 x) + 1)`.
#[inline(always)]
fn bend<V: Vector>(scores: &mut [f32], cap: f32) {
    for s in scores.chunks_exact_mut(V::LANES) {
        let double = V::load(s).mul(V::splat(2.0 / cap));
        let below = double.exp().add(V::splat(1.0));
        let tanh = V::splat(-2.0).div(below).add(V::splat(1.0));
        tanh.mul(V::splat(cap)).store(s);
    }
}

/// `o[r] += sum over j of weights[j * w_stride + r] * values[j]` for `R` rows of width `d`.
#[inline(always)]
fn mix<V: Vector, const R: usize>(
    weights: &[f32],
    w_stride: usize,
    values: &[f32],
    stride: usize,
    n: usize,
    o: &mut [f32],
    d: usize,
) {
    let l = V::LANES;
    let mut c = 0;
    while c + l <= d {
        let mut acc = [V::splat(0.0); R];
        for (r, acc) in acc.iter_mut().enumerate() {
            *acc = V::load(&o[r * d + c..]);
        }
        for j in 0..n {
            let value = V::load(&values[j * stride + c..]);
            let weights = &weights[j * w_stride..j * w_stride + R];
            for r in 0..R {
                acc[r] = V::splat(weights[r]).fma(value, acc[r]);
            }
        }
        for (r, acc) in acc.iter().enumerate() {
            acc.store(&mut o[r * d + c..]);
        }
        c += l;
    }
    if c < d {
        for j in 0..n {
            for r in 0..R {
                let weight = weights[j * w_stride + r];
                for i in c..d {
                    o[r * d + i] += weight * values[j * stride + i];
                }
            }
        }
    }
}

#[inline(always)]
fn dot<V: Vector>(a: &[f32], b: &[f32]) -> f32 {
    let l = V::LANES;
    let (chunks_a, chunks_b) = (a.chunks_exact(l), b.chunks_exact(l));
    let rest = chunks_a.remainder().iter().zip(chunks_b.remainder());
    let rest: f32 = rest.map(|(a, b)| a * b).sum();
    let mut acc = V::splat(0.0);
    for (a, b) in chunks_a.zip(chunks_b) {
        acc = V::load(a).fma(V::load(b), acc);
    }
    acc.sum() + rest
}
