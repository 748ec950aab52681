//! The settings of a training run: what they mean, their defaults and limits.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

use crate::model::{FUSED_MODULES, LORA_MODULES};
use crate::{Error, Result};

/// Learning rate over the run, after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Half a cosine down to the minimum.
    Cosine,
    /// A straight line down to the minimum.
    Linear,
    /// No decay.
    Constant,
}

/// What to train and how. Every field is a key of [`LoraSettings::set`] and stands in [`SETTINGS`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraSettings {
    /// Rank r of every pair.
    pub rank: usize,
    /// Pairs are scaled by alpha / r.
    pub alpha: f64,
    /// Scale by alpha / sqrt(r) instead (Kalajdzievski 2023, arXiv 2312.03732).
    pub use_rslora: bool,
    /// Modules that get a pair, by PEFT's names.
    pub target_modules: Vec<String>,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Share of the steps in which the rate rises to its peak.
    pub warmup_share: f64,
    /// The last step's rate as a share of the peak.
    pub min_learning_rate_share: f64,
    /// Shape of the decay.
    pub schedule: Schedule,
    /// Times every example is seen.
    pub epochs: usize,
    /// Stop after this many optimiser steps; 0: no limit beside the epochs.
    pub max_steps: usize,
    /// Token budget of a micro-batch: examples are packed into it without padding.
    pub batch_tokens: usize,
    /// Micro-batches per optimiser step.
    pub accumulation_steps: usize,
    /// Gradients are scaled down to this norm; 0: not at all.
    pub max_grad_norm: f64,
    /// Decoupled weight decay of AdamW (Loshchilov and Hutter 2019).
    pub weight_decay: f64,
    /// First-moment decay of AdamW.
    pub beta1: f64,
    /// Second-moment decay of AdamW.
    pub beta2: f64,
    /// Seed of initial weights, order and noise.
    pub seed: u64,
    /// Share of the examples that have a document and are also trained with it.
    pub with_document_share: f64,
    /// Probability with which a token of a closed-book question is left out in an epoch, so that
    /// the answer is learned for the question's meaning and not for its exact words.
    pub question_noise: f64,
    /// Probability with which a closed-book question is asked with its words in another order in an
    /// epoch, to the same end.
    pub question_shuffle: f64,
    /// Longer examples are skipped and counted.
    pub max_example_tokens: usize,
    /// Optimiser steps between checkpoints; 0: only when stopped.
    pub checkpoint_steps: usize,
}

/// One key of [`LoraSettings::set`].
#[derive(Debug)]
pub struct SettingSpec {
    /// As typed.
    pub key: &'static str,
    /// One line of documentation.
    pub doc: &'static str,
    /// What it may be; Display says it.
    pub limits: Limits,
}

