//! AdamW with a state that can be saved (Loshchilov and Hutter 2019, arXiv 1711.05101).

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};

use super::adapter::{Site, linear_mut};
use super::backward::Gradients;
use super::settings::LoraSettings;
use crate::model::Decoder;
use crate::{Error, Result};

const EPSILON: f64 = 1e-8;

/// First and second moments of A and of B at one site, f32.
#[derive(Debug, Clone)]
pub(super) struct Moments {
    pub(super) a: (Tensor, Tensor),
    pub(super) b: (Tensor, Tensor),
}

/// The optimiser's state.
#[derive(Debug, Default)]
pub(super) struct AdamW {
    /// Steps taken.
    pub(super) step: usize,
    pub(super) moments: BTreeMap<Site, Moments>,
}

impl AdamW {
    /// Changes the decoder's pairs by `gradients`, scaled down to the norm limit, and returns
    /// their norm before that.
    pub(super) fn apply(
        &mut self,
        decoder: &mut Decoder,
        gradients: &Gradients,
        settings: &LoraSettings,
        rate: f64,
    ) -> Result<f64> {
        let norm = norm(gradients)?;
        if !norm.is_finite() {
            return Err(Error::invalid_input(
                "the gradients are not finite; lower learning_rate, or set max_grad_norm",
            ));
        }
        let limit = settings.max_grad_norm;
        let clip = if limit > 0.0 && norm > limit {
            limit / norm
        } else {
            1.0
        };
        self.step += 1;
        for (site, (d_a, d_b)) in &gradients.pairs {
            let linear = linear_mut(decoder, *site)?;
            let Some(pair) = &mut linear.lora else {
                continue;
            };
            if !self.moments.contains_key(site) {
                let zeros = |t: &Tensor| -> Result<(Tensor, Tensor)> {
                    Ok((t.zeros_like()?, t.zeros_like()?))
                };
                let fresh = Moments {
                    a: zeros(&pair.a)?,
                    b: zeros(&pair.b)?,
                };
                self.moments.insert(*site, fresh);
            }
            let Some(moments) = self.moments.get_mut(site) else {
                continue;
            };
            let step = Step {
                settings,
                rate,
                clip,
                number: self.step,
            };
            pair.a = step.update(&pair.a, d_a, &mut moments.a)?;
            pair.b = step.update(&pair.b, d_b, &mut moments.b)?;
        }
        Ok(norm)
    }
}

struct Step<'a> {
    settings: &'a LoraSettings,
    rate: f64,
    clip: f64,
    number: usize,
}

impl Step<'_> {
    fn update(&self, p: &Tensor, g: &Tensor, state: &mut (Tensor, Tensor)) -> Result<Tensor> {
        let s = self.settings;
        let g = (g * self.clip)?;
        state.0 = ((&state.0 * s.beta1)? + (&g * (1.0 - s.beta1))?)?;
        state.1 = ((&state.1 * s.beta2)? + (g.sqr()? * (1.0 - s.beta2))?)?;
        let mean = (&state.0 / (1.0 - s.beta1.powi(self.number as i32)))?;
        let spread = (&state.1 / (1.0 - s.beta2.powi(self.number as i32)))?;
        let change = (mean / (spread.sqrt()? + EPSILON)?)?;
        let kept = (p * (1.0 - self.rate * s.weight_decay))?;
        Ok((kept - (change * self.rate)?)?)
    }
}

fn norm(gradients: &Gradients) -> Result<f64> {
    let mut sum = 0.0;
    for (a, b) in gradients.pairs.values() {
        for tensor in [a, b] {
            let squares = tensor.to_dtype(DType::F64)?.sqr()?.sum_all()?;
            sum += squares.to_scalar::<f64>()?;
        }
    }
    Ok(sum.sqrt())
}
