//! The gradients of causal attention over packed sequences, probabilities computed again from
//! the saved log-sum-exp (Dao et al. 2022, arXiv 2205.14135, section 3).

use candle_core::{D, Tensor};
use rayon::prelude::*;

use super::segment::Scoring;
use crate::Result;

/// Gradients of q `[t, heads, d]`, k and v `[t, kv_heads, d]`, given the result `out` and its
/// gradient `d_out` `[t, heads, d]` and `lse` `[t, heads]`; all f32. `lengths` are the sequences.
///
/// With `S = scale q kᵀ`, `P = exp(S - lse)` and `D = rowsum(d_out out)`: `dv = Pᵀ d_out`,
/// `dS = P (d_out vᵀ - D)`, `dq = scale dS k`, `dk = scale dSᵀ q`. Where scores are bent,
/// `B = cap tanh(S / cap)` takes the place of `S` in `P`, and `dS` gets the factor `1 - (B / cap)²`.
///
/// # Errors
/// A failed tensor operation, as for shapes that do not fit.
#[allow(clippy::too_many_arguments)] // one backward pass has this many inputs
pub fn attention_backward(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    out: &Tensor,
    lse: &Tensor,
    d_out: &Tensor,
    lengths: &[usize],
    scoring: Scoring,
) -> Result<(Tensor, Tensor, Tensor)> {
    match q.device().is_cpu() {
        true => fused(q, k, v, out, lse, d_out, lengths, scoring),
        false => composed(q, k, v, out, d_out, lengths, scoring),
    }
}

/// One sequence and one key/value head: its gradients, in `[n, d]` rows.
struct Part {
    start: usize,
    kv_head: usize,
    /// One per query head of the group.
    dq: Vec<Vec<f32>>,
    dk: Vec<f32>,
    dv: Vec<f32>,
}

#[allow(clippy::too_many_arguments)] // as above
fn fused(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    out: &Tensor,
    lse: &Tensor,
    d_out: &Tensor,
    lengths: &[usize],
    scoring: Scoring,
) -> Result<(Tensor, Tensor, Tensor)> {
    let (scale, cap) = (scoring.scale as f32, scoring.softcap.map(|cap| cap as f32));
    let (_, heads, d) = q.dims3()?;
    let (_, kv_heads, _) = k.dims3()?;
    let group = heads / kv_heads;
    let read = |t: &Tensor| t.flatten_all()?.to_vec1::<f32>();
    let (qs, ks, vs, os) = (read(q)?, read(k)?, read(v)?, read(out)?);
    let (ls, dos) = (read(lse)?, read(d_out)?);
    let mut starts = vec![];
    let mut at = 0;
    for n in lengths {
        starts.push((at, *n));
        at += n;
    }
    let work: Vec<(usize, usize, usize)> = starts
        .iter()
        .flat_map(|(s, n)| (0..kv_heads).map(move |h| (*s, *n, h)))
        .collect();
    let parts: Vec<Part> = work
        .into_par_iter()
        .map(|(start, n, kv_head)| {
            let row = |row: usize, head: usize, count: usize| ((start + row) * count + head) * d;
            let (mut dk, mut dv) = (vec![0f32; n * d], vec![0f32; n * d]);
            let mut dq = vec![vec![0f32; n * d]; group];
            for (g, dq) in dq.iter_mut().enumerate() {
                let head = kv_head * group + g;
                for i in 0..n {
                    let at = row(i, head, heads);
                    let (q, d_o) = (&qs[at..at + d], &dos[at..at + d]);
                    let delta = dot(d_o, &os[at..at + d]);
                    let lse = ls[(start + i) * heads + head];
                    for j in scoring.first_seen(i)..=i {
                        let at = row(j, kv_head, kv_heads);
                        let (k, v) = (&ks[at..at + d], &vs[at..at + d]);
                        let score = scale * dot(q, k);
                        let (score, slope) = match cap {
                            Some(cap) => {
                                let bent = (score / cap).tanh();
                                (cap * bent, scale * (1.0 - bent * bent))
                            }
                            None => (score, scale),
                        };
                        let p = (score - lse).exp();
                        let ds = p * (dot(d_o, v) - delta) * slope;
                        add(&mut dv[j * d..(j + 1) * d], p, d_o);
                        add(&mut dq[i * d..(i + 1) * d], ds, k);
                        add(&mut dk[j * d..(j + 1) * d], ds, q);
                    }
                }
            }
            Part {
                start,
                kv_head,
                dq,
                dk,
                dv,
            }
        })
        .collect();
    let (mut dqs, mut dks, mut dvs) = (
        vec![0f32; qs.len()],
        vec![0f32; ks.len()],
        vec![0f32; vs.len()],
    );
    for part in parts {
        let n = part.dk.len() / d;
        for i in 0..n {
            let kv = ((part.start + i) * kv_heads + part.kv_head) * d;
            dks[kv..kv + d].copy_from_slice(&part.dk[i * d..(i + 1) * d]);
            dvs[kv..kv + d].copy_from_slice(&part.dv[i * d..(i + 1) * d]);
            for (g, dq) in part.dq.iter().enumerate() {
                let at = ((part.start + i) * heads + part.kv_head * group + g) * d;
                dqs[at..at + d].copy_from_slice(&dq[i * d..(i + 1) * d]);
            }
        }
    }
    let device = q.device();
    Ok((
        Tensor::from_vec(dqs, q.shape(), device)?,
        Tensor::from_vec(dks, k.shape(), device)?,
        Tensor::from_vec(dvs, v.shape(), device)?,
    ))
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    // Eight sums at a time, which the compiler keeps in one vector register.
    let mut sums = [0f32; 8];
    let (mut a8, mut b8) = (a.chunks_exact(8), b.chunks_exact(8));
    for (a, b) in (&mut a8).zip(&mut b8) {
        for i in 0..8 {
            sums[i] += a[i] * b[i];
        }
    }
    let rest: f32 = a8
        .remainder()
        .iter()
        .zip(b8.remainder())
        .map(|(a, b)| a * b)
        .sum();
    sums.iter().sum::<f32>() + rest
}

