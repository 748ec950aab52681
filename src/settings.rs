//! Session settings: `SET casebook.qa.questions_per_chunk = 3`.
//!
//! One extension with nested groups. Absence means: what the profile says.

use std::any::Any;

use datafusion::common::config::{ConfigEntry, ConfigExtension, ConfigField, ExtensionOptions};
use datafusion::common::extensions_options;
use datafusion::error::Result;

use crate::error::Error;

/// Most documents, and chunks of each, in generation at the same time: all of them are in memory.
const MOST_AHEAD: usize = 10_000;

/// Most tokens of an answer: no model has a longer context.
const MOST_TOKENS: usize = 1_000_000;

/// Casebook's settings, prefix `casebook`.
#[derive(Debug, Clone, Default)]
pub struct CasebookConfig {
    /// Generation of question/answer pairs.
    pub qa: QaConfig,
    /// Answers without a document.
    pub ask: AskConfig,
}

impl ConfigExtension for CasebookConfig {
    const PREFIX: &'static str = "casebook";
}

// By hand, because a value must be checked when it is set: the macro takes any number.
impl ExtensionOptions for CasebookConfig {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn cloned(&self) -> Box<dyn ExtensionOptions> {
        Box::new(self.clone())
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let entries = self.entries();
        let full = format!("{}.{key}", Self::PREFIX);
        let known = entries.iter().any(|entry| entry.key == full);
        let Some((group, own)) = key.split_once('.').filter(|_| known) else {
            let valid: Vec<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
            return Err(Error::unknown("setting", &full, &valid).into());
        };
        let wrong = |expected: String| {
            Error::invalid(format!(
                "setting {full} is '{value}'; it must be {expected}"
            ))
        };
        if group == "ask" {
            let mut changed = self.ask.clone();
            let set = ConfigField::set(&mut changed, own, value);
            if set.is_err() || !(1..=MOST_TOKENS).contains(&changed.max_tokens) {
                return Err(wrong(format!("a whole number from 1 to {MOST_TOKENS}")).into());
            }
            self.ask = changed;
            return Ok(());
        }
        let mut changed = self.qa.clone();
        ConfigField::set(&mut changed, own, value).map_err(|_| wrong(expected(own)))?;
        changed.check()?;
        self.qa = changed;
        Ok(())
    }

    fn entries(&self) -> Vec<ConfigEntry> {
        let qa = self.qa.entries().into_iter().map(|entry| ("qa", entry));
        let ask = self.ask.entries().into_iter().map(|entry| ("ask", entry));
        qa.chain(ask)
            .map(|(group, entry)| ConfigEntry {
                key: format!("{}.{group}.{}", Self::PREFIX, entry.key),
                ..entry
            })
            .collect()
    }
}

extensions_options! {
    /// `casebook.qa.*`: defaults of `docs_to_qa`; its named arguments win.
    pub struct QaConfig {
        /// Name of a [models] entry, builtin:tiny, a model directory or a hub id
        pub model: String, default = "default".to_string()
        /// Name of a profile (see `casebook profiles`)
        pub profile: String, default = "general".to_string()
        /// Questions asked about each chunk; unset: the profile decides
        pub questions_per_chunk: Option<usize>, default = None
        /// Accepted pairs after which a document is done; unset: the profile decides
        pub max_pairs_per_document: Option<usize>, default = None
        /// Seed of every sampled question; unset: the profile decides
        pub seed: Option<usize>, default = None
        /// Documents in generation at the same time: bounds memory and work lost to a LIMIT
        pub look_ahead_documents: usize, default = 12
        /// Chunks of one document in generation at the same time
        pub look_ahead_chunks: usize, default = 4
        /// Share of rows that may fail in the engine before the statement stops, 0 to 1
        pub error_budget: f64, default = 0.1
    }
}

extensions_options! {
    /// `casebook.ask.*`: what `ask` and `ask_reply` do.
    pub struct AskConfig {
        /// Tokens of an answer at most; a longer one is cut, and a notice says so
        pub max_tokens: usize, default = 256
    }
}

