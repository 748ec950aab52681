//! How attention over spans is computed on the CPU: tiles of keys, online softmax in f32.
//!
//! One task handles one key/value head of a few rows. Rows of several segments that share spans
//! (branches of one document) are handled together, so that shared keys and values are read once
//! per group and not once per branch. The running maximum and sum per row make the result exact
//! whatever the order of the tiles (Milakov and Gimelshein 2018, arXiv 1805.02867).

use candle_core::{CpuStorage, DType, Device, Storage, Tensor};
use half::{bf16, f16};
use rayon::prelude::*;

use super::attention_tile::{MASKED, MATRIX_ROWS, TILE, Tile};
use super::element::{Element, slice};
use super::segment::{Scoring, Segment};
use super::vector::{Instructions, Portable, Vector};
use crate::{Error, Result};

/// Query rows (position times query heads per key/value head) a task handles at most.
const TASK_ROWS: usize = 48;

/// See [`super::attention()`]; the second tensor is the log sum of exponentials, empty unless
/// asked for.
pub(crate) fn attention(
    q: &Tensor,
    segments: &[Segment],
    scoring: Scoring,
    with_lse: bool,
) -> Result<(Tensor, Tensor)> {
    match q.dtype() {
        DType::F32 => typed::<f32>(q, segments, scoring, with_lse),
        DType::BF16 => typed::<bf16>(q, segments, scoring, with_lse),
        DType::F16 => typed::<f16>(q, segments, scoring, with_lse),
        other => Err(Error::unsupported(format!(
            "attention in {other:?}; supported are float32, \
             bfloat16 and float16"
        ))),
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
    scoring: Scoring,
}

fn typed<T: Element>(
    q: &Tensor,
    segments: &[Segment],
    scoring: Scoring,
    with_lse: bool,
) -> Result<(Tensor, Tensor)> {
    let (t, heads, d) = q.dims3()?;
    let q = q.contiguous()?;
    let tensors = segments.iter().flat_map(|s| s.past.iter().chain([&s.own]));
    let tensors = tensors
        .flat_map(|span| [&span.keys, &span.values])
        .chain([&q]);
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
    let shape = Shape {
        heads,
        kv_heads,
        groups: heads / kv_heads,
        d,
        scoring,
    };
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
        rows.push(Rows {
            start,
            rows: segment.rows,
            past,
            own,
        });
        start += segment.rows;
    }

    let mut out = vec![T::narrow(0.0); t * heads * d];
    let mut lse = vec![0f32; if with_lse { t * heads } else { 0 }];
    let target = Target {
        out: out.as_mut_ptr(),
        lse: lse.as_mut_ptr(),
        with_lse,
    };
    let instructions = Instructions::detect();
    tasks(&rows, shape)
        .into_par_iter()
        .for_each_init(Scratch::default, |scratch, task| {
            match instructions {
                // SAFETY: the instructions were found on this machine.
                #[cfg(target_arch = "x86_64")]
                #[allow(unsafe_code)]
                Instructions::Avx512 => unsafe {
                    run_avx512(&task, &rows, query, shape, scratch, target);
                },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                #[allow(unsafe_code)]
                Instructions::Avx2 => unsafe {
                    run_avx2(&task, &rows, query, shape, scratch, target);
                },
                Instructions::Portable => {
                    run::<T, Portable>(&task, &rows, query, shape, scratch, target);
                }
            }
        });
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
    /// The same transposed, `[d, m]`, with room for one vector behind.
    q_columns: Vec<f32>,
    /// Running sums, `[m, d]`.
    o: Vec<f32>,
    /// Running maximum and denominator per row.
    max: Vec<f32>,
    sum: Vec<f32>,
    /// First position that each row sees.
    first_seen: Vec<usize>,
    /// Scores and then weights of a tile: `[TILE, m rounded up]`, or `[TILE]` per row.
    s: Vec<f32>,
    /// Maximum, denominator and shrinkage of the rows of a tile.
    state: Vec<f32>,
    /// A tile of keys and values, `[TILE, d]` each, unless they are f32 in place.
    keys: Vec<f32>,
    values: Vec<f32>,
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn run_avx512<T: Element>(
    task: &Task,
    rows: &[Rows<'_, T>],
    query: &[T],
    shape: Shape,
    scratch: &mut Scratch,
    target: Target<T>,
) {
    run::<T, super::vector::Avx512>(task, rows, query, shape, scratch, target);
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
    run::<T, super::vector::Avx2>(task, rows, query, shape, scratch, target);
}

#[inline(always)]
fn run<T: Element, V: Vector>(
    task: &Task,
    rows: &[Rows<'_, T>],
    query: &[T],
    shape: Shape,
    scratch: &mut Scratch,
    target: Target<T>,
) {
    let Shape {
        heads,
        groups,
        d,
        scoring,
        ..
    } = shape;
    let scale = scoring.scale as f32;
    let m: usize = task.members.iter().map(|m| m.2).sum::<usize>() * groups;
    let reset = |buffer: &mut Vec<f32>, len: usize, value: f32| {
        buffer.clear();
        buffer.resize(len, value);
    };
    let padded = m.next_multiple_of(V::LANES);
    reset(&mut scratch.q, m * d, 0.0);
    reset(&mut scratch.q_columns, m * d + V::LANES, 0.0);
    reset(&mut scratch.o, m * d, 0.0);
    reset(&mut scratch.max, m, MASKED);
    reset(&mut scratch.sum, m, 0.0);
    scratch.s.resize(TILE * padded.max(MATRIX_ROWS), 0.0);
    scratch.state.resize(3 * padded, 0.0);
    scratch.first_seen.clear();
    let mut at = 0;
    for &(segment, first, count) in &task.members {
        let segment = &rows[segment];
        let start = segment.start + first;
        let before = segment.past.iter().map(|s| s.n).sum::<usize>() + segment.own.n - segment.rows;
        for row in start..start + count {
            let seen = scoring.first_seen(before + row - segment.start);
            scratch.first_seen.extend(std::iter::repeat_n(seen, groups));
            let from = &query[(row * heads + task.kv_head * groups) * d..][..groups * d];
            for (i, value) in from.iter().enumerate() {
                let value = value.widen() * scale;
                scratch.q[at * d + i] = value;
                scratch.q_columns[(i % d) * m + at + i / d] = value;
            }
            at += groups;
        }
    }

    let mut common = 0; // position of the span's first key
    for span in &rows[task.members[0].0].past[..task.common] {
        attend::<T, V>(
            span,
            common,
            0,
            m,
            &|_| span.n,
            task.kv_head,
            shape,
            scratch,
        );
        common += span.n;
    }
    let mut at = 0;
    for &(segment, first, count) in &task.members {
        let segment = &rows[segment];
        let own = count * groups;
        let mut base = common;
        for span in &segment.past[task.common..] {
            attend::<T, V>(
                span,
                base,
                at,
                own,
                &|_| span.n,
                task.kv_head,
                shape,
                scratch,
            );
            base += span.n;
        }
        // row `first + i` of the segment sees all own keys but those of later rows
        let seen = |m: usize| segment.own.n + first + m / groups + 1 - segment.rows;
        attend::<T, V>(
            &segment.own,
            base,
            at,
            own,
            &seen,
            task.kv_head,
            shape,
            scratch,
        );
        for m in 0..own {
            let row = segment.start + first + m / groups;
            let head = task.kv_head * groups + m % groups;
            let o = &scratch.o[(at + m) * d..(at + m + 1) * d];
            target.write(
                row,
                head,
                shape,
                o,
                scratch.max[at + m],
                scratch.sum[at + m],
            );
        }
        at += own;
    }
}

/// Adds a span, whose first key is at position `base`, to the running softmax of rows
/// `at..at + m`; `seen(i)`, which grows with `i`, says how many of the span's keys row `at + i`
/// may see (at least one) if its window is wide enough.
#[inline(always)]
#[allow(clippy::too_many_arguments)] // the inner loop of one kernel
fn attend<T: Element, V: Vector>(
    span: &Keys<'_, T>,
    base: usize,
    at: usize,
    m: usize,
    seen: &impl Fn(usize) -> usize,
    kv_head: usize,
    shape: Shape,
    scratch: &mut Scratch,
) {
    let (d, stride) = (shape.d, shape.kv_heads * shape.d);
    let limit = seen(m - 1).min(span.n);
    let all = scratch.max.len();
    let Scratch {
        q,
        q_columns,
        o,
        max,
        sum,
        first_seen,
        s,
        state,
        keys,
        values,
    } = scratch;
    // keys of the span that a row's window has left behind
    let left = |i: usize| first_seen[at + i].saturating_sub(base);
    let start = match shape.scoring.window {
        Some(_) => (0..m).map(left).min().unwrap_or(0) / TILE * TILE,
        None => 0,
    };
    let mut rows = Tile {
        q: &q[at * d..(at + m) * d],
        q_columns: &q_columns[at..],
        all,
        o: &mut o[at * d..(at + m) * d],
        max: &mut max[at..at + m],
        sum: &mut sum[at..at + m],
        s,
        state,
        m,
        d,
        softcap: shape.scoring.softcap.map(|cap| cap as f32),
        windowed: shape.scoring.window.is_some(),
    };
    for first in (start..limit).step_by(TILE) {
        let n = TILE.min(limit - first);
        let from = first * stride + kv_head * d;
        let (k, v) = (&span.keys[from..], &span.values[from..]);
        let visible = |i: usize| seen(i).saturating_sub(first).min(n);
        let hidden = |i: usize| left(i).saturating_sub(first).min(n);
        match (T::as_f32(k), T::as_f32(v)) {
            (Some(k), Some(v)) => rows.add::<V>(k, v, stride, n, &visible, &hidden),
            _ => {
                widen(k, stride, n, d, keys);
                widen(v, stride, n, d, values);
                rows.add::<V>(keys, values, d, n, &visible, &hidden);
            }
        }
    }
}

/// Copies `n` rows of width `d` to f32.
#[inline(always)]
fn widen<T: Element>(from: &[T], stride: usize, n: usize, d: usize, to: &mut Vec<f32>) {
    to.resize(TILE * d, 0.0);
    for (to, from) in to.chunks_mut(d).zip(from.chunks(stride)).take(n) {
        for (to, from) in to.iter_mut().zip(from) {
            *to = from.widen();
        }
    }
}
