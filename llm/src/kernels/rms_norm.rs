//! How a row is normalised: `y = x / sqrt(mean(x²) + eps) * weight` (Zhang and Sennrich 2019,
//! arXiv 1910.07467).

use candle_core::{CpuStorage, CustomOp2, D, DType, Layout, Shape, Tensor, bail};
use half::{bf16, f16};
use rayon::prelude::*;

use super::element::{Element, slice};
use crate::Result;

/// Normalises each row of `x` (any shape that ends in `h`) by its root mean square and scales it
/// by `weight` `[h]`, f32. The mean is taken in f32; the result has `x`'s dtype.
///
/// # Errors
/// A failed tensor operation, as for shapes or dtypes that do not fit.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    if x.device().is_cpu() {
        return Ok(x
            .contiguous()?
            .apply_op2_no_bwd(&weight.contiguous()?, &RmsNorm { eps })?);
    }
    let wide = x.to_dtype(DType::F32)?;
    let mean = wide.sqr()?.mean_keepdim(D::Minus1)?;
    let normed = wide
        .broadcast_div(&(mean + eps)?.sqrt()?)?
        .to_dtype(x.dtype())?
        .to_dtype(DType::F32)?;
    Ok(normed.broadcast_mul(weight)?.to_dtype(x.dtype())?)
}

struct RmsNorm {
    eps: f64,
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let shape = x_layout.shape().clone();
        let weight = slice::<f32>(weight, weight_layout)?;
        let storage = match x {
            CpuStorage::F32(_) => rows::<f32>(slice(x, x_layout)?, weight, self.eps)?,
            CpuStorage::BF16(_) => rows::<bf16>(slice(x, x_layout)?, weight, self.eps)?,
            CpuStorage::F16(_) => rows::<f16>(slice(x, x_layout)?, weight, self.eps)?,
            _ => bail!("rms-norm needs float32, bfloat16 or float16"),
        };
        Ok((storage, shape))
    }
}

fn rows<T: Element>(x: &[T], weight: &[f32], eps: f64) -> candle_core::Result<CpuStorage> {
    let h = weight.len();
    if h == 0 || !x.len().is_multiple_of(h) {
        bail!("rms-norm of rows that are not as wide as the weight ({h})");
    }
    let mut out = vec![T::narrow(0.0); x.len()];
    out.par_chunks_mut(h)
        .with_min_len(8)
        .zip(x.par_chunks(h))
        .for_each(|(out, x)| {
            let mut lanes = [0f32; 8]; // independent sums, so that the loop vectorises
            let chunks = x.chunks_exact(8);
            let rest: f32 = chunks
                .remainder()
                .iter()
                .map(|v| v.widen() * v.widen())
                .sum();
            for chunk in chunks {
                for (lane, v) in lanes.iter_mut().zip(chunk) {
                    *lane += v.widen() * v.widen();
                }
            }
            let mean = (lanes.iter().sum::<f32>() + rest) / h as f32;
            let scale = 1.0 / (mean + eps as f32).sqrt();
            for ((out, v), w) in out.iter_mut().zip(x).zip(weight) {
                *out = T::narrow(T::narrow(v.widen() * scale).widen() * w);
            }
        });
    Ok(T::to_cpu_storage_owned(out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn matches_the_formula() {
        let x = Tensor::rand(-2f32, 2.0, (5, 19), &Device::Cpu).unwrap();
        let w = Tensor::rand(0.5f32, 1.5, 19, &Device::Cpu).unwrap();
        let mean = x.sqr().unwrap().mean_keepdim(D::Minus1).unwrap();
        let wanted = x
            .broadcast_div(&(mean + 1e-5).unwrap().sqrt().unwrap())
            .unwrap();
        let wanted = wanted.broadcast_mul(&w).unwrap();
        for (dtype, limit) in [(DType::F32, 1e-6), (DType::BF16, 0.03), (DType::F16, 0.005)] {
            let found = rms_norm(&x.to_dtype(dtype).unwrap(), &w, 1e-5);
            let found = found.unwrap().to_dtype(DType::F32).unwrap();
            let gap = (found - &wanted).unwrap().abs().unwrap().max_all().unwrap();
            assert!(gap.to_scalar::<f32>().unwrap() < limit, "{dtype:?} {gap}");
        }
    }
}
