//! What of a configuration may stand in a message.
//!
//! Names may, values may not, except where a value resembles a valid one: `type = "snowflak"` is a
//! slip of the keyboard, `type = "xK3..."` a password in the wrong place. What came out of `${...}` is
//! taken out again by [`super::hidden`].

use casebook_connectors::{CONNECTORS, OptionSpec};

/// Longer keys are no keys.
const LONGEST_KEY: usize = 60;
/// Valid names that an error lists.
const MOST_LISTED: usize = 100;
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

/// True if an option of this name, with or without that of its connector in front, holds a secret: its
/// connector says so, or it sounds so.
pub(super) fn is_secret(key: &str) -> bool {
    let named = |spec: &&OptionSpec| {
        spec.key == key || spec.key.split_once('.').is_some_and(|(_, own)| own == key)
    };
    let specs = CONNECTORS.iter().flat_map(|c| c.options);
    sounds_secret(key) || specs.filter(|s| s.secret).any(|s| named(&s))
}

fn sounds_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    // Where a secret is kept is none.
    let place = key.ends_with("_path") || key.ends_with("_file");
    !place && SECRETS.iter().any(|name| key.contains(name))
}

/// A key as it may be shown: names are in lower case, what else stands there may be a value.
pub(super) fn key(key: &str) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || matches!(c, '_' | '.' | '-');
    let count = key.chars().count();
    match key.len() <= LONGEST_KEY && key.chars().all(plain) {
        true => format!("'{key}'"),
        false if key.is_ascii() => format!("of {count} characters"),
        // A letter of another script can look like one of ours.
        false => format!("of {count} characters, not all of them ASCII"),
    }
}

/// The one of `valid`, which are in lower case, that `name` resembles.
pub(super) fn nearest<'a>(name: &str, valid: &[&'a str]) -> Option<&'a str> {
    casebook_connectors::nearest(&name.to_lowercase(), valid)
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
        names if names.len() > MOST_LISTED => {
            let more = names.len() - MOST_LISTED;
            format!(
                "Valid: {} and {more} more.",
                names[..MOST_LISTED].join(", ")
            )
        }
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
    fn what_is_no_name_is_not_shown() {
        assert_eq!(key("aws.secret_access_key"), "'aws.secret_access_key'");
        assert_eq!(key("Hunter2"), "of 7 characters");
        assert_eq!(key("hunter2"), "of 7 characters");
        assert_eq!(
            key("p\u{430}ssword"),
            "of 8 characters, not all of them ASCII"
        );
        let many = vec!["name"; 1000];
        let listed = not_one_of("table", "x", &many);
        assert!(listed.ends_with("name and 900 more."), "{listed}");
        assert_eq!(key(&"a".repeat(61)), "of 61 characters");
        let valid = ["delta", "snowflake"];
        assert_eq!(nearest("Snowflak", &valid), Some("snowflake"));
        for (slip, meant) in [
            ("cvs", Some("csv")),
            ("cs", Some("csv")),
            ("csvv", Some("csv")),
            ("jsno", Some("json")),
            ("lroa", Some("lora")),
            ("xml", None),
            ("vcs", None),
            ("", None),
        ] {
            assert_eq!(
                nearest(slip, &["csv", "json", "lora", "s3"]),
                meant,
                "{slip}"
            );
        }
        assert_eq!(nearest("s", &["s3"]), nearest("s", &["s3", "gs"]));
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
