//! How a matrix of the network is applied: with its bias and its LoRA pair, if it has them.

use candle_core::{DType, Tensor};

use super::matrix::Matrix;
use crate::Result;
use crate::kernels::add_into;

/// A linear map.
#[derive(Debug, Clone)]
pub struct Linear {
    /// `[out, in]`, frozen.
    pub matrix: Matrix,
    /// `[out]`, frozen, in the model's dtype.
    pub bias: Option<Tensor>,
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
    /// A linear map without bias and adapter.
    pub fn new(matrix: Matrix) -> Self {
        Self {
            matrix,
            bias: None,
            lora: None,
        }
    }

    /// `(out, in)`.
    ///
    /// # Errors
    /// As [`Matrix::dims`].
    pub fn dims(&self) -> Result<(usize, usize)> {
        self.matrix.dims()
    }

    /// `y = x Wᵀ + bias + scale (x Aᵀ) Bᵀ`; `x` is `[t, in]`, the result `[t, out]` in `x`'s dtype.
    ///
    /// The adapter is never merged: its product is computed in f32 and added, so a base and its
    /// adapter give the same numbers as during training.
    ///
    /// # Errors
    /// A failed tensor operation.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut y = self.matrix.forward(x)?;
        if let Some(bias) = &self.bias {
            y = y.broadcast_add(bias)?;
        }
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
    fn adapter_and_bias_are_added_unmerged() {
        let x = Tensor::new(&[[1f32, 2.0]], &Device::Cpu).unwrap();
        let identity = Tensor::new(&[[1f32, 0.0], [0.0, 1.0]], &Device::Cpu).unwrap();
        let mut linear = Linear::new(Matrix::Dense(identity));
        let y = |linear: &Linear| linear.forward(&x).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(y(&linear), [[1.0, 2.0]]);
        linear.lora = Some(LoraPair {
            a: Tensor::new(&[[1f32, 1.0]], &Device::Cpu).unwrap(),
            b: Tensor::new(&[[1f32], [-1.0]], &Device::Cpu).unwrap(),
            scale: 2.0,
        });
        assert_eq!(y(&linear), [[7.0, -4.0]]);
        linear.bias = Some(Tensor::new(&[10f32, 20.0], &Device::Cpu).unwrap());
        assert_eq!(y(&linear), [[17.0, 16.0]]);
    }
}
