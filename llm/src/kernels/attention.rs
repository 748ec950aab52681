//! How rows of many sequences attend at once, each to its own keys, without padding.
//!
//! Rows come in segments: consecutive rows of one sequence. A segment attends fully to the spans
//! before it (ancestors in the prefix tree, shared by reference) and causally to its own span,
//! which ends with the segment's own keys. The result is exact: a softmax over all spans.

use candle_core::{D, DType, Tensor};

use super::attention_cpu;
use super::segment::{Scoring, Segment};
use crate::{Error, Result};

/// Softmax attention of `q` `[t, heads, d]`, whose rows are those of `segments` in order; query
/// head `h` reads key/value head `h / (heads / kv_heads)`. Scores are made as `scoring` says, the
/// softmax is computed in f32. The result is `[t, heads, d]` in `q`'s dtype.
///
/// # Errors
/// A failed tensor operation, as for shapes or dtypes that do not fit.
pub fn attention(q: &Tensor, segments: &[Segment], scoring: Scoring) -> Result<Tensor> {
    check(q, segments)?;
    if q.device().is_cpu() {
        return Ok(attention_cpu::attention(q, segments, scoring, false)?.0);
    }
    Ok(composed(q, segments, scoring)?.0)
}

/// As [`attention`], with the logarithm of each row's softmax denominator, `[t, heads]` f32,
/// which a backward pass needs.
///
/// # Errors
/// As [`attention`].
pub fn attention_with_lse(
    q: &Tensor,
    segments: &[Segment],
    scoring: Scoring,
) -> Result<(Tensor, Tensor)> {
    check(q, segments)?;
    if q.device().is_cpu() {
        return attention_cpu::attention(q, segments, scoring, true);
    }
    composed(q, segments, scoring)
}

fn check(q: &Tensor, segments: &[Segment]) -> Result<()> {
    let (t, heads, d) = q.dims3()?;
    let rows: usize = segments.iter().map(|s| s.rows).sum();
    if rows != t {
        return Err(Error::internal(format!(
            "attention of {t} rows with segments of {rows} rows"
        )));
    }
    for segment in segments {
        for span in segment.past.iter().chain([&segment.own]) {
            let (n, kv_heads, width) = span.keys.dims3()?;
            let fits = span.values.dims3()? == (n, kv_heads, width)
                && width == d
                && kv_heads > 0
                && heads.is_multiple_of(kv_heads)
                && span.keys.dtype() == q.dtype()
                && span.values.dtype() == q.dtype();
            if !fits {
                return Err(Error::internal(format!(
                    "attention of {:?} {:?} with keys {:?} {:?} and values {:?} {:?}",
                    q.dtype(),
                    q.shape(),
                    span.keys.dtype(),
                    span.keys.shape(),
                    span.values.dtype(),
                    span.values.shape()
                )));
            }
        }
        if segment.rows > segment.own.keys.dim(0)? {
            return Err(Error::internal("attention of more rows than own keys"));
        }
    }
    Ok(())
}

/// The same, composed of tensor operations: runs on every device.
fn composed(q: &Tensor, segments: &[Segment], scoring: Scoring) -> Result<(Tensor, Tensor)> {
    let (_, heads, d) = q.dims3()?;
    let device = q.device();
    let mut outs = Vec::with_capacity(segments.len());
    let mut lses = Vec::with_capacity(segments.len());
    let mut row = 0;
    for segment in segments {
        let (r, own) = (segment.rows, segment.own.keys.dim(0)?);
        let spans = || segment.past.iter().chain([&segment.own]);
        let keys = Tensor::cat(&spans().map(|s| &s.keys).collect::<Vec<_>>(), 0)?;
        let values = Tensor::cat(&spans().map(|s| &s.values).collect::<Vec<_>>(), 0)?;
        let (n, kv_heads, _) = keys.dims3()?;
        let groups = heads / kv_heads;
        // [r, heads, d] -> [kv_heads, groups * r, d]: all queries of a key/value head together
        let q = q.narrow(0, row, r)?.reshape((r, kv_heads, groups, d))?;
        let q = q
            .permute((1, 2, 0, 3))?
            .reshape((kv_heads, groups * r, d))?;
        let keys = keys.permute((1, 2, 0))?.contiguous()?; // [kv_heads, d, n]
        let scores = (q.contiguous()?.matmul(&keys)?.to_dtype(DType::F32)? * scoring.scale)?;
        let scores = match scoring.softcap {
            Some(cap) => ((scores / cap)?.tanh()? * cap)?,
            None => scores,
        };
        let scores = if r > 1 || scoring.window.is_some_and(|window| window < n) {
            let mask = causal_mask(r, n, n - own, scoring, device)?; // [r, n]
            let scores = scores.reshape((kv_heads, groups, r, n))?;
            scores
                .broadcast_add(&mask)?
                .reshape((kv_heads, groups * r, n))?
        } else {
            scores
        };
        let top = scores.max_keepdim(D::Minus1)?;
        let weights = scores.broadcast_sub(&top)?.exp()?;
        let sum = weights.sum_keepdim(D::Minus1)?;
        let lse = (sum.log()? + top)?.reshape((kv_heads, groups, r))?;
        let weights = weights.broadcast_div(&sum)?.to_dtype(values.dtype())?;
        let out = weights.matmul(&values.permute((1, 0, 2))?.contiguous()?)?;
        let out = out
            .reshape((kv_heads, groups, r, d))?
            .permute((2, 0, 1, 3))?;
        outs.push(out.reshape((r, heads, d))?);
        lses.push(lse.permute((2, 0, 1))?.reshape((r, heads))?);
        row += r;
    }
    Ok((Tensor::cat(&outs, 0)?, Tensor::cat(&lses, 0)?))
}