/// What a setting may be; a bound beyond which nothing makes sense has its reason.
#[derive(Debug)]
pub enum Limits {
    /// Any whole number that is not negative.
    Seed,
    /// A whole number from the first to the second.
    Count(u64, u64, &'static str),
    /// A number from 0 to this.
    Number(f64, &'static str),
    /// A number beyond 0, up to this.
    Positive(f64, &'static str),
    /// From 0 to 1.
    Share,
    /// From 0 to below 1.
    Decay,
    /// True or false.
    Flag,
    /// One of some words.
    Word(&'static [&'static str]),
    /// Names of modules.
    Modules,
}

/// Stands for every module.
const ALL: &str = "all-linear";

/// What [`ALL`] stands for: every module by the names of its parts, which mean a fused matrix, too.
fn all_modules() -> impl Iterator<Item = &'static str> {
    let fused = |name: &&str| FUSED_MODULES.iter().any(|(fused, _)| fused == name);
    let names = LORA_MODULES.iter().map(|(name, _)| *name);
    names.filter(move |name| !fused(name))
}

/// Every setting, in the order in which they are documented.
pub static SETTINGS: &[SettingSpec] = &[
    SettingSpec {
        key: "rank",
        doc: "rank of the pairs of matrices that are trained",
        limits: Limits::Count(1, 1024, "a wider pair is as large as the layer it changes"),
    },
    SettingSpec {
        key: "alpha",
        doc: "pairs are scaled by alpha / rank",
        limits: Limits::Positive(1e6, "the factor of every pair"),
    },
    SettingSpec {
        key: "use_rslora",
        doc: "scale by alpha / sqrt(rank) instead",
        limits: Limits::Flag,
    },
    SettingSpec {
        key: "target_modules",
        doc: "modules of each layer that get a pair",
        limits: Limits::Modules,
    },
    SettingSpec {
        key: "epochs",
        doc: "times that every example is seen",
        limits: Limits::Count(1, 10_000, "no example helps when it is seen more often"),
    },
    SettingSpec {
        key: "max_steps",
        doc: "optimiser steps after which training ends before its epochs do; 0: none",
        limits: Limits::Count(0, 1 << 30, "a run would take years"),
    },
    SettingSpec {
        key: "learning_rate",
        doc: "peak of the learning rate",
        limits: Limits::Positive(10.0, "weights would be thrown about"),
    },
    SettingSpec {
        key: "warmup_share",
        doc: "share of the steps in which the rate rises to its peak",
        limits: Limits::Share,
    },
    SettingSpec {
        key: "schedule",
        doc: "how the rate falls after its peak",
        limits: Limits::Word(&["cosine", "linear", "constant"]),
    },
    SettingSpec {
        key: "min_learning_rate_share",
        doc: "rate of the last step as a share of the peak",
        limits: Limits::Share,
    },
    SettingSpec {
        key: "batch_tokens",
        doc: "tokens of a micro-batch, into which examples are packed",
        limits: Limits::Count(1, 1 << 20, "they are in memory at once"),
    },
    SettingSpec {
        key: "accumulation_steps",
        doc: "micro-batches of an optimiser step",
        limits: Limits::Count(1, 1 << 16, "nothing would be learned before"),
    },
    SettingSpec {
        key: "max_example_tokens",
        doc: "tokens of the longest example that is trained; longer ones are left out and counted",
        limits: Limits::Count(1, 1 << 20, "no model has a longer context"),
    },
    SettingSpec {
        key: "max_grad_norm",
        doc: "norm to which larger gradients are scaled down; 0: none",
        limits: Limits::Number(1e9, "0 means no limit"),
    },
    SettingSpec {
        key: "weight_decay",
        doc: "decoupled weight decay of AdamW",
        limits: Limits::Number(1.0, "each step takes this share times the rate"),
    },
    SettingSpec {
        key: "beta1",
        doc: "decay of AdamW's first moment",
        limits: Limits::Decay,
    },
    SettingSpec {
        key: "beta2",
        doc: "decay of AdamW's second moment",
        limits: Limits::Decay,
    },
    SettingSpec {
        key: "seed",
        doc: "seed of initial weights, order and noise",
        limits: Limits::Seed,
    },
    SettingSpec {
        key: "with_document_share",
        doc: "share of the examples with a document that are also trained with it",
        limits: Limits::Share,
    },
    SettingSpec {
        key: "question_noise",
        doc: "share of the words' tokens that a question without document leaves out, anew in each \
              epoch",
        limits: Limits::Share,
    },
    SettingSpec {
        key: "question_shuffle",
        doc: "share of the questions without document whose words stand in another order, anew in \
              each epoch",
        limits: Limits::Share,
    },
    SettingSpec {
        key: "checkpoint_steps",
        doc: "optimiser steps between checkpoints; 0: only when training is stopped",
        limits: Limits::Count(0, 1 << 30, "0 means only when stopped"),
    },
];

impl Limits {
    /// The value that `text` stands for; none if it is of another type.
    fn parse(&self, text: &str) -> Option<Value> {
        match self {
            Self::Seed | Self::Count(..) => Some(text.parse::<u64>().ok()?.into()),
            Self::Number(..) | Self::Positive(..) | Self::Share | Self::Decay => {
                Some(Number::from_f64(text.parse().ok()?)?.into())
            }
            Self::Flag => Some(text.parse::<bool>().ok()?.into()),
            Self::Word(words) => words.contains(&text).then(|| text.into()),
            Self::Modules => {
                let named: Vec<&str> = text.split(',').map(str::trim).collect();
                let all = LORA_MODULES.iter().map(|(name, _)| *name);
                if text == ALL {
                    return Some(all_modules().collect());
                }
                let known = |name: &&str| LORA_MODULES.iter().any(|(module, _)| module == name);
                // In the order of the network, whatever the order given.
                let found = || all.filter(|name| named.contains(name)).collect();
                named.iter().all(known).then(found)
            }
        }
    }

    /// True if `value` is within them.
    fn hold(&self, value: &Value) -> bool {
        let number = || value.as_f64();
        match self {
            Self::Count(least, most, _) => value
                .as_u64()
                .is_some_and(|n| (*least..=*most).contains(&n)),
            Self::Number(most, _) => number().is_some_and(|n| (0.0..=*most).contains(&n)),
            Self::Positive(most, _) => number().is_some_and(|n| n > 0.0 && n <= *most),
            Self::Share => number().is_some_and(|n| (0.0..=1.0).contains(&n)),
            Self::Decay => number().is_some_and(|n| (0.0..1.0).contains(&n)),
            Self::Modules => value.as_array().is_some_and(|modules| !modules.is_empty()),
            Self::Seed | Self::Flag | Self::Word(_) => true,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Count(_, _, why) | Self::Number(_, why) | Self::Positive(_, why) => why,
            _ => "",
        }
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seed => f.write_str("a whole number, 0 or more"),
            Self::Count(least, most, _) => write!(f, "a whole number from {least} to {most}"),
            Self::Number(most, _) => write!(f, "a number from 0 to {most}"),
            Self::Positive(most, _) => write!(f, "a number beyond 0, up to {most}"),
            Self::Share => f.write_str("a share from 0 to 1"),
            Self::Decay => f.write_str("a number from 0 to below 1"),
            Self::Flag => f.write_str("true or false"),
            Self::Word(words) => f.write_str(&words.join(", ")),
            Self::Modules => {
                let names: Vec<&str> = LORA_MODULES.iter().map(|(name, _)| *name).collect();
                write!(f, "{ALL}, or some of {} with commas", names.join(", "))
            }
        }
    }
}

