//! What of a configuration may stand in a message.
//!
//! Names may, values may not, except where a value resembles a valid one: `type = "snowflak"` is a
//! slip of the keyboard, `type = "xK3..."` a password in the wrong place. And values that came out
//! of `${...}`, or that stand where secrets belong, are taken out of whatever a library or a server
//! says ([`Hidden`]).

use std::sync::{Mutex, PoisonError};

use casebook_connectors::Secret;

/// Shorter values would take ordinary words out of messages.
const SHORTEST: usize = 4;
/// Longer keys are no keys.
const LONGEST_KEY: usize = 60;
/// What the names of options with secrets have in them.
const SECRETS: &[&str] = &[
    "password",
    "passwd",
    "pwd",
    "passphrase",
    "secret",
    "token",
    "private_key",
    "access_key",
    "account_key",
    "service_account_key",
    "sas",
    "signature",
    "credential",
    "connection_string",
];

/// Values that no message may hold, each with what stands in its place.
#[derive(Default)]
pub struct Hidden(Mutex<Vec<(Secret, String)>>);

impl Hidden {
    /// Takes `value` out of messages from now on; `instead` stands there.
    pub fn note(&self, value: &str, instead: &str) {
        // A file can hold a key of many lines, of which a message quotes one.
        let lines = value.lines().filter(|line| line.len() < value.len());
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for part in lines.chain([value]).map(str::trim) {
            let new = known.iter().all(|(old, _)| old.expose() != part);
            if part.len() >= SHORTEST && new {
                known.push((Secret::new(part), instead.to_owned()));
            }
        }
        // The whole before its parts.
        known.sort_by_key(|(value, _)| std::cmp::Reverse(value.expose().len()));
    }

    /// `text` as it may be shown.
    pub fn out_of(&self, text: &str) -> String {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = text.to_owned();
        for (value, instead) in known.iter() {
            out = replaced(&out, value.expose(), instead);
        }
        out
    }

    /// Takes over what `other` hides.
    pub fn add(&self, other: &Self) {
        let other = other.0.lock().unwrap_or_else(PoisonError::into_inner);
        let values: Vec<(Secret, String)> = other.clone();
        drop(other);
        for (value, instead) in values {
            self.note(value.expose(), &instead);
        }
    }
}

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hidden(***)")
    }
}

/// Also as Rust, JSON and URLs write it, where that is another text.
fn replaced(text: &str, value: &str, instead: &str) -> String {
    let mut out = whole(text, value, instead);
    let debug = format!("{value:?}");
    let escaped = &debug[1..debug.len() - 1];
    if escaped != value {
        out = whole(&out, escaped, instead);
    }
    let encoded: String = value.bytes().map(percent).collect();
    if encoded != value {
        out = whole(&out, &encoded, instead);
    }
    out
}

fn percent(byte: u8) -> String {
    match byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    }
}

/// Replaces `value`; a short one only where it is a word of its own.
fn whole(text: &str, value: &str, instead: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for (at, _) in text.match_indices(value) {
        let word = |c: char| c.is_alphanumeric() || c == '_';
        let before = text[..at].chars().next_back().is_some_and(word);
        let behind = text[at + value.len()..].chars().next().is_some_and(word);
        if value.len() < 8 && (before || behind) {
            continue;
        }
        out.push_str(&text[done..at]);
        out.push_str(instead);
        done = at + value.len();
    }
    out + &text[done..]
}

/// True if an option of this name holds a secret.
pub(super) fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    // Where a secret is kept is none.
    let place = key.ends_with("_path") || key.ends_with("_file");
    !place && SECRETS.iter().any(|name| key.contains(name))
}

/// A key as it may be shown: names are in lower case, what else stands there may be a value.
pub(super) fn key(key: &str) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || matches!(c, '_' | '.' | '-');
    match key.len() <= LONGEST_KEY && key.chars().all(plain) {
        true => format!("'{key}'"),
        false => format!("of {} characters", key.chars().count()),
    }
}

