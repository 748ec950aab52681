//! What can go wrong at a source or target, and the way into and out of DataFusion's error.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

use datafusion::arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use datafusion::parquet::errors::ParquetError;

use crate::location::without_credentials;

/// Valid names that an error lists.
const MOST_LISTED: usize = 100;

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller can do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request or the data is wrong: change it.
    InvalidInput,
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
    /// Valid, but not something this connector does.
    Unsupported,
    /// The user stopped the statement; see `interrupt`.
    Interrupted,
    /// A defect in Casebook.
    Internal,
}

/// An error that names the object, the cause and the next move.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The one of `valid` that `name` resembles: most of its letters are in their places, or it is one slip
/// of the keyboard away, such as two letters exchanged.
pub fn nearest<'a>(name: &str, valid: &[&'a str]) -> Option<&'a str> {
    let likeness = |valid: &str| {
        // In a name of two letters every other one is a slip away.
        let is_slip = valid.len() > 2 && strsim::osa_distance(name, valid) == 1;
        let least = if is_slip { 0.9 } else { 0.0 };
        strsim::jaro_winkler(name, valid).max(least)
    };
    valid
        .iter()
        .map(|valid| (likeness(valid), *valid))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, valid)| valid)
}

impl Error {
    /// An error of `kind`. Credentials in the URLs of `message` are taken out.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: without_credentials(&message.into()).into_owned(),
            source: None,
        }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, message)
    }

    /// Attaches the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
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
        let hint = nearest(name, valid)
            .map(|near| format!(" Did you mean '{near}'?"))
            .unwrap_or_default();
        let valid = match valid {
            [] => "There are none.".to_owned(),
            names if names.len() > MOST_LISTED => {
                let more = names.len() - MOST_LISTED;
                format!(
                    "Valid: {} and {more} more.",
                    names[..MOST_LISTED].join(", ")
                )
            }
            names => format!("Valid: {}.", names.join(", ")),
        };
        let hidden = hint.is_empty() && what.starts_with("value of ");
        let name = match hidden {
            true => String::new(),
            false => format!(" '{name}'"),
        };
        Self::invalid(format!("unknown {what}{name}.{hint} {valid}"))
    }

    /// Wraps a failure while reading `what`; where no cause says more, the data is damaged or of
    /// another kind than declared.
    pub(crate) fn while_reading(
        what: &str,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        let source = source.into();
        let doing = format!("reading {what}");
        match classify(source.as_ref()) {
            (ErrorKind::Internal, _) if is_damage(source.as_ref()) => Self::new(
                ErrorKind::Corrupt,
                format!(
                    "{doing}: {}; the file is damaged: write it again or leave it out",
                    deepest(source.as_ref())
                ),
            )
            .with_source(source),
            (ErrorKind::Internal, _) => {
                Self::invalid(format!("{doing}: {}", deepest(source.as_ref()))).with_source(source)
            }
            _ => Self::while_doing(doing, source),
        }
    }

    /// Wraps a failure while `doing` something; the kind comes from the deepest cause that says
    /// one: a full disk, a missing file, a refused permission.
    pub(crate) fn while_doing(
        doing: impl fmt::Display,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        let source = source.into();
        let (kind, advice) = classify(source.as_ref());
        Self::new(
            kind,
            format!("{doing}: {}{advice}", deepest(source.as_ref())),
        )
        .with_source(source)
    }
}

/// The first `chars` of a text that an error shows: it can be megabytes.
pub(crate) fn beginning(text: &str, chars: usize) -> Cow<'_, str> {
    match text.char_indices().nth(chars) {
        Some((end, _)) => format!("{}...", &text[..end]).into(),
        None => text.into(),
    }
}

/// Characters of another's words that are shown.
const SAID_CHARS: usize = 2000;

/// Another's words, which may have any length, on one line and cut short.
pub fn said(words: &str) -> String {
    let mut said = String::new();
    for word in words.split_whitespace() {
        if !said.is_empty() {
            said.push(' ');
        }
        said.push_str(word);
        if let Some((end, _)) = said.char_indices().nth(SAID_CHARS) {
            said.truncate(end);
            said.push('…');
            break;
        }
    }
    said
}

