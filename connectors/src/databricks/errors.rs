//! What a warehouse or its storage refuses, as errors that say what to do.

use super::messages::{ServiceError, Status};
use crate::error::{Error, ErrorKind, said};

/// A statement that ended without success.
pub(super) fn failed(what: &str, status: &Status) -> Error {
    let none = ServiceError::default();
    let error = status.error.as_ref().unwrap_or(&none);
    let says = |part: &str| error.message.contains(part);
    let passes = [
        "ABORTED",
        "DEADLINE_EXCEEDED",
        "IO_ERROR",
        "RESOURCE_EXHAUSTED",
        "SERVICE_UNDER_MAINTENANCE",
        "TEMPORARILY_UNAVAILABLE",
        "WORKSPACE_TEMPORARILY_UNAVAILABLE",
    ];
    let kind = match status.state.as_str() {
        "CANCELED" | "CLOSED" => ErrorKind::Unavailable,
        _ if says("_NOT_FOUND]") => ErrorKind::NotFound,
        _ if says("PERMISSION") => ErrorKind::Denied,
        // Delta's conflict of two writers.
        _ if says("DELTA_CONCURRENT") => ErrorKind::Unavailable,
        _ if passes.contains(&error.error_code.as_str()) => ErrorKind::Unavailable,
        _ => ErrorKind::InvalidInput,
    };
    let words = match (status.state.as_str(), error.message.as_str()) {
        ("CANCELED", "") => "somebody cancelled the statement; run it again",
        ("CLOSED", "") => "the result has been given up by the server; run it again",
        (_, "") => "the statement failed without a message",
        (_, message) => message,
    };
    let code = match error.error_code.as_str() {
        "" => String::new(),
        code => format!("{code}: "),
    };
    Error::new(kind, format!("{what}: {code}{}", said(words)))
}

/// An answer that did not come to a statement that must not run twice.
pub(super) fn unsure(what: &str, error: Error) -> Error {
    match error.kind() {
        ErrorKind::Unavailable => Error::new(
            ErrorKind::Internal,
            format!(
                "{error}. Whether the statement ran is not known, so it is not sent again: look \
                 at the target of {what} first; with the option write.key it would be safe"
            ),
        )
        .with_source(error),
        _ => error,
    }
}

/// No link to a chunk of a result: the server keeps one for an hour.
pub(super) fn given_up(error: Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::InvalidInput => Error::new(
            error.kind(),
            format!(
                "{error}; the server may have given the result up, because the statement took \
                 longer than it keeps one: lower spool.after_secs, so that the rest of the rows \
                 is kept on this machine sooner, or read fewer rows at a time"
            ),
        )
        .with_source(error),
        _ => error,
    }
}

/// What the storage says when it refuses a link repeats parts of its signature.
pub(super) fn refused(what: &str, links: u32, error: &Error) -> Error {
    let why = match error.kind() {
        ErrorKind::Unavailable => "the storage does not answer, or not in full",
        _ => "the storage refuses the link",
    };
    Error::new(
        ErrorKind::Unavailable,
        format!(
            "{what}: {why}, also after {links} links; check that this machine may reach the \
             storage of the workspace"
        ),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn failures_say_what_kind_they_are() {
        let check = |status: Value, kind: ErrorKind, text: &str| {
            let error = failed("reading t", &serde_json::from_value(status).unwrap());
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(text), "{error}");
        };
        check(
            json!({"state": "FAILED", "error": {"error_code": "BAD_REQUEST",
                "message": "[TABLE_OR_VIEW_NOT_FOUND] no t"}}),
            ErrorKind::NotFound,
            "BAD_REQUEST: [TABLE_OR_VIEW_NOT_FOUND]",
        );
        check(
            json!({"state": "FAILED", "error": {"error_code": "IO_ERROR", "message": "x"}}),
            ErrorKind::Unavailable,
            "x",
        );
        check(
            json!({"state": "FAILED", "error": {"message": "[PARSE_SYNTAX_ERROR]"}}),
            ErrorKind::InvalidInput,
            "PARSE",
        );
        check(
            json!({"state": "CANCELED"}),
            ErrorKind::Unavailable,
            "run it again",
        );
    }
}
