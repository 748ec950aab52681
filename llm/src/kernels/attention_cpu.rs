//! How attention over spans is computed on the CPU: tiles of keys, online softmax in f32.
//!
//! One task handles one key/value head of a few rows. Rows of several segments that share spans
//! (branches of one document) are handled together, so that shared keys and values are read once
//! per group and not once per branch. The running maximum and sum per row make the result exact
//! whatever the order of the tiles (Milakov and Gimelshein 2018, arXiv 1805.02867).

use candle_core::{CpuStorage, DType, Device, Storage, Tensor};
use half::{bf16, f16};
use rayon::prelude::*;

use super::attention::Segment;
use super::element::{Element, exp, fma, has_avx2, slice};
use crate::{Error, Result};

/// Keys per tile.
const TILE: usize = 64;
/// Query rows (position times query heads per key/value head) a task handles at most.
const TASK_ROWS: usize = 48;
/// From this many rows on, a tile of keys is transposed once and multiplied as a matrix.
const MATRIX_ROWS: usize = 4;

/// See [`super::attention()`]; the second tensor is the log sum of exponentials, empty unless
/// asked for.
pub(crate) fn attention(
    q: &Tensor,
    segments: &[Segment],
    scale: f32,
    with_lse: bool,
) -> Result<(Tensor, Tensor)> {
    match q.dtype() {
        DType::F32 => typed::<f32>(q, segments, scale, with_lse),
        DType::BF16 => typed::<bf16>(q, segments, scale, with_lse),
        DType::F16 => typed::<f16>(q, segments, scale, with_lse),
        other => Err(Error::unsupported(format!("attention in {other:?}; supported are float32, \
             bfloat16 and float16"))),
    }
}

/// Keys and values of one span, `[n, kv_heads * d]` each.
#[derive(Clone, Copy)]
struct Keys<'a, T> {
    keys: &'a [T],
    values: &'a [T],
    n: usize,
}

impl<T> Keys<'_, T> {
    fn is(&self, other: &Self) -> bool {
        std::ptr::eq(self.keys, other.keys)
    }
}

/// A segment with its memory.
struct Rows<'a, T> {
    /// First row of the segment in the packed batch.
    start: usize,
    rows: usize,
    past: Vec<Keys<'a, T>>,
    own: Keys<'a, T>,
}

/// Rows that one task handles, for one key/value head.
#[derive(Clone)]
struct Task {
    /// Segment, first row within it, number of rows.
    members: Vec<(usize, usize, usize)>,
    /// Leading past spans that all members share.
    common: usize,
    kv_head: usize,
}

/// Sizes that all tasks share.
#[derive(Clone, Copy)]
struct Shape {
    heads: usize,
    kv_heads: usize,
    groups: usize,
    d: usize,
    scale: f32,
}

fn typed<T: Element>(
    q: &Tensor,
    segments: &[Segment],
    scale: f32,
    with_lse: bool,
) -> Result<(Tensor, Tensor)> {
    let (t, heads, d) = q.dims3()?;
    let q = q.contiguous()?;
    let tensors = segments.iter().flat_map(|s| s.past.iter().chain([&s.own]));
    let tensors = tensors.flat_map(|span| [&span.keys, &span.values]).chain([&q]);
    let guards: Vec<_> = tensors.map(Tensor::storage_and_layout).collect();
    let mut slices = Vec::with_capacity(guards.len());
    for (storage, layout) in &guards {
        slices.push(slice::<T>(cpu(storage)?, layout)?);
    }
    let Some(query) = slices.pop() else {
        return Err(Error::internal("attention without queries"));
    };
    let kv_heads = match segments.first() {
        Some(segment) => segment.own.keys.dim(1)?,
        None => 1,
    };
    let shape = Shape { heads, kv_heads, groups: heads / kv_heads, d, scale };
    let mut pairs = slices.chunks_exact(2).map(|pair| Keys {
        keys: pair[0],
        values: pair[1],
        n: pair[0].len() / (kv_heads * d),
    });
    let mut rows = Vec::with_capacity(segments.len());
    let mut start = 0;
    for segment in segments {
        let past: Vec<_> = pairs.by_ref().take(segment.past.len()).collect();
        let Some(own) = pairs.next() else {
            return Err(Error::internal("attention without keys"));
        };
        rows.push(Rows { start, rows: segment.rows, past, own });
        start += segment.rows;
    }

    let mut out = vec![T::narrow(0.0); t * heads * d];
    let mut lse = vec![0f32; if with_lse { t * heads } else { 0 }];
    let target = Target { out: out.as_mut_ptr(), lse: lse.as_mut_ptr(), with_lse };
    let avx2 = has_avx2();
    tasks(&rows, shape).into_par_iter().for_each_init(Scratch::default, |scratch, task| {
        #[cfg(target_arch = "x86_64")]
        if avx2 {
            // SAFETY: the instructions were found on this machine.
            #[allow(unsafe_code)]
            unsafe {
                run_avx2(&task, &rows, query, shape, scratch, target);
            }
            return;
        }
        run::<T, false>(&task, &rows, query, shape, scratch, target);
    });
    let _ = avx2; // unused on other machines
    let out = Tensor::from_vec(out, (t, heads, d), &Device::Cpu)?;
    let lse_rows = if with_lse { t } else { 0 };
    Ok((out, Tensor::from_vec(lse, (lse_rows, heads), &Device::Cpu)?))
}

