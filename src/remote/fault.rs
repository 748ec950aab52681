//! What a call that brought no reply means: for the row, and for whether it is sent again.

use std::time::Duration;

use casebook_connectors::http::{Refusal, said};
use serde_json::Value;

use super::answer::{self, NoReply};
use crate::error::{Error, ErrorKind};

/// What to do after a call without a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// The same call would bring the same.
    Never,
    /// It may pass, and if it does not soon, it is of this call.
    AFewTimes,
    /// It will pass: the server is not there, or restarts.
    Later,
    /// The server has too much to do; the wait that it asks for.
    Slower(Option<Duration>),
    /// At once, with the budget under its new name.
    Renamed,
}

/// A call that brought no reply.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) kind: ErrorKind,
    /// What happened, without the name of the model.
    pub(super) what: String,
    pub(super) again: Again,
}

impl Fault {
    pub(super) fn new(kind: ErrorKind, what: impl Into<String>, again: Again) -> Self {
        let what = what.into();
        Self { kind, what, again }
    }

    /// No answer within `limit`.
    pub(super) fn late(limit: Duration) -> Self {
        let what = format!("no answer within {} s", limit.as_secs_f64());
        Self::new(ErrorKind::Unavailable, what, Again::Slower(None))
    }

    /// No answer, or half of one.
    pub(super) fn lost(error: &casebook_connectors::Error) -> Self {
        let again = match error.kind() {
            casebook_connectors::ErrorKind::Unavailable => Again::Later,
            casebook_connectors::ErrorKind::Exhausted => Again::AFewTimes,
            _ => Again::Never,
        };
        let kind = match again {
            Again::Never => ErrorKind::Unsupported,
            _ => ErrorKind::Unavailable,
        };
        Self::new(kind, error.to_string(), again)
    }

    /// An answer without a reply.
    pub(super) fn no_reply(why: NoReply) -> Self {
        match why {
            NoReply::Garbage(what) => Self::new(ErrorKind::Unavailable, what, Again::AFewTimes),
            NoReply::Withheld(why) => Self::new(
                ErrorKind::Denied,
                format!("the server keeps the reply to itself ({why})"),
                Again::Never,
            ),
            NoReply::Error { status, said } => {
                Self::status(status.unwrap_or(400), None, &said, &Value::Null)
            }
        }
    }

    /// A refusal.
    pub(super) fn refused(refusal: &Refusal) -> Self {
        let body: Value = serde_json::from_str(&refusal.body).unwrap_or_default();
        let error = match &body["error"] {
            Value::Null => &body,
            error => error,
        };
        let text = match error {
            Value::Null => refusal.body.clone(),
            error => answer::said(error),
        };
        let text = format!("{text}{}", refusal.leads_to);
        Self::status(refusal.status.as_u16(), refusal.retry_after, &text, error)
    }

    fn status(status: u16, wait: Option<Duration>, text: &str, error: &Value) -> Self {
        let what = format!("the server answered {status}: {}", said(text));
        let is = |words: &[&str]| {
            let text = format!("{text} {error}").to_lowercase();
            words.iter().any(|word| text.contains(word))
        };
        match status {
            429 | 402 if is(&["insufficient_quota", "billing", "credit"]) => {
                Self::new(ErrorKind::Exhausted, what, Again::Never)
            }
            429 | 503 | 529 => Self::new(ErrorKind::Unavailable, what, Again::Slower(wait)),
            408 | 425 | 502 | 504 => Self::new(ErrorKind::Unavailable, what, Again::Later),
            501 | 505 => Self::new(ErrorKind::Unsupported, what, Again::Never),
            400 | 413 | 422 | 500 if is(TOO_LONG) => Self::new(
                ErrorKind::InvalidInput,
                format!("too_long: {what}; use smaller chunks, or say the model's max_context"),
                Again::Never,
            ),
            500.. => Self::new(ErrorKind::Unavailable, what, Again::AFewTimes),
            401 | 403 => Self::new(
                ErrorKind::Denied,
                format!("{what}; check api_key and headers"),
                Again::Never,
            ),
            404 | 405 | 410 => Self::new(
                ErrorKind::NotFound,
                format!("{what}; check source (its URL ends before /chat/completions) and model"),
                Again::Never,
            ),
            400 | 422 if is(&["max_completion_tokens"]) => {
                Self::new(ErrorKind::Unsupported, what, Again::Renamed)
            }
            _ => Self::new(
                ErrorKind::Unsupported,
                format!("{what}; a parameter that the server does not take is left out with omit"),
                Again::Never,
            ),
        }
    }

