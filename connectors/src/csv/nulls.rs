//! Which cells are null: nothing without quotes always, and what the options name.

use regex::Regex;

use crate::error::{Error, Result};

/// What is null beside an empty cell without quotes.
#[derive(Debug, Clone, Default)]
pub(super) struct Nulls {
    /// How a null is written: `format.null_value`, else nothing.
    written: String,
    /// Cells without quotes.
    plain: Vec<String>,
    /// Whole cells, with or without quotes.
    pattern: Option<Regex>,
}

impl Nulls {
    /// `escape` as in the dialect: MySQL writes a null as the escape and an N.
    pub(super) fn new(
        value: Option<&str>,
        pattern: Option<&str>,
        escape: Option<u8>,
    ) -> Result<Self> {
        let compile = |pattern: &str| {
            Regex::new(&format!(r"\A(?:{pattern})\z")).map_err(|e| {
                Error::invalid(format!(
                    "option format.null_regex is '{pattern}', which is no regular expression: {e}"
                ))
                .with_source(e)
            })
        };
        let written = value.unwrap_or_default().to_owned();
        let mut plain: Vec<String> = (!written.is_empty())
            .then(|| written.clone())
            .into_iter()
            .collect();
        plain.extend(escape.map(|escape| format!("{}N", char::from(escape))));
        Ok(Self {
            written,
            plain,
            pattern: pattern.map(compile).transpose()?,
        })
    }

    /// How a null is written.
    pub(super) fn written(&self) -> &str {
        &self.written
    }

    /// True if this cell without quotes is null.
    pub(super) fn is_plain(&self, text: &str) -> bool {
        text.is_empty() || self.plain.iter().any(|null| null == text)
    }

    /// True if this cell is null with quotes, too.
    pub(super) fn is_any(&self, text: &str) -> bool {
        self.pattern.as_ref().is_some_and(|p| p.is_match(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_are_those_that_were_named() {
        let nulls = Nulls::new(Some("N/A"), Some("-|NULL"), Some(b'\\')).unwrap();
        for (text, plain, any) in [
            ("", true, false),
            ("N/A", true, false),
            ("\\N", true, false),
            ("n/a", false, false),
            ("-", false, true),
            ("NULL", false, true),
            ("NULL\n", false, false),
            ("a-b", false, false),
        ] {
            assert_eq!(
                (nulls.is_plain(text), nulls.is_any(text)),
                (plain, any),
                "{text:?}"
            );
        }
        let error = Nulls::new(None, Some("("), None).unwrap_err().to_string();
        assert!(error.contains("format.null_regex"), "{error}");
        assert_eq!(Nulls::default().written(), "");
    }
}
