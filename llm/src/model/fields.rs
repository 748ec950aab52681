//! How config.json is read: typed keys, the defaults of the model's own class in transformers for
//! keys that are absent, and errors that name the key.

use serde_json::Value;

use super::rope::{Rope, RopeScaling};
use crate::kernels::Activation;
use crate::{Error, Result};

/// The keys of a model's config.json.
#[derive(Debug, Clone)]
pub(crate) struct Fields {
    /// The model's name for messages.
    model: String,
    keys: Value,
    /// What the model's class assumes for absent keys; null is a value, too.
    defaults: Value,
}

impl Fields {
    pub(crate) fn new(model: &str, keys: Value, defaults: Value) -> Self {
        Self {
            model: model.to_string(),
            keys,
            defaults,
        }
    }

    /// The value of a key; none if it is null, or absent without a default.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        let value = self.keys.get(key).or_else(|| self.defaults.get(key));
        value.filter(|value| !value.is_null())
    }

    fn wrong(&self, key: &str, value: &Value, wanted: &str) -> Error {
        Error::corrupt(format!(
            "model {}: config.json does not describe a decoder ({key} is {value}, not {wanted}); \
             fetch the file again",
            self.model
        ))
    }

    pub(crate) fn optional_size(&self, key: &str) -> Result<Option<usize>> {
        let read = |value: &Value| {
            let size = value.as_u64().and_then(|size| usize::try_from(size).ok());
            size.ok_or_else(|| self.wrong(key, value, "a whole number"))
        };
        self.get(key).map(read).transpose()
    }

    pub(crate) fn size(&self, key: &str) -> Result<usize> {
        self.optional_size(key)?.ok_or_else(|| {
            Error::corrupt(format!(
                "model {}: config.json does not describe a decoder (missing field {key}); fetch \
                 the file again",
                self.model
            ))
        })
    }

    pub(crate) fn optional_number(&self, key: &str) -> Result<Option<f64>> {
        let read = |value: &Value| {
            let number = value.as_f64().filter(|number| number.is_finite());
            number.ok_or_else(|| self.wrong(key, value, "a number"))
        };
        self.get(key).map(read).transpose()
    }

    pub(crate) fn number(&self, key: &str, default: f64) -> Result<f64> {
        Ok(self.optional_number(key)?.unwrap_or(default))
    }

    pub(crate) fn flag(&self, key: &str) -> Result<bool> {
        match self.get(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.wrong(key, other, "true or false")),
        }
    }

    /// An error for arithmetic that is not here.
    pub(crate) fn refuse(&self, what: &str, supported: &str) -> Error {
        Error::unsupported(format!(
            "model {}: config.json asks for {what}, supported is {supported}; use another model",
            self.model
        ))
    }

    /// An error for numbers that do not fit each other.
    pub(crate) fn impossible(&self, what: String) -> Error {
        Error::corrupt(format!(
            "model {}: config.json is impossible: {what}; fetch the file again",
            self.model
        ))
    }

    /// The function that gates the feed-forward; `key` is tried first, then `hidden_act`.
    pub(crate) fn activation(&self, key: &str) -> Result<Activation> {
        match self.get(key).or_else(|| self.get("hidden_act")) {
            None => Ok(Activation::Silu),
            Some(name) => match name.as_str() {
                Some("silu" | "swish") => Ok(Activation::Silu),
                Some("gelu_pytorch_tanh" | "gelu_new") => Ok(Activation::GeluTanh),
                _ => Err(self.refuse(&format!("{key} {name}"), "silu and gelu_pytorch_tanh")),
            },
        }
    }

    /// Which of `layers` layers have a window, if `layer_types` says it.
    pub(crate) fn windowed_layers(&self, layers: usize) -> Result<Option<Vec<bool>>> {
        let Some(value) = self.get("layer_types") else {
            return Ok(None);
        };
        let types = value.as_array().filter(|types| types.len() == layers);
        let types =
            types.ok_or_else(|| self.wrong("layer_types", value, "a list of a word per layer"))?;
        let windowed = types.iter().map(|kind| match kind.as_str() {
            Some("full_attention") => Ok(false),
            Some("sliding_attention") => Ok(true),
            _ => Err(self.refuse(
                &format!("layers of type {kind}"),
                "full_attention and sliding_attention",
            )),
        });
        Ok(Some(windowed.collect::<Result<_>>()?))
    }

    /// The rotation that config.json describes: transformers 5 writes `rope_parameters`, 4 wrote
    /// `rope_theta` and `rope_scaling`.
    pub(crate) fn rope(&self, head_dim: usize) -> Result<Rope> {
        let table = self.get("rope_parameters").or(self.get("rope_scaling"));
        self.rope_of(
            table.unwrap_or(&Value::Null),
            self.number("rope_theta", 10_000.0)?,
            head_dim,
        )
    }

    /// The rotation that a `table` of config.json describes; its `rope_theta` wins.
    pub(crate) fn rope_of(&self, table: &Value, theta: f64, head_dim: usize) -> Result<Rope> {
        let number = |key: &str| table.get(key).and_then(Value::as_f64);
        let need = |key: &str| {
            number(key).filter(|v| *v > 0.0).ok_or_else(|| {
                Error::corrupt(format!(
                    "model {}: config.json has rope scaling without a positive \"{key}\"; fetch \
                     the file again",
                    self.model
                ))
            })
        };
        let share = match number("partial_rotary_factor") {
            Some(share) => share,
            None => self.number("partial_rotary_factor", 1.0)?,
        };
        let width = (head_dim as f64 * share) as usize;
        if !(share > 0.0 && share <= 1.0) || width < 2 || !width.is_multiple_of(2) {
            return Err(self.impossible(format!(
                "partial_rotary_factor {share} of heads of {head_dim}"
            )));
        }
        let positions = self.size("max_position_embeddings")? as f64;
        let original = || {
            let own = self.optional_number("original_max_position_embeddings")?;
            let original = own.or(number("original_max_position_embeddings"));
            Ok::<f64, Error>(original.unwrap_or(positions))
        };
        let kind = table.get("rope_type").or_else(|| table.get("type"));
        let scaling = match kind.and_then(Value::as_str) {
            None | Some("default" | "mrope") => RopeScaling::None,
            // Longer contexts than the model's would change it; the context is the model's.
            Some("dynamic") => RopeScaling::None,
            Some("linear") => RopeScaling::Linear {
                factor: need("factor")?,
            },
            Some("llama3") => RopeScaling::Llama3 {
                factor: need("factor")?,
                low_freq_factor: need("low_freq_factor")?,
                high_freq_factor: need("high_freq_factor")?,
                original_max_position_embeddings: need("original_max_position_embeddings")?,
            },
            Some("yarn") if table.get("short_factor").is_none() => {
                let original = original()?;
                let factor = number("factor").unwrap_or(positions / original);
                let magnitude = |share: f64| match factor <= 1.0 {
                    true => 1.0,
                    false => 0.1 * share * factor.ln() + 1.0,
                };
                let inferred = match (number("mscale"), number("mscale_all_dim")) {
                    (Some(a), Some(b)) if a != 0.0 && b != 0.0 => magnitude(a) / magnitude(b),
                    _ => magnitude(1.0),
                };
                RopeScaling::Yarn {
                    factor,
                    beta_fast: number("beta_fast").unwrap_or(32.0),
                    beta_slow: number("beta_slow").unwrap_or(1.0),
                    original_max_position_embeddings: original,
                    truncate: table.get("truncate") != Some(&Value::Bool(false)),
                    attention_factor: number("attention_factor").unwrap_or(inferred),
                }
            }
            Some("longrope" | "su" | "yarn") => {
                let original = original()?;
                let factor = number("factor").unwrap_or(positions / original);
                let inferred = match factor <= 1.0 {
                    true => 1.0,
                    false => (1.0 + factor.ln() / original.ln()).sqrt(),
                };
                RopeScaling::Factors {
                    factors: self.factors(table, width / 2)?,
                    attention_factor: number("attention_factor").unwrap_or(inferred),
                    context: Some(original as usize),
                }
            }
            Some(other) => {
                return Err(Error::unsupported(format!(
                    "model {}: rope_type \"{other}\" is not supported; supported are default, \
                     linear, dynamic, llama3, yarn, longrope",
                    self.model
                )));
            }
        };
        Ok(Rope {
            theta: number("rope_theta").unwrap_or(theta),
            width,
            scaling,
        })
    }

    fn factors(&self, table: &Value, pairs: usize) -> Result<Vec<f64>> {
        let listed = table.get("short_factor").and_then(Value::as_array);
        let factors: Vec<f64> = listed
            .into_iter()
            .flatten()
            .filter_map(Value::as_f64)
            .filter(|factor| *factor > 0.0)
            .collect();
        if factors.len() != pairs {
            return Err(self.impossible(format!(
                "short_factor has {} positive numbers for {pairs} pairs of a head",
                factors.len()
            )));
        }
        Ok(factors)
    }
}

/// One id or a list of ids; absent and null are no ids.
pub(crate) fn token_ids(value: Option<&Value>) -> Vec<u32> {
    let one = |v: &Value| v.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Some(Value::Array(ids)) => ids.iter().filter_map(one).collect(),
        Some(v) => one(v).into_iter().collect(),
        None => Vec::new(),
    }
}
