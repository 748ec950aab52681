//! `casebook check`: does a connection work, step by step, and if not, which step fails.

use std::fmt;

use crate::error::Result;
use crate::location::shown;
use crate::secret::GivenOptions;

/// What is checked. Debug shows no credentials.
#[derive(Clone)]
pub struct CheckRequest {
    /// As in `LOCATION`.
    pub location: String,
    /// As in `OPTIONS`.
    pub options: GivenOptions,
    /// Also write into a scratch name, which is removed again.
    pub write: bool,
}

impl fmt::Debug for CheckRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckRequest")
            .field("location", &shown(&self.location))
            .field("options", &self.options)
            .field("write", &self.write)
            .finish()
    }
}

/// One step: what was tried, and what came of it. A step after a failed one is not tried.
#[derive(Debug)]
pub struct CheckStep {
    /// `options`, `driver`, `reach`, `sign in`, `system`, `list`, `read` or `write`.
    pub name: &'static str,
    /// What was found, or why it failed and what to do.
    pub result: Result<String>,
}

/// Steps that end with the first failure.
#[derive(Debug, Default)]
pub(crate) struct Steps(Vec<CheckStep>);

impl Steps {
    /// Notes what came of `name`; the value if it went well.
    pub(crate) fn note<T>(
        &mut self,
        name: &'static str,
        result: Result<T>,
        found: impl FnOnce(&T) -> String,
    ) -> Option<T> {
        let (result, value) = match result {
            Ok(value) => (Ok(found(&value)), Some(value)),
            Err(error) => (Err(error), None),
        };
        self.0.push(CheckStep { name, result });
        value
    }

    /// The steps so far.
    pub(crate) fn done(self) -> Vec<CheckStep> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_shows_no_credentials() {
        let mut request = CheckRequest {
            location: "http://bob:hunter2@h/x?sig=hunter2".into(),
            options: GivenOptions::default(),
            write: false,
        };
        request
            .options
            .insert("aws.secret_access_key".into(), "hunter2".into());
        let text = format!("{request:?}");
        assert!(
            text.contains("http://h/x") && text.contains("aws.secret"),
            "{text}"
        );
        assert!(!text.contains("hunter2"), "{text}");
    }
}