fn cpu(storage: &Storage) -> Result<&CpuStorage> {
    match storage {
        Storage::Cpu(storage) => Ok(storage),
        _ => Err(Error::internal("CPU attention over keys of another device")),
    }
}

/// Long segments are cut into blocks of rows; short neighbours that share most of their past
/// become one task.
fn tasks<T>(rows: &[Rows<'_, T>], shape: Shape) -> Vec<Task> {
    let block = (TASK_ROWS / shape.groups).max(1);
    let mut tasks = Vec::new();
    let mut at = 0;
    while at < rows.len() {
        let mut members = vec![(at, 0, rows[at].rows)];
        let mut common = rows[at].past.len();
        let mut used = rows[at].rows;
        at += 1;
        if used >= block {
            let (segment, _, total) = members[0];
            let blocks = (0..total).step_by(block);
            let cut = blocks.map(|first| vec![(segment, first, block.min(total - first))]);
            push(&mut tasks, cut.collect(), common, shape);
            continue;
        }
        while at < rows.len() && used + rows[at].rows <= block {
            let first = &rows[members[0].0].past[..common];
            let next = &rows[at].past;
            let shared = first.iter().zip(next).take_while(|(a, b)| a.is(b)).count();
            let keys = |spans: &[Keys<'_, T>]| spans.iter().map(|s| s.n).sum::<usize>();
            if shared == 0 || keys(&next[..shared]) * 2 < keys(next).max(keys(first)) {
                break;
            }
            common = shared;
            used += rows[at].rows;
            members.push((at, 0, rows[at].rows));
            at += 1;
        }
        push(&mut tasks, vec![members], common, shape);
    }
    tasks
}

fn push(
    tasks: &mut Vec<Task>,
    blocks: Vec<Vec<(usize, usize, usize)>>,
    common: usize,
    shape: Shape,
) {
    for kv_head in 0..shape.kv_heads {
        tasks.extend(blocks.iter().map(|members| Task {
            members: members.clone(),
            common,
            kv_head,
        }));
    }
}

/// Where tasks write; each writes the rows and heads of its own only.
#[derive(Clone, Copy)]
struct Target<T> {
    out: *mut T,
    lse: *mut f32,
    with_lse: bool,
}

// SAFETY: tasks of one call write disjoint elements: (row, head) pairs are partitioned by
// `tasks`, and the buffers outlive the parallel loop.
#[allow(unsafe_code)]
unsafe impl<T: Send> Send for Target<T> {}
// SAFETY: as above; nothing is read through the pointers.
#[allow(unsafe_code)]
unsafe impl<T: Send> Sync for Target<T> {}

impl<T: Element> Target<T> {
    /// Writes one head of one row.
    #[inline(always)]
    fn write(self, row: usize, head: usize, shape: Shape, o: &[f32], max: f32, sum: f32) {
        let at = row * shape.heads + head;
        let inverse = 1.0 / sum;
        for (i, o) in o.iter().enumerate() {
            // SAFETY: `at` is below t * heads and i below d; no other task has this row and head.
            #[allow(unsafe_code)]
            unsafe {
                self.out.add(at * shape.d + i).write(T::narrow(o * inverse));
            }
        }
        if self.with_lse {
            // SAFETY: as above.
            #[allow(unsafe_code)]
            unsafe {
                self.lse.add(at).write(max + sum.ln());
            }
        }
    }
}

/// Buffers of one thread, all f32.
#[derive(Default)]
struct Scratch {
    /// Scaled queries, `[m, d]`.
    q: Vec<f32>,
    /// Running sums, `[m, d]`.
    o: Vec<f32>,
    /// Running maximum and denominator per row.
    max: Vec<f32>,
    sum: Vec<f32>,
    /// Scores and then weights of a tile, `[m, TILE]`.
    s: Vec<f32>,
    /// A tile of keys, transposed: `[d, TILE]`.
    keys: Vec<f32>,
    /// A tile of values, `[TILE, d]`.
    values: Vec<f32>,
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn run_avx2<T: Element>(
    task: &Task,
    rows: &[Rows<'_, T>],
    query: &[T],
    shape: Shape,
    scratch: &mut Scratch,
    target: Target<T>,
) {
    run::<T, true>(task, rows, query, shape, scratch, target);
}

#[inline(always)]
fn run<T: Element, const FMA: bool>(
    task: &Task,
    rows: &[Rows<'_, T>],
    query: &[T],
    shape: Shape,
    scratch: &mut Scratch,
    target: Target<T>,
) {
    let Shape { heads, groups, d, scale, .. } = shape;
    let total: usize = task.members.iter().map(|m| m.2).sum::<usize>() * groups;
    scratch.q.clear();
    for &(segment, first, count) in &task.members {
        let start = rows[segment].start + first;
        for row in start..start + count {
            let at = (row * heads + task.kv_head * groups) * d;
            scratch.q.extend(query[at..at + groups * d].iter().map(|v| v.widen() * scale));
        }
    }
    for (buffer, len, value) in [
        (&mut scratch.o, total * d, 0.0),
        (&mut scratch.max, total, f32::NEG_INFINITY),
        (&mut scratch.sum, total, 0.0),
        (&mut scratch.s, total * TILE, 0.0),
    ] {
        buffer.clear();
        buffer.resize(len, value);
    }
    scratch.keys.resize(d * TILE, 0.0);
    scratch.values.resize(d * TILE, 0.0);

    let all = 0..total;
    for span in &rows[task.members[0].0].past[..task.common] {
        attend::<T, FMA>(span, all.clone(), |_| span.n, task.kv_head, shape, scratch);
    }
    let mut at = 0;
    for &(segment, first, count) in &task.members {
        let segment = &rows[segment];
        let range = at..at + count * groups;
        for span in &segment.past[task.common..] {
            attend::<T, FMA>(span, range.clone(), |_| span.n, task.kv_head, shape, scratch);
        }
        // row `first + i` of the segment sees all own keys but those of later rows
        let seen = |m: usize| segment.own.n + first + m / groups + 1 - segment.rows;
        attend::<T, FMA>(&segment.own, range.clone(), seen, task.kv_head, shape, scratch);
        for m in 0..count * groups {
            let row = segment.start + first + m / groups;
            let head = task.kv_head * groups + m % groups;
            let o = &scratch.o[(at + m) * d..(at + m + 1) * d];
            target.write(row, head, shape, o, scratch.max[at + m], scratch.sum[at + m]);
        }
        at = range.end;
    }
}

/// Adds a span to the running softmax of rows `range`; `seen(m)`, which grows with `m`, says how
/// many of the span's keys row `range.start + m` may see.
#[inline(always)]
fn attend<T: Element, const FMA: bool>(
    span: &Keys<'_, T>,
    range: std::ops::Range<usize>,
    seen: impl Fn(usize) -> usize,
    kv_head: usize,
    shape: Shape,
    scratch: &mut Scratch,
) {
    let (d, stride) = (shape.d, shape.kv_heads * shape.d);
    let m = range.len();
    let limit = seen(m - 1).min(span.n);
    let Scratch { q, o, max, sum, s, keys, values } = scratch;
    let q = &q[range.start * d..range.end * d];
    let o = &mut o[range.start * d..range.end * d];
    let (max, sum) = (&mut max[range.clone()], &mut sum[range]);
    let s = &mut s[..m * TILE];
    for first in (0..limit).step_by(TILE) {
        let n = TILE.min(limit - first);
        let key = |j: usize| &span.keys[(first + j) * stride + kv_head * d..][..d];
        let value = |j: usize| &span.values[(first + j) * stride + kv_head * d..][..d];
        if m >= MATRIX_ROWS {
            for j in 0..n {
                for (i, v) in key(j).iter().enumerate() {
                    keys[i * TILE + j] = v.widen();
                }
                for (to, v) in values[j * d..(j + 1) * d].iter_mut().zip(value(j)) {
                    *to = v.widen();
                }
            }
            s.fill(0.0);
            multiply::<FMA>([m, TILE, d], q, d, keys, TILE, s, TILE);
        } else {
            for (q, s) in q.chunks(d).zip(s.chunks_mut(TILE)) {
                for (j, s) in s[..n].iter_mut().enumerate() {
                    *s = dot::<T, FMA>(q, key(j));
                }
            }
        }
        for i in 0..m {
            let s = &mut s[i * TILE..(i + 1) * TILE];
            let visible = seen(i).saturating_sub(first).min(n);
            if visible == 0 {
                s.fill(0.0);
                continue;
            }
            let top = largest(&s[..visible]).max(max[i]);
            let shrink = exp::<FMA>(max[i].max(-1e30) - top);
            if shrink != 1.0 {
                o[i * d..(i + 1) * d].iter_mut().for_each(|o| *o *= shrink);
            }
            for v in &mut s[..visible] {
                *v = exp::<FMA>(*v - top);
            }
            s[visible..].fill(0.0);
            sum[i] = sum[i] * shrink + total(&s[..visible]);
            max[i] = top;
        }
        if m >= MATRIX_ROWS {
            multiply::<FMA>([m, d, n], s, TILE, values, d, o, d);
        } else {
            for (s, o) in s.chunks(TILE).zip(o.chunks_mut(d)) {
                for (j, weight) in s[..n].iter().enumerate() {
                    for (o, v) in o.iter_mut().zip(value(j)) {
                        *o = fma::<FMA>(*weight, v.widen(), *o);
                    }
                }
            }
        }
    }
}

/// Eight independent sums, so that the loop vectorises.
#[inline(always)]
fn dot<T: Element, const FMA: bool>(a: &[f32], b: &[T]) -> f32 {
    let mut lanes = [0f32; 16];
    let (chunks_a, chunks_b) = (a.chunks_exact(16), b.chunks_exact(16));
    let rest = chunks_a.remainder().iter().zip(chunks_b.remainder());
    let rest: f32 = rest.map(|(a, b)| a * b.widen()).sum();
    for (a, b) in chunks_a.zip(chunks_b) {
        for i in 0..16 {
            lanes[i] = fma::<FMA>(a[i], b[i].widen(), lanes[i]);
        }
    }
    total(&lanes) + rest
}

#[inline(always)]
fn total(values: &[f32]) -> f32 {
    let mut lanes = [0f32; 8];
    let chunks = values.chunks_exact(8);
    let rest: f32 = chunks.remainder().iter().sum();
    for chunk in chunks {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane += v;
        }
    }
    lanes.iter().sum::<f32>() + rest
}

#[inline(always)]
fn largest(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 8];
    let chunks = values.chunks_exact(8);
    let rest = chunks.remainder().iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for chunk in chunks {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane = if *v > *lane { *v } else { *lane };
        }
    }
    lanes.iter().copied().fold(rest, f32::max)
}

/// `C += A B` for row-major `A [m, k]`, `B [k, n]`, `C [m, n]` with the given row strides.
/// Blocks of 4 rows by 16 columns stay in registers.
#[inline(always)]
fn multiply<const FMA: bool>(
    [m, n, k]: [usize; 3],
    a: &[f32],
    a_stride: usize,
    b: &[f32],
    b_stride: usize,
    c: &mut [f32],
    c_stride: usize,
) {
    let mut i = 0;
    while i + 4 <= m {
        let rows: [&[f32]; 4] = std::array::from_fn(|r| &a[(i + r) * a_stride..][..k]);
        stripe::<FMA, 4>(rows, n, b, b_stride, &mut c[i * c_stride..], c_stride);
        i += 4;
    }
    while i < m {
        let rows = [&a[i * a_stride..][..k]];
        stripe::<FMA, 1>(rows, n, b, b_stride, &mut c[i * c_stride..], c_stride);
        i += 1;
    }
}

#[inline(always)]
fn stripe<const FMA: bool, const R: usize>(
    a: [&[f32]; R],
    n: usize,
    b: &[f32],
    b_stride: usize,
    c: &mut [f32],
    c_stride: usize,
) {
    let k = a[0].len();
    let mut j = 0;
    while j + 16 <= n {
        let mut acc = [[0f32; 16]; R];
        for p in 0..k {
            let b: &[f32; 16] = match b[p * b_stride + j..].first_chunk() {
                Some(b) => b,
                None => return,
            };
            for r in 0..R {
                let weight = a[r][p];
                for x in 0..16 {
                    acc[r][x] = fma::<FMA>(weight, b[x], acc[r][x]);
                }
            }
        }
        for r in 0..R {
            for (c, acc) in c[r * c_stride + j..][..16].iter_mut().zip(acc[r]) {
                *c += acc;
            }
        }
        j += 16;
    }
    if j < n {
        for r in 0..R {
            for p in 0..k {
                let weight = a[r][p];
                let b = &b[p * b_stride + j..p * b_stride + n];
                for (c, b) in c[r * c_stride + j..r * c_stride + n].iter_mut().zip(b) {
                    *c = fma::<FMA>(weight, *b, *c);
                }
            }
        }
    }
}
