//! The gradients of the gated activation.

use candle_core::Tensor;
use rayon::prelude::*;

use crate::Result;

/// For `y = silu(gate) up` with `silu(g) = g σ(g)`: `d_gate = dy up σ(g) (1 + g (1 - σ(g)))` and
/// `d_up = dy silu(g)`. All are `[t, intermediate]` f32.
///
/// # Errors
/// A failed tensor operation, as for shapes that do not fit.
pub fn swiglu_backward(gate: &Tensor, up: &Tensor, dy: &Tensor) -> Result<(Tensor, Tensor)> {
    if !gate.device().is_cpu() {
        let sigmoid = (gate.neg()?.exp()? + 1.0)?.recip()?;
        let silu = (gate * &sigmoid)?;
        // σ (1 + g (1 - σ)) = σ + silu (1 - σ)
        let slope = (&sigmoid + (&silu * (1.0 - &sigmoid)?)?)?;
        return Ok((((dy * up)? * slope)?, (dy * silu)?));
    }
    let read = |t: &Tensor| t.flatten_all()?.to_vec1::<f32>();
    let (g, u, d) = (read(gate)?, read(up)?, read(dy)?);
    let mut d_gate = vec![0f32; g.len()];
    let mut d_up = vec![0f32; g.len()];
    let inputs = g.par_iter().zip(&u).zip(&d);
    d_gate
        .par_iter_mut()
        .zip(&mut d_up)
        .zip(inputs)
        .with_min_len(4096)
        .for_each(|((d_gate, d_up), ((g, u), d))| {
            let sigmoid = 1.0 / (1.0 + (-g).exp());
            let silu = g * sigmoid;
            *d_gate = d * u * (sigmoid + silu * (1.0 - sigmoid));
            *d_up = d * silu;
        });
    let back = |values| Tensor::from_vec(values, gate.shape(), gate.device());
    Ok((back(d_gate)?, back(d_up)?))
}
