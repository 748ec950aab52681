//! How a matrix of the network is applied, with or without its LoRA pair.

use candle_core::{DType, Tensor};

use crate::Result;
use crate::kernels::add_into;

/// A bias-free linear map.
#[derive(Debug, Clone)]
pub struct Linear {
    /// `[out, in]`, in the model's dtype. On the CPU its memory is that of `[in, out]`, which
    /// matrix products of few rows read faster; so it may not be contiguous.
    pub weight: Tensor,
    /// The adapter of this matrix, if there is one.
    pub lora: Option<LoraPair>,
}

/// The two low-rank matrices of LoRA (Hu et al. 2021, arXiv 2106.09685).
#[derive(Debug, Clone)]
pub struct LoraPair {
    /// `[r, in]`, f32.
    pub a: Tensor,
    /// `[out, r]`, f32.
    pub b: Tensor,
    /// `alpha / r`, or `alpha / sqrt(r)` for rank-stabilised LoRA.
    pub scale: f64,
}

impl Linear {
    /// A linear map without an adapter; `weight` is `[out, in]`.
    pub fn new(weight: Tensor) -> Self {
        Self { weight, lora: None }
    }

    /// The same with the memory layout that is fastest on the weight's device.
    pub(crate) fn arranged(weight: Tensor) -> Result<Self> {
        if weight.device().is_cpu() {
            return Ok(Self::new(weight.t()?.contiguous()?.t()?));
        }
        Ok(Self::new(weight))
    }

    /// `y = x Wᵀ + scale (x Aᵀ) Bᵀ`; `x` is `[t, in]`, the result `[t, out]` in `x`'s dtype.
    ///
    /// The adapter is never merged: its product is computed in f32 and added, so a base and its
    /// adapter give the same numbers as during training.
    ///
    /// # Errors
    /// A failed tensor operation.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = x.matmul(&self.weight.t()?)?;
        match &self.lora {
            None => Ok(y),
            Some(pair) => {
                let low = (x.to_dtype(DType::F32)?.matmul(&pair.a.t()?)? * pair.scale)?; // [t, r]
                let delta = low.matmul(&pair.b.t()?)?; // [t, out]
                add_into(y, &delta.to_dtype(x.dtype())?)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn adapter_is_added_unmerged() {
        let x = Tensor::new(&[[1f32, 2.0]], &Device::Cpu).unwrap();
        let mut linear =
            Linear::new(Tensor::new(&[[1f32, 0.0], [0.0, 1.0]], &Device::Cpu).unwrap());
        assert_eq!(
            linear.forward(&x).unwrap().to_vec2::<f32>().unwrap(),
            [[1.0, 2.0]]
        );
        linear.lora = Some(LoraPair {
            a: Tensor::new(&[[1f32, 1.0]], &Device::Cpu).unwrap(),
            b: Tensor::new(&[[1f32], [-1.0]], &Device::Cpu).unwrap(),
            scale: 2.0,
        });
        assert_eq!(
            linear.forward(&x).unwrap().to_vec2::<f32>().unwrap(),
            [[7.0, -4.0]]
        );
    }
}