impl Default for LoraSettings {
    fn default() -> Self {
        Self {
            rank: 16,
            alpha: 32.0,
            use_rslora: false,
            target_modules: all_modules().map(str::to_owned).collect(),
            learning_rate: 2e-4,
            warmup_share: 0.03,
            min_learning_rate_share: 0.1,
            schedule: Schedule::Cosine,
            epochs: 10,
            max_steps: 0,
            batch_tokens: 2048,
            accumulation_steps: 1,
            max_grad_norm: 1.0,
            weight_decay: 0.0,
            beta1: 0.9,
            beta2: 0.999,
            seed: 7,
            with_document_share: 0.1,
            question_noise: 0.0,
            question_shuffle: 0.0,
            max_example_tokens: 2048,
            checkpoint_steps: 200,
        }
    }
}

impl LoraSettings {
    /// Sets one value as typed; `target_modules` is a list with commas, or `all-linear`.
    ///
    /// # Errors
    /// An unknown key (the message lists the valid ones) or a value of another type.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let Some(spec) = SETTINGS.iter().find(|spec| spec.key == key) else {
            let valid: Vec<&str> = SETTINGS.iter().map(|spec| spec.key).collect();
            return Err(Error::invalid_input(format!(
                "unknown training setting '{key}'; valid: {}",
                valid.join(", ")
            )));
        };
        let parsed = spec.limits.parse(value.trim()).ok_or_else(|| {
            // What is no number or flag can be a secret that stands in the wrong place.
            let said = match value.parse::<f64>().is_ok() || value.parse::<bool>().is_ok() {
                true => format!("'{value}'"),
                false => format!("a text of {} characters", value.chars().count()),
            };
            let limits = &spec.limits;
            Error::invalid_input(format!(
                "training setting {key} is {said}; expected {limits}"
            ))
        })?;
        let wrong = |e: serde_json::Error| Error::internal(format!("training setting {key}: {e}"));
        let mut all = serde_json::to_value(&*self).map_err(wrong)?;
        all[key] = parsed;
        *self = serde_json::from_value(all).map_err(wrong)?;
        Ok(())
    }

    /// The value of `key` as [`LoraSettings::set`] takes it.
    pub fn get(&self, key: &str) -> String {
        match serde_json::to_value(self).unwrap_or_default()[key].take() {
            Value::String(text) => text,
            Value::Array(modules) if modules.iter().eq(all_modules()) => ALL.to_owned(),
            Value::Array(modules) => {
                let names: Vec<&str> = modules.iter().filter_map(Value::as_str).collect();
                names.join(",")
            }
            // What no JSON holds.
            Value::Null => "no number".to_owned(),
            other => other.to_string(),
        }
    }

    /// Checks that every value is within its limits.
    ///
    /// # Errors
    /// The setting that is not, and what it may be.
    pub fn validate(&self) -> Result<()> {
        let values = serde_json::to_value(self).unwrap_or_default();
        for spec in SETTINGS {
            if !spec.limits.hold(&values[spec.key]) {
                let why = match spec.limits.reason() {
                    "" => String::new(),
                    why => format!(": {why}"),
                };
                return Err(Error::invalid_input(format!(
                    "training setting {} is {}; it must be {}{why}",
                    spec.key,
                    self.get(spec.key),
                    spec.limits
                )));
            }
        }
        Ok(())
    }

    /// Factor of every pair's product.
    pub fn scale(&self) -> f64 {
        match self.use_rslora {
            true => self.alpha / (self.rank as f64).sqrt(),
            false => self.alpha / self.rank as f64,
        }
    }

    /// Learning rate of step `step` (from 0) of `steps`.
    pub fn rate(&self, step: usize, steps: usize) -> f64 {
        let warmup = (self.warmup_share * steps as f64).ceil();
        if (step as f64) < warmup {
            return self.learning_rate * (step as f64 + 1.0) / warmup;
        }
        let length = (steps as f64 - warmup - 1.0).max(1.0);
        let along = ((step as f64 - warmup) / length).min(1.0);
        let low = self.min_learning_rate_share;
        let share = match self.schedule {
            Schedule::Constant => 1.0,
            Schedule::Linear => low + (1.0 - low) * (1.0 - along),
            Schedule::Cosine => {
                low + (1.0 - low) * 0.5 * (1.0 + (std::f64::consts::PI * along).cos())
            }
        };
        self.learning_rate * share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_can_be_set_and_unknown_ones_are_listed() {
        let json = serde_json::to_value(LoraSettings::default()).unwrap();
        let mut fields: Vec<&str> = json
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        let mut keys = SETTINGS.iter().map(|spec| spec.key).collect::<Vec<_>>();
        fields.sort_unstable();
        keys.sort_unstable();
        assert_eq!(fields, keys);
        let mut settings = LoraSettings::default();
        settings.set("rank", "8").unwrap();
        settings.set("target_modules", "v_proj, q_proj").unwrap();
        assert_eq!(
            (settings.rank, settings.target_modules.join(" ")),
            (8, "q_proj v_proj".into())
        );
        assert_eq!(settings.get("target_modules"), "q_proj,v_proj");
        settings.set("target_modules", "all-linear").unwrap();
        assert_eq!(settings.get("target_modules"), "all-linear");
        settings.set("target_modules", "qkv_proj").unwrap();
        assert_eq!(settings.get("target_modules"), "qkv_proj");
        for modules in ["", "q_proj,", "q_proj;v_proj", "lm_head"] {
            let error = settings.set("target_modules", modules).unwrap_err();
            assert!(error.to_string().contains("all-linear"), "{error}");
        }
        // What is documented as the default can be typed.
        let default = LoraSettings::default();
        for spec in SETTINGS {
            settings.set(spec.key, &default.get(spec.key)).unwrap();
        }
        assert_eq!(settings, default);
        let error = settings.set("rnak", "8").unwrap_err().to_string();
        assert!(error.contains("rank"), "{error}");
        assert!(
            settings
                .set("rank", "many")
                .unwrap_err()
                .to_string()
                .contains("whole number")
        );
    }

    #[test]
    fn the_rate_rises_peaks_and_falls() {
        let settings = LoraSettings {
            learning_rate: 1.0,
            warmup_share: 0.1,
            ..LoraSettings::default()
        };
        let rates: Vec<f64> = (0..100).map(|step| settings.rate(step, 100)).collect();
        assert!((rates[0] - 0.1).abs() < 1e-9 && (rates[9] - 1.0).abs() < 1e-9);
        assert!(rates[10..].windows(2).all(|pair| pair[0] >= pair[1]));
        assert!((rates[99] - 0.1).abs() < 1e-6, "{}", rates[99]);
    }

    #[test]
    fn nonsense_is_refused() {
        let validated = |key: &str, value: &str| {
            let mut settings = LoraSettings::default();
            let set = settings.set(key, value).and_then(|()| settings.validate());
            set.map_err(|e| e.to_string())
        };
        for (key, value) in [
            ("rank", "0"),
            ("rank", "1025"),
            ("rank", "1000000"),
            ("epochs", "0"),
            ("epochs", "10001"),
            ("epochs", "1000000000"),
            ("max_steps", "18446744073709551615"),
            ("batch_tokens", "0"),
            ("batch_tokens", "18446744073709551615"),
            ("accumulation_steps", "65537"),
            ("max_example_tokens", "0"),
            ("max_example_tokens", "9223372036854775807"),
            ("checkpoint_steps", "18446744073709551615"),
            ("learning_rate", "0"),
            ("learning_rate", "-1"),
            ("learning_rate", "11"),
            ("alpha", "0"),
            ("alpha", "1e300"),
            ("weight_decay", "-0.1"),
            ("weight_decay", "1.1"),
            ("max_grad_norm", "-1"),
            ("beta1", "1"),
            ("beta2", "-0.1"),
            ("warmup_share", "1.1"),
        ] {
            let error = validated(key, value).unwrap_err();
            assert!(error.contains(key), "{key} = {value}: {error}");
        }
        for key in SETTINGS.iter().map(|spec| spec.key) {
            for value in ["NaN", "-NaN", "inf", "-inf", "1e400"] {
                let mut settings = LoraSettings::default();
                if settings.set(key, value).is_ok() {
                    assert!(
                        validated(key, value).unwrap_err().contains(key),
                        "{key} = {value}"
                    );
                }
            }
        }
        for (key, value) in [
            ("rank", "1024"),
            ("epochs", "10000"),
            ("max_steps", "0"),
            ("weight_decay", "1"),
            ("max_grad_norm", "0"),
            ("checkpoint_steps", "0"),
            ("seed", "18446744073709551615"),
        ] {
            validated(key, value).unwrap();
        }
    }
}