fn add(to: &mut [f32], factor: f32, values: &[f32]) {
    for (to, value) in to.iter_mut().zip(values) {
        *to += factor * value;
    }
}

/// The same from tensor operations, sequence by sequence.
fn composed(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    out: &Tensor,
    d_out: &Tensor,
    lengths: &[usize],
    scoring: Scoring,
) -> Result<(Tensor, Tensor, Tensor)> {
    let (heads, kv_heads) = (q.dim(1)?, k.dim(1)?);
    let group = heads / kv_heads;
    let (mut dq, mut dk, mut dv) = (vec![], vec![], vec![]);
    let mut at = 0;
    for n in lengths {
        // [heads, n, d]; each key/value head is repeated for its group
        let part = |t: &Tensor| t.narrow(0, at, *n)?.transpose(0, 1)?.contiguous();
        let wide = |t: &Tensor| -> candle_core::Result<Tensor> {
            let (h, n, d) = t.dims3()?;
            t.unsqueeze(1)?
                .expand((h, group, n, d))?
                .reshape((h * group, n, d))
        };
        let (q, o, d_o) = (part(q)?, part(out)?, part(d_out)?);
        let (k, v) = (wide(&part(k)?)?, wide(&part(v)?)?);
        let scores = (q.matmul(&k.transpose(1, 2)?)? * scoring.scale)?;
        let (scores, slope) = match scoring.softcap {
            Some(cap) => {
                let bent = (scores / cap)?.tanh()?;
                let slope = ((1.0 - bent.sqr()?)? * scoring.scale)?;
                ((bent * cap)?, Some(slope))
            }
            None => (scores, None),
        };
        let mask: Vec<f32> = (0..n * n)
            .map(|x| {
                let (row, key) = (x / n, x % n);
                match (scoring.first_seen(row)..=row).contains(&key) {
                    true => 0.0,
                    false => f32::NEG_INFINITY,
                }
            })
            .collect();
        let mask = Tensor::from_vec(mask, (*n, *n), q.device())?;
        let scores = scores.broadcast_add(&mask)?;
        let exp = scores
            .broadcast_sub(&scores.max_keepdim(D::Minus1)?)?
            .exp()?;
        let p = exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)?;
        let delta = (&d_o * &o)?.sum_keepdim(D::Minus1)?;
        let d_p = d_o.matmul(&v.transpose(1, 2)?)?;
        let ds = (&p * d_p.broadcast_sub(&delta)?)?;
        let ds = match slope {
            Some(slope) => (ds * slope)?,
            None => (ds * scoring.scale)?,
        };
        let narrow = |t: Tensor| -> candle_core::Result<Tensor> {
            let (_, n, d) = t.dims3()?;
            t.reshape((kv_heads, group, n, d))?
                .sum(1)?
                .transpose(0, 1)?
                .contiguous()
        };
        dq.push(ds.matmul(&k)?.transpose(0, 1)?.contiguous()?);
        dk.push(narrow(ds.transpose(1, 2)?.contiguous()?.matmul(&q)?)?);
        dv.push(narrow(p.transpose(1, 2)?.contiguous()?.matmul(&d_o)?)?);
        at += n;
    }
    Ok((
        Tensor::cat(&dq, 0)?,
        Tensor::cat(&dk, 0)?,
        Tensor::cat(&dv, 0)?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn check(scoring: Scoring) {
        let random = |h: usize| Tensor::randn(0f32, 1.0, (9, h, 8), &Device::Cpu).unwrap();
        let (q, k, v, d_out) = (random(4), random(2), random(2), random(4));
        let lengths = [5, 4];
        let mut segments = vec![];
        let mut at = 0;
        for n in lengths {
            let own = crate::kernels::Span {
                keys: k.narrow(0, at, n).unwrap(),
                values: v.narrow(0, at, n).unwrap(),
            };
            segments.push(crate::kernels::Segment {
                rows: n,
                past: vec![],
                own,
            });
            at += n;
        }
        let (out, lse) = crate::kernels::attention_with_lse(&q, &segments, scoring).unwrap();
        let a = fused(&q, &k, &v, &out, &lse, &d_out, &lengths, scoring).unwrap();
        let b = composed(&q, &k, &v, &out, &d_out, &lengths, scoring).unwrap();
        for (a, b) in [(a.0, b.0), (a.1, b.1), (a.2, b.2)] {
            let gap = (a - b).unwrap().abs().unwrap().max_all().unwrap();
            assert!(gap.to_scalar::<f32>().unwrap() < 1e-5, "{scoring:?} {gap}");
        }
    }

    #[test]
    fn fused_and_composed_agree() {
        for softcap in [None, Some(1.5)] {
            for window in [None, Some(1), Some(3)] {
                check(Scoring {
                    scale: 0.3,
                    softcap,
                    window,
                });
            }
        }
    }
}