/// What a store says that refuses a request.
const DENIED: (ErrorKind, &str) = (
    ErrorKind::Denied,
    "; check the credentials of this location",
);

/// The kind of the deepest cause that has one, and what to do about it.
fn classify(error: &(dyn StdError + 'static)) -> (ErrorKind, &'static str) {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(own) = cause.downcast_ref::<Error>() {
            return (own.kind, "");
        }
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            use std::io::ErrorKind as Io;
            return match io.kind() {
                Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => (
                    ErrorKind::Exhausted,
                    "; the disk is full or a size limit is reached: free space or choose another \
                     location, then run it again",
                ),
                Io::NotFound => (ErrorKind::NotFound, ""),
                Io::PermissionDenied | Io::ReadOnlyFilesystem => {
                    (ErrorKind::Denied, "; choose a location you may write to")
                }
                Io::NotADirectory | Io::AlreadyExists => (
                    ErrorKind::InvalidInput,
                    "; a part of the path is a file: choose another location",
                ),
                _ => (ErrorKind::Unavailable, ""),
            };
        }
        if let Some(store) = cause.downcast_ref::<object_store::Error>() {
            match store {
                object_store::Error::NotFound { .. } => return (ErrorKind::NotFound, ""),
                object_store::Error::PermissionDenied { .. }
                | object_store::Error::Unauthenticated { .. } => return DENIED,
                // What listing says, whose type the library keeps to itself.
                object_store::Error::Generic { source, .. } => {
                    let text = deepest(source.as_ref());
                    if ["401 ", "403 "]
                        .iter()
                        .any(|s| text.contains(&format!("code: {s}")))
                    {
                        return DENIED;
                    }
                }
                _ => {}
            }
        }
        next = cause.source();
    }
    (ErrorKind::Internal, "")
}

/// True if a reader of Parquet found what it cannot make sense of.
fn is_damage(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(cause) = next {
        let arrow = cause.downcast_ref::<ArrowError>();
        if cause.is::<ParquetError>() || matches!(arrow, Some(ArrowError::ParquetError(_))) {
            return true;
        }
        next = cause.source();
    }
    false
}

/// The message of the deepest cause, which is the one that says what happened; an [`Error`] of ours
/// says it itself, and names the object.
fn deepest(error: &(dyn StdError + 'static)) -> String {
    let mut last = error;
    while !last.is::<Error>()
        && let Some(cause) = last.source()
    {
        last = cause;
    }
    last.to_string()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_has_a_suggestion_and_a_list_with_an_end() {
        let text = Error::unknown("table", "cses", &["cases", "qa"]).to_string();
        assert_eq!(
            text,
            "unknown table 'cses'. Did you mean 'cases'? Valid: cases, qa."
        );
        let many = vec!["name"; 1000];
        let text = Error::unknown("value of x", "hunter2", &many).to_string();
        assert!(
            text.starts_with("unknown value of x. Valid: name, "),
            "{text}"
        );
        assert!(
            text.ends_with("name and 900 more.") && text.len() < 1000,
            "{text}"
        );
        let text = Error::unknown("table", "x", &[]).to_string();
        assert_eq!(text, "unknown table 'x'. There are none.");
    }

    #[test]
    fn a_full_disk_is_told_from_a_missing_file() {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let error = Error::while_doing("writing qa", full);
        assert_eq!(error.kind(), ErrorKind::Exhausted);
        assert!(error.to_string().contains("free space"), "{error}");
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        let wrapped = object_store::Error::Generic {
            store: "local",
            source: Box::new(missing),
        };
        let inner = Error::while_doing("reading", wrapped);
        assert_eq!(inner.kind(), ErrorKind::NotFound);
        let outer = Error::while_doing("opening qa", DataFusionError::from(inner)).to_string();
        assert!(outer.starts_with("opening qa: reading: "), "{outer}");
    }

    #[test]
    fn words_are_cut_between_characters() {
        assert_eq!(said(" a \n\n b\t"), "a b");
        let long = said(&"žš ".repeat(SAID_CHARS));
        assert_eq!(long.chars().count(), SAID_CHARS + 1);
        assert!(said(&"ž".repeat(1 << 20)).len() < 3 * SAID_CHARS);
    }
}