/// `[r, n]`: 0 where row `i` may look, minus infinity elsewhere.
fn causal_mask(
    r: usize,
    n: usize,
    past: usize,
    scoring: Scoring,
    device: &candle_core::Device,
) -> Result<Tensor> {
    let own = n - past;
    let mask: Vec<f32> = (0..r)
        .flat_map(|i| {
            let seen = past + own - (r - 1 - i);
            let first = scoring.first_seen(seen - 1);
            (0..n).map(move |j| match (first..seen).contains(&j) {
                true => 0.0,
                false => f32::NEG_INFINITY,
            })
        })
        .collect();
    Ok(Tensor::from_vec(mask, (r, n), device)?)
}

#[cfg(test)]
mod tests {
    use super::super::segment::Span;
    use super::*;
    use candle_core::Device;
    use proptest::prelude::*;

    fn random(shape: (usize, usize, usize)) -> Tensor {
        Tensor::randn(0f32, 1.0, shape, &Device::Cpu).unwrap()
    }

    fn span(n: usize, kv_heads: usize, d: usize) -> Span {
        Span {
            keys: random((n, kv_heads, d)),
            values: random((n, kv_heads, d)),
        }
    }

    fn gap(a: &Tensor, b: &Tensor) -> f32 {
        let b = b.to_dtype(DType::F32).unwrap();
        let a = a.to_dtype(DType::F32).unwrap();
        (a - b)
            .unwrap()
            .abs()
            .unwrap()
            .max_all()
            .unwrap()
            .to_scalar()
            .unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn fused_equals_composed(
            kv_heads in 1usize..4, groups in 1usize..4, half in 1usize..20,
            sizes in prop::collection::vec((1usize..40, 0usize..90, 0usize..150), 1..5),
            softcap in prop::option::of(0.5f64..20.0), window in prop::option::of(1usize..300),
        ) {
            let d = 2 * half;
            let shared = span(70, kv_heads, d);
            let segments: Vec<Segment> = sizes.iter().map(|&(rows, before, past)| Segment {
                rows,
                past: if past == 0 { vec![] } else { vec![shared.clone(), span(past, kv_heads, d)] },
                own: span(rows + before, kv_heads, d),
            }).collect();
            let t = sizes.iter().map(|s| s.0).sum();
            let q = random((t, kv_heads * groups, d));
            let scoring = Scoring { scale: 0.3, softcap, window };
            let (wanted, wanted_lse) = composed(&q, &segments, scoring).unwrap();
            let (found, lse) = attention_with_lse(&q, &segments, scoring).unwrap();
            prop_assert!(gap(&found, &wanted) < 2e-5, "{}", gap(&found, &wanted));
            prop_assert!(gap(&lse, &wanted_lse) < 2e-5);
            prop_assert_eq!(gap(&attention(&q, &segments, scoring).unwrap(), &found), 0.0);
        }
    }

    #[test]
    fn a_window_hides_older_keys() {
        // Values are one-hot by key, so that the result says which keys were seen.
        let n = 9;
        let keys = Tensor::zeros((n, 1, n), DType::F32, &Device::Cpu).unwrap();
        let values = Tensor::eye(n, DType::F32, &Device::Cpu)
            .unwrap()
            .reshape((n, 1, n))
            .unwrap();
        let part = |at: usize, len: usize| Span {
            keys: keys.narrow(0, at, len).unwrap(),
            values: values.narrow(0, at, len).unwrap(),
        };
        let segment = Segment {
            rows: 3,
            past: vec![part(0, 2), part(2, 3)],
            own: part(5, 4),
        };
        let q = random((3, 1, n));
        let scoring = Scoring {
            window: Some(4),
            ..Scoring::plain(1.0)
        };
        let out = attention(&q, &[segment], scoring).unwrap();
        let out = out.squeeze(1).unwrap().to_vec2::<f32>().unwrap();
        for (row, out) in out.iter().enumerate() {
            let position = 6 + row;
            for (key, weight) in out.iter().enumerate() {
                let wanted = if key + 4 > position && key <= position {
                    0.25
                } else {
                    0.0
                };
                assert!(
                    (weight - wanted).abs() < 1e-6,
                    "row {row} key {key}: {weight}"
                );
            }
        }
    }

    #[test]
    fn half_precision_is_close() {
        for (dtype, limit) in [(DType::BF16, 0.05), (DType::F16, 0.01)] {
            let (q, own) = (random((9, 4, 16)), span(20, 2, 16));
            let wide = Segment {
                rows: 9,
                past: vec![],
                own: own.clone(),
            };
            let own = Span {
                keys: own.keys.to_dtype(dtype).unwrap(),
                values: own.values.to_dtype(dtype).unwrap(),
            };
            let narrow = Segment {
                own,
                ..wide.clone()
            };
            let wanted = attention(&q, &[wide], Scoring::plain(0.25)).unwrap();
            let found =
                attention(&q.to_dtype(dtype).unwrap(), &[narrow], Scoring::plain(0.25)).unwrap();
            assert_eq!(found.dtype(), dtype);
            assert!(
                gap(&found, &wanted) < limit,
                "{dtype:?} {}",
                gap(&found, &wanted)
            );
        }
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let own = span(4, 2, 8);
        let segment = Segment {
            rows: 3,
            past: vec![],
            own,
        };
        for shape in [(2, 4, 8), (3, 3, 8), (3, 4, 6)] {
            let segments = std::slice::from_ref(&segment);
            assert!(attention(&random(shape), segments, Scoring::plain(1.0)).is_err());
        }
    }
}
