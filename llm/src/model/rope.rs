//! Which angles the rotary positions have (Su et al. 2021, arXiv 2104.09864; scaling as in
//! transformers' `modeling_rope_utils`).

use candle_core::{Device, Tensor};

use crate::Result;

/// Rotary position parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f64,
    /// Numbers of a head that are rotated, the first of it; even.
    pub width: usize,
    /// How the frequencies are stretched for longer contexts.
    pub scaling: RopeScaling,
}

/// Frequency scaling; names as in transformers.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// Frequencies as they are.
    None,
    /// All frequencies divided by the factor.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Llama 3.1: only low frequencies are divided, with a smooth transition.
    Llama3 {
        /// The divisor of low frequencies.
        factor: f64,
        /// Wavelengths above `original / low_freq_factor` are divided.
        low_freq_factor: f64,
        /// Wavelengths below `original / high_freq_factor` stay.
        high_freq_factor: f64,
        /// Context of the unscaled model in tokens.
        original_max_position_embeddings: f64,
    },
    /// YaRN (Peng et al. 2023, arXiv 2309.00071): low frequencies are divided, high ones stay, on a
    /// ramp over the pairs; cosines and sines are multiplied.
    Yarn {
        /// The divisor of low frequencies.
        factor: f64,
        /// Rotations within the original context above which a frequency stays.
        beta_fast: f64,
        /// Rotations within the original context below which a frequency is divided.
        beta_slow: f64,
        /// Context of the unscaled model in tokens.
        original_max_position_embeddings: f64,
        /// Whether the ramp's ends are whole numbers.
        truncate: bool,
        /// Multiplies cosines and sines.
        attention_factor: f64,
    },
    /// Each frequency divided by a factor of its own: LongRoPE (Ding et al. 2024, arXiv 2402.13753)
    /// with its factors for short texts.
    Factors {
        /// One divisor per pair.
        factors: Vec<f64>,
        /// Multiplies cosines and sines.
        attention_factor: f64,
        /// Longest text the factors are meant for. Beyond it every angle is another, also those of
        /// tokens that are cached already.
        context: Option<usize>,
    },
}

/// Cosines and sines of rows.
#[derive(Debug, Clone)]
pub struct Angles {
    /// `[t, width / 2]`, f32.
    pub cos: Tensor,
    /// `[t, width / 2]`, f32.
    pub sin: Tensor,
}

impl Angles {
    /// Those that turn back.
    pub(crate) fn back(&self) -> Result<Self> {
        Ok(Self {
            cos: self.cos.clone(),
            sin: self.sin.neg()?,
        })
    }
}

impl Rope {
    /// Rotation of whole heads with unscaled frequencies.
    pub fn plain(theta: f64, head_dim: usize) -> Self {
        Self {
            theta,
            width: head_dim,
            scaling: RopeScaling::None,
        }
    }

    /// The longest text that it can turn, if it has a limit.
    pub(crate) fn context(&self) -> Option<usize> {
        match self.scaling {
            RopeScaling::Factors { context, .. } => context,
            _ => None,
        }
    }

    /// The angles of rows at the given positions.
    ///
    /// # Errors
    /// A failed tensor operation.
    pub fn angles(&self, positions: &[u32], device: &Device) -> Result<Angles> {
        let frequencies = self.frequencies();
        let factor = self.attention_factor();
        let half = frequencies.len();
        let mut cos = Vec::with_capacity(positions.len() * half);
        let mut sin = Vec::with_capacity(positions.len() * half);
        for position in positions {
            for frequency in &frequencies {
                // transformers multiplies in f32; so the product is rounded to f32 here too
                let angle = f64::from(*position as f32 * *frequency as f32);
                cos.push((angle.cos() * factor) as f32);
                sin.push((angle.sin() * factor) as f32);
            }
        }
        let shape = (positions.len(), half);
        Ok(Angles {
            cos: Tensor::from_vec(cos, shape, device)?,
            sin: Tensor::from_vec(sin, shape, device)?,
        })
    }

    fn attention_factor(&self) -> f64 {
        match self.scaling {
            RopeScaling::Yarn {
                attention_factor, ..
            }
            | RopeScaling::Factors {
                attention_factor, ..
            } => attention_factor,
            _ => 1.0,
        }
    }

    /// Radians per position of each of the `width / 2` pairs.
    fn frequencies(&self) -> Vec<f64> {
        let width = self.width as f64;
        let plain = (0..self.width / 2).map(|i| self.theta.powf(-((2 * i) as f64) / width));
        match &self.scaling {
            RopeScaling::None => plain.collect(),
            RopeScaling::Linear { factor } => plain.map(|f| f / factor).collect(),
            RopeScaling::Factors { factors, .. } => {
                plain.zip(factors).map(|(f, factor)| f / factor).collect()
            }
            &RopeScaling::Llama3 {
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
            &RopeScaling::Yarn {
                factor,
                beta_fast,
                beta_slow,
                original_max_position_embeddings: original,
                truncate,
                ..
            } => {
                // The pair that turns `rotations` times within the original context.
                let pair = |rotations: f64| {
                    let turns = (original / (rotations * 2.0 * std::f64::consts::PI)).ln();
                    width * turns / (2.0 * self.theta.ln())
                };
                let (mut low, mut high) = (pair(beta_fast), pair(beta_slow));
                if truncate {
                    (low, high) = (low.floor(), high.ceil());
                }
                let (low, mut high) = (low.max(0.0), high.min(width - 1.0));
                if low == high {
                    high += 0.001; // a ramp needs a length
                }
                let ramp = |i: usize| ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                plain
                    .enumerate()
                    .map(|(i, f)| f / factor * ramp(i) + f * (1.0 - ramp(i)))
                    .collect()
            }
        }
    }
}
