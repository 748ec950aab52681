//! `casebook check`: does a connection work, step by step, and if not, which step fails.

use std::fmt;
use std::path::{Path, PathBuf};

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

/// Directories that a test of writing is about to make. Dropped, they are removed again: an empty one
/// that stays would change what a location means.
#[derive(Debug)]
pub struct ScratchDirectories(Vec<PathBuf>);

impl ScratchDirectories {
    /// `directory` and those above it that are not there.
    pub fn missing(directory: &Path) -> Self {
        let above = directory.ancestors();
        let missing = above.take_while(|path| !path.as_os_str().is_empty() && !path.exists());
        Self(missing.map(Path::to_path_buf).collect())
    }
}

impl Drop for ScratchDirectories {
    fn drop(&mut self) {
        for directory in &self.0 {
            // One that something was put into meanwhile stays.
            std::fs::remove_dir(directory).ok();
        }
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
