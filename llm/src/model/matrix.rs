//! How a frozen matrix is kept in memory, and the two products that are made with it.

use std::sync::Arc;

use candle_core::{DType, Tensor};

use super::quant::Quant;
use crate::Result;

/// A frozen `[out, in]` matrix of the network. Cloning shares its memory.
#[derive(Debug, Clone)]
pub enum Matrix {
    /// `[out, in]`, row after row, as files hold it: embeddings, and everything on GPUs.
    Dense(Tensor),
    /// `[in, out]`, which products of few rows read faster on the CPU.
    Packed(Tensor),
    /// Quantised, on the CPU.
    Quant(Arc<Quant>),
}

impl Matrix {
    /// The layout that is fastest on the tensor's device for a linear map; `weight` is `[out, in]`.
    pub(crate) fn arranged(weight: Tensor) -> Result<Self> {
        match weight.device().is_cpu() {
            true => Ok(Self::Packed(weight.t()?.contiguous()?)),
            false => Ok(Self::Dense(weight)),
        }
    }

    /// `x Wᵀ`: `[t, in]` to `[t, out]`, in `x`'s dtype.
    ///
    /// # Errors
    /// A failed tensor operation, as for shapes or dtypes that do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Dense(w) => x.matmul(&w.t()?)?,
            Self::Packed(w) => x.matmul(w)?,
            Self::Quant(w) => w.forward(x)?,
        })
    }

    /// `dy W`, the gradient of [`Matrix::forward`] by `x`: `[t, out]` to `[t, in]`.
    ///
    /// # Errors
    /// As [`Matrix::forward`].
    pub fn forward_t(&self, dy: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Dense(w) => dy.matmul(w)?,
            Self::Packed(w) => dy.matmul(&w.t()?)?,
            Self::Quant(w) => w.forward_t(dy)?,
        })
    }

    /// `[ids, in]`: the rows of the given numbers.
    ///
    /// # Errors
    /// A failed tensor operation, as for a row that is not there.
    pub(crate) fn rows(&self, ids: &[u32]) -> Result<Tensor> {
        let pick = |w: &Tensor| Tensor::new(ids, w.device());
        Ok(match self {
            Self::Dense(w) => w.index_select(&pick(w)?, 0)?,
            Self::Packed(w) => w.index_select(&pick(w)?, 1)?.t()?.contiguous()?,
            Self::Quant(w) => w.rows(ids)?,
        })
    }

    /// The whole matrix, `[out, in]`.
    ///
    /// # Errors
    /// A failed tensor operation.
    pub fn to_tensor(&self) -> Result<Tensor> {
        Ok(match self {
            Self::Dense(w) => w.clone(),
            Self::Packed(w) => w.t()?,
            Self::Quant(w) => w.to_tensor()?,
        })
    }

    /// `(out, in)`.
    ///
    /// # Errors
    /// A tensor that is no matrix.
    pub fn dims(&self) -> Result<(usize, usize)> {
        match self {
            Self::Dense(w) => Ok(w.dims2()?),
            Self::Packed(w) => {
                let (input, out) = w.dims2()?;
                Ok((out, input))
            }
            Self::Quant(w) => Ok(w.dims()),
        }
    }

    /// Bytes it takes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Dense(w) | Self::Packed(w) => w.elem_count() * w.dtype().size_in_bytes(),
            Self::Quant(w) => w.bytes(),
        }
    }
}

/// The token embedding: a row per token, scaled.
#[derive(Debug, Clone)]
pub struct Embedding {
    /// `[vocab, hidden]`.
    pub matrix: Matrix,
    /// Every row is multiplied by it.
    pub scale: f64,
}

impl Embedding {
    /// `[ids, hidden]` in `dtype`.
    ///
    /// # Errors
    /// A failed tensor operation, as for a token outside the vocabulary.
    pub fn rows(&self, ids: &[u32], dtype: DType) -> Result<Tensor> {
        let rows = self.matrix.rows(ids)?.to_dtype(dtype)?;
        match self.scale == 1.0 {
            true => Ok(rows),
            false => Ok((rows * self.scale)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn layouts_make_the_same_products() {
        let random = |shape| Tensor::randn(0f32, 1.0, shape, &Device::Cpu).unwrap();
        let (w, x, dy) = (random((5, 7)), random((3, 7)), random((3, 5)));
        let (dense, packed) = (Matrix::Dense(w.clone()), Matrix::arranged(w).unwrap());
        assert!(matches!(packed, Matrix::Packed(_)));
        let gap = |a: Tensor, b: Tensor| {
            let gap = (a - b).unwrap().abs().unwrap().max_all().unwrap();
            gap.to_scalar::<f32>().unwrap()
        };
        assert!(gap(dense.forward(&x).unwrap(), packed.forward(&x).unwrap()) < 1e-5);
        let transposed = dense.forward_t(&dy).unwrap();
        assert_eq!(transposed.dims(), [3, 7]);
        assert!(gap(transposed, packed.forward_t(&dy).unwrap()) < 1e-5);
        let rows = dense.rows(&[4, 0, 4]).unwrap();
        assert_eq!(gap(rows, packed.rows(&[4, 0, 4]).unwrap()), 0.0);
        assert_eq!(
            gap(dense.to_tensor().unwrap(), packed.to_tensor().unwrap()),
            0.0
        );
        assert_eq!(dense.dims().unwrap(), packed.dims().unwrap());
        assert_eq!((dense.bytes(), packed.bytes()), (140, 140));
    }
}
