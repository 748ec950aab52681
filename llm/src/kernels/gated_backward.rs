//! The gradients of the gated activation.

use candle_core::Tensor;
use rayon::prelude::*;

use super::gated::{Activation, GELU_CUBE, GELU_SLOPE};
use crate::Result;

/// For `y = a(gate) up` with `a(g) = g σ(z(g))`: `d_gate = dy up (σ + g σ (1 - σ) z')` and
/// `d_up = dy a(g)`. All are `[t, intermediate]` f32.
///
/// # Errors
/// A failed tensor operation, as for shapes that do not fit.
pub fn gated_backward(
    activation: Activation,
    gate: &Tensor,
    up: &Tensor,
    dy: &Tensor,
) -> Result<(Tensor, Tensor)> {
    let (line, cube) = (f64::from(GELU_SLOPE), f64::from(GELU_CUBE));
    if !gate.device().is_cpu() {
        let (z, slope) = match activation {
            Activation::Silu => (gate.clone(), gate.ones_like()?),
            Activation::GeluTanh => {
                let square = gate.sqr()?;
                let z = (gate * ((&square * cube)? + 1.0)?)?;
                ((z * line)?, ((square * (3.0 * cube * line))? + line)?)
            }
        };
        let sigmoid = (z.neg()?.exp()? + 1.0)?.recip()?;
        let active = (gate * &sigmoid)?;
        // σ + g σ (1 - σ) z'
        let slope = (&sigmoid + ((&active * (1.0 - &sigmoid)?)? * slope)?)?;
        return Ok((((dy * up)? * slope)?, (dy * active)?));
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
            let (z, slope) = match activation {
                Activation::Silu => (*g, 1.0),
                Activation::GeluTanh => (
                    GELU_SLOPE * g * (1.0 + GELU_CUBE * g * g),
                    GELU_SLOPE * (1.0 + 3.0 * GELU_CUBE * g * g),
                ),
            };
            let sigmoid = 1.0 / (1.0 + (-z).exp());
            let active = g * sigmoid;
            *d_gate = d * u * (sigmoid + active * (1.0 - sigmoid) * slope);
            *d_up = d * active;
        });
    let back = |values| Tensor::from_vec(values, gate.shape(), gate.device());
    Ok((back(d_gate)?, back(d_up)?))
}

#[cfg(test)]
mod tests {
    use super::super::gated::gated;
    use super::*;
    use candle_core::Device;

    #[test]
    fn slopes_are_those_of_the_function() {
        let gate: Vec<f32> = (-60..60).map(|i| i as f32 / 10.0).collect();
        let one = Tensor::ones(gate.len(), candle_core::DType::F32, &Device::Cpu).unwrap();
        let up = (&one * 1.5).unwrap();
        let at = |shift: f32| {
            let shifted: Vec<f32> = gate.iter().map(|g| g + shift).collect();
            Tensor::new(shifted, &Device::Cpu).unwrap()
        };
        for activation in [Activation::Silu, Activation::GeluTanh] {
            let (d_gate, d_up) = gated_backward(activation, &at(0.0), &up, &one).unwrap();
            let y = |shift| gated(activation, &at(shift), &up).unwrap();
            let slope = ((y(0.01) - y(-0.01)).unwrap() / 0.02).unwrap();
            let gap = (slope - d_gate).unwrap().abs().unwrap().max_all().unwrap();
            assert!(
                gap.to_scalar::<f32>().unwrap() < 1e-3,
                "{activation:?} {gap}"
            );
            let gap = ((d_up * 1.5).unwrap() - y(0.0)).unwrap().abs().unwrap();
            assert!(gap.max_all().unwrap().to_scalar::<f32>().unwrap() < 1e-5);
        }
    }
}