/// The one of `valid` that `name` resembles.
pub(super) fn nearest<'a>(name: &str, valid: &[&'a str]) -> Option<&'a str> {
    valid
        .iter()
        .map(|v| (strsim::jaro_winkler(&name.to_lowercase(), v), *v))
        .filter(|(score, _)| *score > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, v)| v)
}

/// What to say of a name that is none of `valid`, such as that of a table.
pub(super) fn unknown_name(what: &str, name: &str, valid: &[&str]) -> String {
    match key(name) {
        plain if plain.starts_with('\'') && nearest(name, valid).is_none() => {
            not_one_of(&format!("{what} {plain}"), name, valid)
        }
        _ => not_one_of(what, name, valid),
    }
}

/// What to say of a value that is none of `valid`; `what` is its key.
pub(super) fn not_one_of(what: &str, value: &str, valid: &[&str]) -> String {
    let valid_ones = match valid {
        [] => "There are none.".to_owned(),
        names => format!("Valid: {}.", names.join(", ")),
    };
    match nearest(value, valid) {
        Some(near) => format!("unknown {what} '{value}'. Did you mean '{near}'? {valid_ones}"),
        None => format!("unknown {what}. {valid_ones}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_values_are_taken_out_in_every_writing() {
        let hidden = Hidden::default();
        hidden.note("hunter2 \"x/y\"", "${env:PW}");
        hidden.note("-----BEGIN-----\nABCDEFGH\n-----END-----\n", "***");
        hidden.note("abc", "***");
        hidden.note("word", "***");
        for (text, expected) in [
            ("it is hunter2 \"x/y\"!", "it is ${env:PW}!"),
            ("it is \"hunter2 \\\"x/y\\\"\"", "it is \"${env:PW}\""),
            ("?p=hunter2%20%22x%2Fy%22", "?p=${env:PW}"),
            ("line 2: ABCDEFGH", "line 2: ***"),
            ("abc is too short", "abc is too short"),
            ("a word, no password", "a ***, no password"),
            ("", ""),
        ] {
            assert_eq!(hidden.out_of(text), expected);
        }
        assert_eq!(format!("{hidden:?}"), "Hidden(***)");
        let more = Hidden::default();
        more.add(&hidden);
        assert_eq!(more.out_of("ABCDEFGH"), "***");
    }

    #[test]
    fn what_is_no_name_is_not_shown() {
        assert_eq!(key("aws.secret_access_key"), "'aws.secret_access_key'");
        assert_eq!(key("Hunter2"), "of 7 characters");
        assert_eq!(key("hunter2"), "of 7 characters");
        assert_eq!(key(&"a".repeat(61)), "of 61 characters");
        let valid = ["delta", "snowflake"];
        assert_eq!(nearest("Snowflak", &valid), Some("snowflake"));
        assert_eq!(nearest("hunter2", &valid), None);
        assert!(not_one_of("type", "snowflak", &valid).contains("'snowflak'"));
        assert_eq!(
            not_one_of("type", "hunter2", &valid),
            "unknown type. Valid: delta, snowflake."
        );
        assert_eq!(
            not_one_of("table", "x", &[]),
            "unknown table. There are none."
        );
        let unknown = |name: &str| unknown_name("table", name, &["cases"]);
        assert_eq!(unknown("qa"), "unknown table 'qa'. Valid: cases.");
        assert_eq!(unknown("Hunter2"), "unknown table. Valid: cases.");
        assert_eq!(
            unknown("cses"),
            "unknown table 'cses'. Did you mean 'cases'? Valid: cases."
        );
        assert!(is_secret("AWS.Secret_Access_Key") && is_secret("azure.sas_key"));
        assert!(!is_secret("private_key_path"));
        assert!(!is_secret("write.key") && !is_secret("aws.region"));
    }
}
