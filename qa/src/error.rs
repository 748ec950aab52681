//! What can go wrong in this crate, and whose move it is next?
//!
//! One public error for the whole crate. The message says what was being done, on which object,
//! what was wrong and what to do; the cause is kept whole in `source`.

use std::fmt;

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The caller's choices, the same list in every Casebook crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// What was asked for makes no sense or is misspelt: change the input.
    InvalidInput,
    /// A named thing does not exist.
    NotFound,
    /// Not permitted.
    Denied,
    /// Not reachable just now; the only kind worth a retry.
    Unavailable,
    /// Stored data is damaged.
    Corrupt,
    /// A limit or a resource has run out.
    Exhausted,
    /// Understood, but this version cannot do it.
    Unsupported,
    /// A defect in Casebook.
    Internal,
}

/// An error with its kind, a message for people and the cause.
#[derive(Debug)]
pub struct Error {
    /// Whose move it is.
    pub kind: ErrorKind,
    /// What was being done, on which object, what was wrong, what to do next.
    pub message: String,
    /// The cause, where there is one.
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error without a cause.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    /// The same error with its cause.
    pub fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn std::error::Error + 'static))
    }
}

/// `" Did you mean 'x'?"` when a valid name is close to `name`, else an empty string.
pub(crate) fn did_you_mean<'a>(name: &str, valid: impl IntoIterator<Item = &'a str>) -> String {
    let likeness = |candidate: &str| {
        // One slip of the keyboard, such as two letters exchanged.
        let is_slip = candidate.len() > 2 && strsim::osa_distance(name, candidate) == 1;
        let least = if is_slip { 0.9 } else { 0.0 };
        strsim::jaro_winkler(name, candidate).max(least)
    };
    valid
        .into_iter()
        .map(|candidate| (likeness(candidate), candidate))
        .filter(|(score, _)| *score > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| format!(" Did you mean '{candidate}'?"))
        .unwrap_or_default()
}