    /// As an error of the model called `model`.
    pub(super) fn error(&self, model: &str) -> Error {
        Error::new(self.kind, format!("{model}: {}", self.what))
    }
}

/// What servers say of a prompt that does not fit.
const TOO_LONG: &[&str] = &[
    "context_length",
    "context length",
    "context size",
    "context window",
    "exceed_context",
    "maximum context",
    "too many tokens",
    "prompt is too long",
    "input is too long",
    "`inputs` tokens",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, body: &str) -> Fault {
        Fault::refused(&Refusal {
            status: status.try_into().unwrap(),
            retry_after: Some(Duration::from_secs(7)),
            body: body.to_owned(),
            leads_to: String::new(),
        })
    }

    #[test]
    fn a_refusal_is_sent_again_if_that_may_help() {
        use Again::{AFewTimes, Later, Never, Renamed, Slower};
        let wait = Some(Duration::from_secs(7));
        for (status, body, kind, again) in [
            (
                400,
                "{\"error\": {\"message\": \"bad\"}}",
                ErrorKind::Unsupported,
                Never,
            ),
            (
                400,
                "This model's maximum context length is 4096",
                ErrorKind::InvalidInput,
                Never,
            ),
            (
                400,
                "{\"error\": {\"code\": \"context_length_exceeded\"}}",
                ErrorKind::InvalidInput,
                Never,
            ),
            (
                500,
                "the request exceeds the available context size",
                ErrorKind::InvalidInput,
                Never,
            ),
            (
                400,
                "use 'max_completion_tokens' instead",
                ErrorKind::Unsupported,
                Renamed,
            ),
            (401, "who are you", ErrorKind::Denied, Never),
            (402, "billing", ErrorKind::Exhausted, Never),
            (403, "", ErrorKind::Denied, Never),
            (404, "no such model", ErrorKind::NotFound, Never),
            (307, "", ErrorKind::Unsupported, Never),
            (408, "", ErrorKind::Unavailable, Later),
            (429, "slow down", ErrorKind::Unavailable, Slower(wait)),
            (
                429,
                "{\"error\": {\"code\": \"insufficient_quota\"}}",
                ErrorKind::Exhausted,
                Never,
            ),
            (500, "oops", ErrorKind::Unavailable, AFewTimes),
            (501, "", ErrorKind::Unsupported, Never),
            (502, "<html>", ErrorKind::Unavailable, Later),
            (503, "", ErrorKind::Unavailable, Slower(wait)),
            (529, "", ErrorKind::Unavailable, Slower(wait)),
            (599, "", ErrorKind::Unavailable, AFewTimes),
        ] {
            let fault = refusal(status, body);
            assert_eq!((fault.kind, fault.again), (kind, again), "{status} {body}");
        }
        let fault = refusal(
            400,
            &format!("{{\"error\": {{\"message\": \"{}\"}}}}", "x ".repeat(9000)),
        );
        assert!(fault.what.len() < 3000);
        assert!(
            refusal(401, "{\"detail\": \"key\"}")
                .what
                .contains("detail")
        );
    }

    #[test]
    fn an_error_with_the_status_of_a_success_is_one() {
        let fault = |status: Option<u16>| {
            let said = "busy".to_owned();
            Fault::no_reply(NoReply::Error { status, said }).again
        };
        assert_eq!(fault(Some(429)), Again::Slower(None));
        assert_eq!(fault(Some(502)), Again::Later);
        assert_eq!(fault(None), Again::Never);
    }
}
