//! What can go wrong, and what the user should do next.
//!
//! One public error; the crates below convert into it once, here. The boundary to DataFusion is
//! [`From<Error> for DataFusionError`] and [`Error::from_datafusion`], which finds our own error
//! again inside whatever the engine wrapped around it.

use std::error::Error as StdError;
use std::fmt;

use casebook_connectors::without_credentials;
use datafusion::error::DataFusionError;

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller can do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request is wrong: change it.
    InvalidInput,
    /// The configuration file is wrong: change it.
    Configuration,
    /// The named thing does not exist.
    NotFound,
    /// Credentials or permissions are missing.
    Denied,
    /// Try again later; the only retryable kind.
    Unavailable,
    /// Stored data is damaged.
    Corrupt,
    /// A limit, the memory or the disk is used up.
    Exhausted,
    /// Valid, but not something Casebook does.
    Unsupported,
    /// Stopped by the user; the message says what is kept.
    Interrupted,
    /// A defect in Casebook.
    Internal,
}

/// An error with the object, the cause and the next move in its message.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind`; `message` names what was being done, on which object, what was wrong
    /// and what to do. Credentials in its URLs are taken out.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: without_credentials(&message.into()).into_owned(),
            source: None,
        }
    }

    /// [`ErrorKind::InvalidInput`] with a message.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, message)
    }

    /// Attaches the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Appends a sentence that says what to do.
    #[must_use]
    pub fn hint(mut self, hint: &str) -> Self {
        if !self.message.ends_with(['.', '!', '?', ':', ';']) {
            self.message.push('.');
        }
        self.message.push(' ');
        self.message.push_str(hint);
        self
    }

    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// An unknown `name` where one of `valid` was expected, with the nearest one suggested. A `value
    /// of` something is shown only where it resembles a valid one: it can be a password that
    /// stands in the wrong place.
    pub fn unknown(what: &str, name: &str, valid: &[&str]) -> Self {
        Self::invalid(casebook_connectors::Error::unknown(what, name, valid).to_string())
    }

    /// Our own error inside `error`, or `error` as an [`ErrorKind::InvalidInput`] (planning) or
    /// [`ErrorKind::Internal`] (execution) one.
    pub fn from_datafusion(error: DataFusionError) -> Self {
        match find(&error) {
            Some((kind, message)) => Self::new(kind, message).with_source(error),
            None if is_far_moment(&error) => {
                Self::new(ErrorKind::InvalidInput, error.strip_backtrace())
                    .hint(FAR_MOMENT)
                    .with_source(error)
            }
            None => {
                let kind = match error.find_root() {
                    DataFusionError::SQL(..)
                    | DataFusionError::Plan(_)
                    | DataFusionError::Diagnostic(..)
                    | DataFusionError::SchemaError(..) => ErrorKind::InvalidInput,
                    DataFusionError::Configuration(_) => ErrorKind::InvalidInput,
                    DataFusionError::NotImplemented(_) => ErrorKind::Unsupported,
                    DataFusionError::ResourcesExhausted(_) => ErrorKind::Exhausted,
                    DataFusionError::ObjectStore(_) | DataFusionError::IoError(_) => {
                        ErrorKind::Unavailable
                    }
                    _ => ErrorKind::Internal,
                };
                Self::new(kind, error.strip_backtrace()).with_source(error)
            }
        }
    }
}

/// What to do about a moment of a year that nanoseconds do not reach.
const FAR_MOMENT: &str = "TIMESTAMP, and what is compared with it, holds the years 1678 to 2262; \
                          TIMESTAMP(6) holds all of them: declare the column so, or write \
                          CAST('9999-12-31' AS TIMESTAMP(6))";

fn is_far_moment(error: &DataFusionError) -> bool {
    let said = error.strip_backtrace();
    let multiplied = [
        " * 1000",
        " * 1000000",
        " * 1000000000",
        " * 86400000000000",
    ];
    let overflow = said.contains("Overflow happened on: ")
        && multiplied.iter().any(|by| said.trim_end().ends_with(by));
    let beyond = said.contains("to Timestamp(ns): converted value exceeds");
    overflow || beyond || said.contains("can be represented as nanoseconds")
}

/// Walks the causes of `error` for an error of one of our crates.
fn find(error: &(dyn StdError + 'static)) -> Option<(ErrorKind, String)> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(own) = cause.downcast_ref::<Error>() {
            return Some((own.kind, own.to_string()));
        }
        if let Some(own) = cause.downcast_ref::<casebook_connectors::Error>() {
            return Some((connector_kind(own.kind()), own.to_string()));
        }
        if let Some(shared) = cause.downcast_ref::<std::sync::Arc<DataFusionError>>() {
            return find(shared.as_ref());
        }
        if let Some(DataFusionError::Shared(shared)) = cause.downcast_ref::<DataFusionError>() {
            return find(shared.as_ref());
        }
        next = cause.source();
    }
    None
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source
            .as_ref()
            .map(|s| s.as_ref() as &(dyn StdError + 'static))
    }
}

impl From<Error> for DataFusionError {
    fn from(error: Error) -> Self {
        DataFusionError::External(Box::new(error))
    }
}

impl From<DataFusionError> for Error {
    fn from(error: DataFusionError) -> Self {
        Self::from_datafusion(error)
    }
}

fn connector_kind(kind: casebook_connectors::ErrorKind) -> ErrorKind {
    use casebook_connectors::ErrorKind as K;
    match kind {
        K::InvalidInput => ErrorKind::InvalidInput,
        K::NotFound => ErrorKind::NotFound,
        K::Denied => ErrorKind::Denied,
        K::Unavailable => ErrorKind::Unavailable,
        K::Corrupt => ErrorKind::Corrupt,
        K::Exhausted => ErrorKind::Exhausted,
        K::Unsupported => ErrorKind::Unsupported,
        K::Interrupted => ErrorKind::Interrupted,
        _ => ErrorKind::Internal,
    }
}

impl From<casebook_connectors::Error> for Error {
    fn from(error: casebook_connectors::Error) -> Self {
        Self::new(connector_kind(error.kind()), error.to_string()).with_source(error)
    }
}

impl From<casebook_llm::Error> for Error {
    fn from(error: casebook_llm::Error) -> Self {
        use casebook_llm::ErrorKind as K;
        let kind = match error.kind() {
            K::InvalidInput => ErrorKind::InvalidInput,
            K::NotFound => ErrorKind::NotFound,
            K::Denied => ErrorKind::Denied,
            K::Unavailable => ErrorKind::Unavailable,
            K::Corrupt => ErrorKind::Corrupt,
            K::Exhausted => ErrorKind::Exhausted,
            K::Unsupported => ErrorKind::Unsupported,
            K::Interrupted => ErrorKind::Interrupted,
            _ => ErrorKind::Internal,
        };
        Self::new(kind, error.to_string()).with_source(error)
    }
}

impl From<casebook_qa::Error> for Error {
    fn from(error: casebook_qa::Error) -> Self {
        use casebook_qa::ErrorKind as K;
        let kind = match error.kind() {
            K::InvalidInput => ErrorKind::InvalidInput,
            K::NotFound => ErrorKind::NotFound,
            K::Unsupported => ErrorKind::Unsupported,
            _ => ErrorKind::Internal,
        };
        Self::new(kind, error.to_string()).with_source(error)
    }
}
