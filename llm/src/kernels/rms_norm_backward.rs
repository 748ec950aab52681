//! The gradient of RMS norm by its input; weights are frozen and get none.

use candle_core::{D, Tensor};
use rayon::prelude::*;

use crate::Result;

/// For `y = w x r` with `r = 1 / sqrt(mean(x²) + eps)`:
/// `dx = r (w dy) - x r³ mean(w dy x)`. `x` and `dy` are `[t, hidden]` f32, `weight` `[hidden]`.
///
/// # Errors
/// A failed tensor operation, as for shapes that do not fit.
pub fn rms_norm_backward(x: &Tensor, weight: &Tensor, eps: f64, dy: &Tensor) -> Result<Tensor> {
    if !x.device().is_cpu() {
        let scale = ((x.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?).recip()?; // [t, 1]
        let wdy = dy.broadcast_mul(weight)?;
        let mean = (&wdy * x)?.mean_keepdim(D::Minus1)?;
        let second = x.broadcast_mul(&(scale.powf(3.0)? * mean)?)?;
        return Ok((wdy.broadcast_mul(&scale)? - second)?);
    }
    let width = x.dim(D::Minus1)?;
    let (xs, dys) = (
        x.flatten_all()?.to_vec1::<f32>()?,
        dy.flatten_all()?.to_vec1::<f32>()?,
    );
    let w = weight.to_vec1::<f32>()?;
    let mut out = vec![0f32; xs.len()];
    let rows = out
        .par_chunks_mut(width)
        .zip(xs.par_chunks(width).zip(dys.par_chunks(width)));
    rows.with_min_len(16).for_each(|(out, (x, dy))| {
        let squares: f32 = x.iter().map(|v| v * v).sum();
        let r = 1.0 / (squares / width as f32 + eps as f32).sqrt();
        let dot: f32 = x
            .iter()
            .zip(dy)
            .zip(&w)
            .map(|((x, dy), w)| x * dy * w)
            .sum();
        let second = r * r * r * dot / width as f32;
        for i in 0..width {
            out[i] = r * w[i] * dy[i] - second * x[i];
        }
    });
    Ok(Tensor::from_vec(out, x.shape(), x.device())?)
}