/// What the setting `key` may be.
fn expected(key: &str) -> String {
    match key {
        "look_ahead_documents" | "look_ahead_chunks" => {
            format!("a whole number from 1 to {MOST_AHEAD}")
        }
        "error_budget" => "a share from 0 to 1".to_owned(),
        key => casebook_qa::profile::expected(key).unwrap_or_else(|| "text".to_owned()),
    }
}

impl QaConfig {
    /// Values that are bounds themselves must have one; those of the profile are checked there.
    fn check(&self) -> Result<(), Error> {
        for (key, value) in [
            ("look_ahead_documents", self.look_ahead_documents),
            ("look_ahead_chunks", self.look_ahead_chunks),
        ] {
            if !(1..=MOST_AHEAD).contains(&value) {
                return Err(Error::invalid(format!(
                    "setting casebook.qa.{key} is {value}; it must be from 1 to {MOST_AHEAD}, \
                     because all of them are in memory"
                )));
            }
        }
        match (0.0..=1.0).contains(&self.error_budget) {
            true => Ok(()),
            false => Err(Error::invalid(format!(
                "setting casebook.qa.error_budget is {}; it is a share from 0 to 1",
                self.error_budget
            ))),
        }
    }

    /// The profile overrides that were set, as (key, value).
    pub fn overrides(&self) -> Vec<(String, String)> {
        [
            ("questions_per_chunk", self.questions_per_chunk),
            ("max_pairs_per_document", self.max_pairs_per_document),
            ("seed", self.seed),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?.to_string())))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked_when_they_are_set() {
        let mut config = CasebookConfig::default();
        for (key, value) in [
            ("qa.look_ahead_documents", "0"),
            ("qa.look_ahead_documents", "10001"),
            ("qa.look_ahead_chunks", "18446744073709551615"),
            ("qa.look_ahead_chunks", "-1"),
            ("qa.error_budget", "NaN"),
            ("qa.error_budget", "1.01"),
            ("qa.error_budget", "-0.1"),
            ("qa.seed", "many"),
        ] {
            let error = config.set(key, value).unwrap_err().to_string();
            assert!(
                error.contains(&format!("casebook.{key}")),
                "{key} = {value}: {error}"
            );
        }
        for (key, value, expected) in [
            (
                "qa.questions_per_chunk",
                "-2",
                "a whole number from 1 to 1000",
            ),
            ("qa.seed", "many", "a whole number from 0 to"),
            (
                "qa.look_ahead_chunks",
                "x",
                "a whole number from 1 to 10000",
            ),
            ("qa.error_budget", "half", "a share from 0 to 1"),
        ] {
            let error = config.set(key, value).unwrap_err().to_string();
            assert!(
                error.contains(&format!("'{value}'; it must be {expected}")),
                "{error}"
            );
        }
        assert_eq!(config.qa.look_ahead_documents, 12);
        for value in ["0", "-1", "1000001", "all"] {
            let error = config.set("ask.max_tokens", value).unwrap_err().to_string();
            let expected = format!(
                "casebook.ask.max_tokens is '{value}'; it must be a whole number from 1 to 1000000"
            );
            assert!(error.contains(&expected), "{error}");
        }
        config.set("ask.max_tokens", "7").unwrap();
        assert_eq!(config.ask.max_tokens, 7);
        config.set("qa.look_ahead_documents", "10000").unwrap();
        config.set("qa.error_budget", "0").unwrap();
        config.set("qa.seed", "7").unwrap();
        assert_eq!(
            (config.qa.look_ahead_documents, config.qa.seed),
            (10_000, Some(7))
        );
        let error = config.set("qa.error_budgt", "1").unwrap_err().to_string();
        assert!(
            error.contains("Did you mean 'casebook.qa.error_budget'?"),
            "{error}"
        );
        let error = config.set("qas.seed", "1").unwrap_err().to_string();
        assert!(error.contains("casebook.qa.look_ahead_chunks"), "{error}");
    }
}
