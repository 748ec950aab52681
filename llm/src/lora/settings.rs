//! The settings of a training run.

use serde::{Deserialize, Serialize};

use crate::model::LORA_MODULES;
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

/// What to train and how. Every field is a key of [`LoraSettings::set`].
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

impl Default for LoraSettings {
    fn default() -> Self {
        Self {
            rank: 16,
            alpha: 32.0,
            use_rslora: false,
            target_modules: LORA_MODULES
                .iter()
                .map(|(name, _)| (*name).to_owned())
                .collect(),
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
    /// The keys of [`LoraSettings::set`].
    pub const KEYS: &[&str] = &[
        "rank",
        "alpha",
        "use_rslora",
        "target_modules",
        "learning_rate",
        "warmup_share",
        "min_learning_rate_share",
        "schedule",
        "epochs",
        "max_steps",
        "batch_tokens",
        "accumulation_steps",
        "max_grad_norm",
        "weight_decay",
        "beta1",
        "beta2",
        "seed",
        "with_document_share",
        "question_noise",
        "question_shuffle",
        "max_example_tokens",
        "checkpoint_steps",
    ];

    /// Sets one value as typed; `target_modules` is a list with commas, or `all-linear`.
    ///
    /// # Errors
    /// An unknown key (the message lists the valid ones) or a value of another type.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        match key {
            "rank" => self.rank = parse(key, value)?,
            "alpha" => self.alpha = parse(key, value)?,
            "use_rslora" => self.use_rslora = parse(key, value)?,
            "target_modules" => self.target_modules = modules(value)?,
            "learning_rate" => self.learning_rate = parse(key, value)?,
            "warmup_share" => self.warmup_share = parse(key, value)?,
            "min_learning_rate_share" => self.min_learning_rate_share = parse(key, value)?,
            "schedule" => {
                self.schedule = match value {
                    "cosine" => Schedule::Cosine,
                    "linear" => Schedule::Linear,
                    "constant" => Schedule::Constant,
                    _ => return Err(bad(key, value, "cosine, linear or constant")),
                }
            }
            "epochs" => self.epochs = parse(key, value)?,
            "max_steps" => self.max_steps = parse(key, value)?,
            "batch_tokens" => self.batch_tokens = parse(key, value)?,
            "accumulation_steps" => self.accumulation_steps = parse(key, value)?,
            "max_grad_norm" => self.max_grad_norm = parse(key, value)?,
            "weight_decay" => self.weight_decay = parse(key, value)?,
            "beta1" => self.beta1 = parse(key, value)?,
            "beta2" => self.beta2 = parse(key, value)?,
            "seed" => self.seed = parse(key, value)?,
            "with_document_share" => self.with_document_share = parse(key, value)?,
            "question_noise" => self.question_noise = parse(key, value)?,
            "question_shuffle" => self.question_shuffle = parse(key, value)?,
            "max_example_tokens" => self.max_example_tokens = parse(key, value)?,
            "checkpoint_steps" => self.checkpoint_steps = parse(key, value)?,
            _ => {
                return Err(Error::invalid_input(format!(
                    "unknown training setting '{key}'; valid: {}",
                    Self::KEYS.join(", ")
                )));
            }
        }
        Ok(())
    }

