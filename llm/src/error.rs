//! What went wrong in the language model crate, and what the caller can do about it.
//!
//! One public error struct. `kind` is what a program branches on, `message` is what a person
//! reads (what was being done, on which object, what was wrong, what to do next), `source` keeps
//! the cause whole.

use std::fmt;

/// The class of a failure. Only [`ErrorKind::Unavailable`] is worth retrying.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The caller passed something that cannot be right.
    InvalidInput,
    /// A named thing (file, tensor, directory) does not exist.
    NotFound,
    /// The operating system or a server refused access.
    Denied,
    /// A service or device could not be reached now; trying again may help.
    Unavailable,
    /// A file is there but its content is damaged or contradicts another file.
    Corrupt,
    /// A named limit was reached.
    Exhausted,
    /// Stopped by the user; what is finished is kept.
    Interrupted,
    /// The request is valid but this program cannot serve it.
    Unsupported,
    /// A defect in this program or in a library under it.
    Internal,
}

/// The error of every fallible function of this crate.
#[derive(Debug)]
#[non_exhaustive]
pub struct Error {
    /// What a program branches on.
    pub kind: ErrorKind,
    /// What a person reads.
    pub message: String,
    /// The cause, whole.
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error without a cause.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    /// What a program branches on.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The same error with its cause.
    #[must_use]
    pub fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.source = Some(source.into());
        self
    }

    /// [`ErrorKind::InvalidInput`].
    pub fn invalid_input(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, message)
    }

    /// [`ErrorKind::NotFound`].
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// [`ErrorKind::Corrupt`].
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, message)
    }

    /// [`ErrorKind::Exhausted`].
    pub fn exhausted(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Exhausted, message)
    }

    /// [`ErrorKind::Unsupported`].
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    /// [`ErrorKind::Internal`].
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// A failed file operation: what was being `done`, then what the operating system said and
    /// what to do about it.
    pub fn io(doing: impl fmt::Display, source: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let (kind, advice) = match source.kind() {
            Io::NotFound => (ErrorKind::NotFound, "; check the path"),
            Io::PermissionDenied | Io::ReadOnlyFilesystem => {
                (ErrorKind::Denied, "; check the permissions")
            }
            Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => (
                ErrorKind::Exhausted,
                "; there is no space left or a size limit is reached: free space or choose another \
                 location, then run it again",
            ),
            Io::NotADirectory | Io::AlreadyExists => (
                ErrorKind::InvalidInput,
                "; a part of the path is a file: choose another location",
            ),
            Io::UnexpectedEof => (ErrorKind::Corrupt, ""),
            _ => (ErrorKind::Unavailable, ""),
        };
        Self::new(kind, format!("{doing}: {source}{advice}")).with_source(source)
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
            .as_ref()
            .map(|s| s.as_ref() as &(dyn std::error::Error + 'static))
    }
}

/// A tensor operation that fails is either a device out of memory or a defect.
impl From<candle_core::Error> for Error {
    fn from(source: candle_core::Error) -> Self {
        let text = source.to_string();
        if text.contains("OUT_OF_MEMORY") || text.contains("out of memory") {
            Self::exhausted(
                "the device ran out of memory; lower max_rows, max_cached_tokens or \
                 max_step_tokens, or use a smaller model",
            )
            .with_source(source)
        } else {
            Self::internal("a tensor operation failed").with_source(source)
        }
    }
}
