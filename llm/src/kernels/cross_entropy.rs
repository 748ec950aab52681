//! Softmax, its negative log-likelihood and the gradient of that, in one pass over the logits.

use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, D, DType, InplaceOp2, Layout, Tensor, bail};
use rayon::prelude::*;

use super::vector::{Instructions, Portable, Vector};
use crate::Result;

/// The summed loss `-log softmax(logits)[token]` in nats over all rows, and its gradient by the
/// logits, `softmax(logits) - onehot(token)`, times `weight`. The logits, `[n, vocab]` in f32, are
/// replaced by it: they must be the result of an operation that nobody else holds. `tokens` is
/// `[n]` in u32.
///
/// # Errors
/// A failed tensor operation, as for shapes that do not fit or a token outside the vocabulary.
pub(crate) fn softmax_cross_entropy(
    logits: Tensor,
    tokens: &Tensor,
    weight: f64,
) -> Result<(f64, Tensor)> {
    if !logits.device().is_cpu() {
        return composed(&logits, tokens, weight);
    }
    let logits = logits.contiguous()?;
    let op = CrossEntropy {
        weight: weight as f32,
        loss: Mutex::new(0.0),
    };
    logits.inplace_op2(&tokens.contiguous()?, &op)?;
    let loss = *op.loss.lock().unwrap_or_else(PoisonError::into_inner);
    Ok((loss, logits))
}

fn composed(logits: &Tensor, tokens: &Tensor, weight: f64) -> Result<(f64, Tensor)> {
    let shifted = logits.broadcast_sub(&logits.max_keepdim(D::Minus1)?)?;
    let exp = shifted.exp()?;
    let sum = exp.sum_keepdim(D::Minus1)?;
    let wanted = tokens.unsqueeze(1)?; // [n, 1]
    let chosen = shifted.gather(&wanted, 1)?;
    let nats = (sum.log()? - chosen)?.flatten_all()?.to_dtype(DType::F64)?;
    let one = Tensor::full(-1f32, wanted.shape(), logits.device())?;
    let gradient = (exp.broadcast_div(&sum)?.scatter_add(&wanted, &one, 1)? * weight)?;
    Ok((nats.sum_all()?.to_scalar::<f64>()?, gradient))
}

struct CrossEntropy {
    weight: f32,
    loss: Mutex<f64>,
}

impl InplaceOp2 for CrossEntropy {
    fn name(&self) -> &'static str {
        "softmax_cross_entropy"
    }

    fn cpu_fwd(
        &self,
        logits: &mut CpuStorage,
        logits_layout: &Layout,
        tokens: &CpuStorage,
        tokens_layout: &Layout,
    ) -> candle_core::Result<()> {
        let (rows, vocab) = logits_layout.shape().dims2()?;
        let (CpuStorage::F32(logits), CpuStorage::U32(tokens)) = (logits, tokens) else {
            bail!("softmax_cross_entropy needs logits in float32 and tokens in u32");
        };
        let ranges = (
            logits_layout.contiguous_offsets(),
            tokens_layout.contiguous_offsets(),
        );
        let (Some((l, l_end)), Some((t, t_end))) = ranges else {
            bail!("kernel input is not contiguous");
        };
        let tokens = &tokens[t..t_end];
        if tokens.len() != rows || tokens.iter().any(|token| *token as usize >= vocab) {
            bail!("softmax_cross_entropy: {rows} rows of {vocab} logits do not fit the tokens");
        }
        let instructions = Instructions::detect();
        let nats: Vec<f64> = logits[l..l_end]
            .par_chunks_mut(vocab)
            .zip(tokens)
            .map(|(row, token)| {
                let token = *token as usize;
                match instructions {
                    // SAFETY: the instructions were found on this machine.
                    #[cfg(target_arch = "x86_64")]
                    #[allow(unsafe_code)]
                    Instructions::Avx512 => unsafe { row_avx512(row, token, self.weight) },
                    // SAFETY: as above.
                    #[cfg(target_arch = "x86_64")]
                    #[allow(unsafe_code)]
                    Instructions::Avx2 => unsafe { row_avx2(row, token, self.weight) },
                    Instructions::Portable => one_row::<Portable>(row, token, self.weight),
                }
            })
            .collect();
        let loss = nats.iter().sum();
        *self.loss.lock().unwrap_or_else(PoisonError::into_inner) = loss;
        Ok(())
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn row_avx512(row: &mut [f32], token: usize, weight: f32) -> f64 {
    one_row::<super::vector::Avx512>(row, token, weight)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn row_avx2(row: &mut [f32], token: usize, weight: f32) -> f64 {
    one_row::<super::vector::Avx2>(row, token, weight)
}

/// Replaces the logits of one row by the gradient; returns the row's nats.
#[inline(always)]
fn one_row<V: Vector>(row: &mut [f32], token: usize, weight: f32) -> f64 {
    let whole = row.len() - row.len() % V::LANES;
    let (body, rest) = row.split_at_mut(whole);
    let mut most = V::splat(f32::NEG_INFINITY);
    for lanes in body.chunks_exact(V::LANES) {
        most = most.max(V::load(lanes));
    }
    let most = rest.iter().copied().fold(most.largest(), f32::max);
    let chosen = match token < whole {
        true => body[token],
        false => rest[token - whole],
    } - most;
    let mut sum = V::splat(0.0);
    for lanes in body.chunks_exact_mut(V::LANES) {
        let exp = V::load(lanes).add(V::splat(-most)).exp();
        sum = sum.add(exp);
        exp.store(lanes);
    }
    let mut sum = sum.sum();
    for logit in rest.iter_mut() {
        *logit = (*logit - most).exp();
        sum += *logit;
    }
    let scale = weight / sum;
    for lanes in body.chunks_exact_mut(V::LANES) {
        V::load(lanes).mul(V::splat(scale)).store(lanes);
    }
    for logit in rest.iter_mut() {
        *logit *= scale;
    }
    row[token] -= weight;
    f64::from(sum).ln() - f64::from(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn one_pass_agrees_with_composed_operations() {
        let logits = Tensor::rand(-9f32, 9.0, (7, 1003), &Device::Cpu).unwrap();
        let tokens = Tensor::new(&[0u32, 1, 500, 1000, 1001, 1002, 7], &Device::Cpu).unwrap();
        let (want_loss, want) = composed(&logits, &tokens, 0.25).unwrap();
        let (loss, got) = softmax_cross_entropy(logits, &tokens, 0.25).unwrap();
        assert!(
            (loss - want_loss).abs() < 1e-4 * want_loss,
            "{loss} {want_loss}"
        );
        let off = (got - want).unwrap().abs().unwrap().max_all().unwrap();
        assert!(off.to_scalar::<f32>().unwrap() < 1e-6);
        let none = Tensor::zeros((1, 4), DType::F32, &Device::Cpu).unwrap();
        let outside = Tensor::new(&[4u32], &Device::Cpu).unwrap();
        assert!(softmax_cross_entropy(none, &outside, 1.0).is_err());
    }
}