    /// Checks that the settings make sense together.
    ///
    /// # Errors
    /// The setting that does not, and what it may be.
    pub fn validate(&self) -> Result<()> {
        let wrong = |what: &str| Err(Error::invalid_input(format!("training setting {what}")));
        if self.rank == 0 {
            return wrong("rank is 0; it must be at least 1");
        }
        if self.epochs == 0 {
            return wrong("epochs is 0, so there would be no step; it must be at least 1");
        }
        if self.batch_tokens == 0 || self.accumulation_steps == 0 {
            return wrong("batch_tokens or accumulation_steps is 0; both must be at least 1");
        }
        if !(self.learning_rate > 0.0 && self.learning_rate.is_finite()) {
            return wrong("learning_rate must be more than 0");
        }
        if !(self.alpha.is_finite() && self.alpha > 0.0) {
            return wrong("alpha must be more than 0");
        }
        if self.target_modules.is_empty() {
            return wrong("target_modules is empty; name at least one module");
        }
        for (name, share) in [
            ("warmup_share", self.warmup_share),
            ("min_learning_rate_share", self.min_learning_rate_share),
            ("with_document_share", self.with_document_share),
            ("question_noise", self.question_noise),
            ("question_shuffle", self.question_shuffle),
        ] {
            if !(0.0..=1.0).contains(&share) {
                return wrong(&format!("{name} is {share}; it is a share from 0 to 1"));
            }
        }
        for (name, value, least, most, why) in [
            (
                "rank",
                self.rank,
                1,
                1024,
                "a wider pair is as large as the layer it changes",
            ),
            (
                "epochs",
                self.epochs,
                1,
                10_000,
                "no example helps when it is seen more often",
            ),
            (
                "max_steps",
                self.max_steps,
                0,
                1 << 30,
                "a run would take years",
            ),
            (
                "batch_tokens",
                self.batch_tokens,
                1,
                1 << 20,
                "they are in memory at once",
            ),
            (
                "accumulation_steps",
                self.accumulation_steps,
                1,
                1 << 16,
                "nothing would be learned before",
            ),
            (
                "max_example_tokens",
                self.max_example_tokens,
                1,
                1 << 20,
                "no model has a longer context",
            ),
            (
                "checkpoint_steps",
                self.checkpoint_steps,
                0,
                1 << 30,
                "0 means only when stopped",
            ),
        ] {
            if !(least..=most).contains(&value) {
                return wrong(&format!(
                    "{name} is {value}; it must be from {least} to {most}: {why}"
                ));
            }
        }
        for (name, value, most, why) in [
            ("alpha", self.alpha, 1e6, "the factor of every pair"),
            (
                "learning_rate",
                self.learning_rate,
                10.0,
                "weights would be thrown about",
            ),
            (
                "weight_decay",
                self.weight_decay,
                1.0,
                "each step takes this share times the rate",
            ),
            ("max_grad_norm", self.max_grad_norm, 1e9, "0 means no limit"),
        ] {
            if !(0.0..=most).contains(&value) {
                return wrong(&format!(
                    "{name} is {value}; it must be a number from 0 to {most}: {why}"
                ));
            }
        }
        if !(0.0..1.0).contains(&self.beta1) || !(0.0..1.0).contains(&self.beta2) {
            return wrong("beta1 and beta2 must be from 0 to below 1");
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

fn parse<T: std::str::FromStr>(key: &str, value: &str) -> Result<T> {
    let expected = match std::any::type_name::<T>() {
        "bool" => "true or false",
        "f64" => "a number",
        _ => "a whole number, 0 or more",
    };
    value.trim().parse().map_err(|_| bad(key, value, expected))
}

fn bad(key: &str, value: &str, expected: &str) -> Error {
    Error::invalid_input(format!(
        "training setting {key} is '{value}'; expected {expected}"
    ))
}

fn modules(value: &str) -> Result<Vec<String>> {
    let valid: Vec<&str> = LORA_MODULES.iter().map(|(name, _)| *name).collect();
    if value == "all-linear" {
        return Ok(valid.iter().map(|name| (*name).to_owned()).collect());
    }
    let named: Vec<&str> = value
        .split(',')
        .map(str::trim)
        .filter(|n| !n.is_empty())
        .collect();
    match named.iter().find(|name| !valid.contains(name)) {
        Some(name) => Err(bad(
            "target_modules",
            name,
            &format!("all-linear, or some of {}", valid.join(", ")),
        )),
        // In the order of the network, whatever the order given.
        None => Ok(valid
            .iter()
            .filter(|n| named.contains(n))
            .map(|n| (*n).to_owned())
            .collect()),
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
        let mut keys = LoraSettings::KEYS.to_vec();
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
            settings.set(key, value).unwrap();
            settings.validate().map_err(|e| e.to_string())
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
        for key in LoraSettings::KEYS {
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
