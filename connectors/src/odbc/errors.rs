//! What a driver says went wrong, as an error of ours: its kind by SQLSTATE, or by the words where
//! drivers give one state to many things, and the next move. Secrets are blanked out.

use std::fmt;

use odbc_api::{Error as OdbcError, environment};

use super::settings::Settings;
use crate::error::{Error, ErrorKind, said};

/// What one failure is known by.
struct Known {
    /// Beginnings of SQLSTATEs.
    states: &'static [&'static str],
    /// Words of the message, lower case.
    words: &'static [&'static str],
    kind: ErrorKind,
    advice: &'static str,
}

/// The first that fits. Words come before states: psqlODBC gives 08001 to a refused password, and
/// SQLite HY000 to everything.
const KNOWN: &[Known] = &[
    Known {
        states: &["IM002", "IM003", "IM004", "IM005"],
        words: &["can't open lib"],
        kind: ErrorKind::NotFound,
        advice: "the driver or data source is not installed; install it or correct its name",
    },
    Known {
        states: &["28"],
        words: &[
            "authentication failed",
            "no password supplied",
            "login failed",
            "access denied",
            "pg_hba.conf",
            "invalid username",
            "incorrect username",
        ],
        kind: ErrorKind::Denied,
        advice: "the login was refused; check odbc.user and odbc.password",
    },
    Known {
        states: &["3D000"],
        words: &[
            "fatal:  database \"",
            "unknown database",
            "cannot open database",
        ],
        kind: ErrorKind::NotFound,
        advice: "check the name of the database in the connection string",
    },
    Known {
        states: &["42S02", "42P01", "3F000"],
        words: &[
            "no such table",
            "table or view does not exist",
            "table_or_view_not_found",
        ],
        kind: ErrorKind::NotFound,
        advice: "check LOCATION, with names as the system stores them; to create the table, say \
                 OPTIONS ('table.create' 'qa_pairs')",
    },
    Known {
        states: &["42S22", "42703"],
        words: &["no such column"],
        kind: ErrorKind::InvalidInput,
        advice: "if the columns of the table have changed, create the external table again",
    },
    Known {
        states: &["42501"],
        words: &["permission denied", "readonly database"],
        kind: ErrorKind::Denied,
        advice: "ask for the permission, or use another user",
    },
    Known {
        states: &["HYT00", "HYT01", "57014", "S1T00"],
        words: &["timeout expired"],
        kind: ErrorKind::Unavailable,
        advice: "try again, or raise odbc.login_timeout_secs or odbc.query_timeout_secs",
    },
    Known {
        states: &["40001", "40P01", "55P03"],
        words: &["database is locked", "deadlock"],
        kind: ErrorKind::Unavailable,
        advice: "someone else holds the table; run it again",
    },
    Known {
        states: &["08", "57P"],
        words: &[
            "server closed the connection",
            "no connection to the server",
        ],
        kind: ErrorKind::Unavailable,
        advice: "check host, port and network, then try again",
    },
    Known {
        states: &[],
        words: &["connect failed"],
        kind: ErrorKind::NotFound,
        advice: "check that the file exists, or that its directory does",
    },
    Known {
        states: &["53"],
        words: &["disk is full", "disk full"],
        kind: ErrorKind::Exhausted,
        advice: "the system has no space or memory left",
    },
    Known {
        states: &["23"],
        words: &["constraint failed"],
        kind: ErrorKind::InvalidInput,
        advice: "a rule of the table refuses a row; with the option write.key, rows whose key is \
                 already there are left out",
    },
];

/// `error` of a driver while `doing` something.
pub(super) fn failed(settings: &Settings, doing: impl fmt::Display, error: OdbcError) -> Error {
    let (state, message) = parts(&error);
    let lower = message.to_lowercase();
    let known = KNOWN
        .iter()
        .find(|k| k.words.iter().any(|w| lower.contains(w)));
    let known = known.or_else(|| {
        let fits = |k: &&Known| k.states.iter().any(|s| state.starts_with(s));
        KNOWN.iter().find(fits)
    });
    let (kind, advice) = match (known, &error) {
        (Some(known), _) => (known.kind, known.advice),
        (None, OdbcError::TooLargeValueForBuffer { .. }) => (
            ErrorKind::Unsupported,
            "a text is longer than the driver said; set the option odbc.fetch to rows",
        ),
        (None, _) => (ErrorKind::InvalidInput, ""),
    };
    let mut text = format!("{doing}: {}", said(&message));
    if !state.is_empty() {
        text.push_str(&format!(" (SQLSTATE {state})"));
    }
    if !advice.is_empty() {
        text.push_str("; ");
        text.push_str(advice);
    }
    if kind == ErrorKind::NotFound && state.starts_with("IM") || lower.contains("can't open lib") {
        text.push_str(&format!("; installed: {}", installed()));
    }
    let shown = settings.redacted(&text);
    let clean = shown == text;
    let out = Error::new(kind, shown);
    // A cause is kept whole, unless it says what must not be said.
    match clean {
        true => out.with_source(error),
        false => out,
    }
}

fn parts(error: &OdbcError) -> (String, String) {
    match error {
        OdbcError::Diagnostics { record, .. }
        | OdbcError::InvalidRowArraySize { record, .. }
        | OdbcError::UnableToRepresentNull(record)
        | OdbcError::UnsupportedOdbcApiVersion(record) => (
            record.state.as_str().to_owned(),
            String::from_utf8_lossy(&record.message).into_owned(),
        ),
        other => (String::new(), other.to_string()),
    }
}

/// The drivers that unixODBC knows, by name.
fn installed() -> String {
    let drivers = environment().and_then(|e| e.drivers()).unwrap_or_default();
    let names: Vec<String> = drivers.into_iter().map(|d| d.description).collect();
    match names.is_empty() {
        true => "no driver at all".into(),
        false => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use odbc_api::handles::{Record, State};

    use super::*;
    use crate::options::TableOptions;

    fn check(state: &[u8; 5], message: &str, kind: ErrorKind, expected: &str) {
        let mut options = TableOptions::default();
        options
            .own
            .insert("odbc.connection_string", "Driver=x;PWD=hunter2".into());
        let settings = Settings::new(&options, |_| None).unwrap();
        let record = Record {
            state: State(*state),
            native_error: 1,
            message: message.as_bytes().to_vec(),
        };
        let error = OdbcError::Diagnostics {
            record,
            function: "SQLExecDirect",
        };
        let error = failed(&settings, "reading t", error);
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(expected), "{error}");
        assert!(
            !format!("{error} {error:?}").contains("hunter2"),
            "{error:?}"
        );
    }

    #[test]
    fn failures_are_told_apart() {
        let refused = "FATAL:  password authentication failed for user \"hunter2\"\n";
        check(b"08001", refused, ErrorKind::Denied, "odbc.password");
        check(
            b"08001",
            "Connection refused",
            ErrorKind::Unavailable,
            "check host",
        );
        check(
            b"HY000",
            "[SQLite]no such table: t (1)",
            ErrorKind::NotFound,
            "LOCATION",
        );
        check(
            b"42703",
            "column x",
            ErrorKind::InvalidInput,
            "create the external table again",
        );
        check(
            b"22012",
            "division\n by zero",
            ErrorKind::InvalidInput,
            "division by zero (SQLSTATE 22012)",
        );
        check(
            b"01000",
            "Can't open lib 'Nope' : file not found",
            ErrorKind::NotFound,
            "installed: ",
        );
    }
}
