//! Which angles the rotary positions have (Su et al. 2021, arXiv 2104.09864; scaling as in
//! transformers' `modeling_rope_utils`).

use candle_core::{Device, Tensor};

use super::config::{Rope, RopeScaling};
use crate::Result;

/// Cosines and sines for every position of the context.
#[derive(Debug, Clone)]
pub struct RopeTable {
    /// `[positions, head_dim / 2]`, f32.
    pub cos: Tensor,
    /// `[positions, head_dim / 2]`, f32.
    pub sin: Tensor,
}

impl RopeTable {
    /// The table for positions `0..positions`.
    ///
    /// # Errors
    /// A failed tensor operation.
    pub fn new(rope: &Rope, head_dim: usize, positions: usize, device: &Device) -> Result<Self> {
        let frequencies = frequencies(rope, head_dim);
        let half = frequencies.len();
        let mut cos = Vec::with_capacity(positions * half);
        let mut sin = Vec::with_capacity(positions * half);
        for position in 0..positions {
            for frequency in &frequencies {
                // transformers multiplies in f32; so the product is rounded to f32 here too
                let angle = f64::from(position as f32 * *frequency as f32);
                cos.push(angle.cos() as f32);
                sin.push(angle.sin() as f32);
            }
        }
        Ok(Self {
            cos: Tensor::from_vec(cos, (positions, half), device)?,
            sin: Tensor::from_vec(sin, (positions, half), device)?,
        })
    }

    /// The rows of the given positions, `[t, head_dim / 2]` each.
    ///
    /// # Errors
    /// A failed tensor operation, as for a position beyond the table.
    pub fn rows(&self, positions: &[u32]) -> Result<(Tensor, Tensor)> {
        let index = Tensor::new(positions, self.cos.device())?;
        Ok((
            self.cos.index_select(&index, 0)?,
            self.sin.index_select(&index, 0)?,
        ))
    }
}

/// Radians per position of each of the `head_dim / 2` pairs.
fn frequencies(rope: &Rope, head_dim: usize) -> Vec<f64> {
    let plain = (0..head_dim / 2).map(|i| rope.theta.powf(-((2 * i) as f64) / head_dim as f64));
    match rope.scaling {
        RopeScaling::None => plain.collect(),
        RopeScaling::Linear { factor } => plain.map(|f| f / factor).collect(),
        RopeScaling::Llama3 {
            factor,
            low_freq_factor: low,
            high_freq_factor: high,
            original_max_position_embeddings: original,
        } => plain
            .map(|f| {
                let wavelength = 2.0 * std::f64::consts::PI / f;
                if wavelength < original / high {
                    f
                } else if wavelength > original / low {
                    f / factor
                } else {
                    let smooth = (original / wavelength - low) / (high - low);
                    (1.0 - smooth) * f / factor + smooth * f
                }
            })
            .collect(),
    }
}
