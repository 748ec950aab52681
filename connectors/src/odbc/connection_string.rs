//! Connection strings: taken apart, and what each driver has to be told beside what the user says.

use crate::error::{Error, Result};

/// Rows that psqlODBC holds at a time where it would otherwise hold the whole result: 32 rows of
/// 5 MB are 160 MB, and 32 rows of 5 KB are still 160 KB per round trip.
const PSQLODBC_FETCH_ROWS: usize = 32;

/// What `driver` needs to read any table in bounded memory and without loss, unless the user set
/// it otherwise: the spellings of the attribute, and what to add.
pub(super) fn additions(driver: &str) -> Vec<(&'static [&'static str], String)> {
    let driver = driver.to_lowercase();
    if driver.contains("psqlodbc") || driver.starts_with("postgresql") {
        return vec![
            // Otherwise the driver holds the whole result.
            (&["usedeclarefetch", "b6"], "UseDeclareFetch=1".into()),
            (&["fetch", "a7"], format!("Fetch={PSQLODBC_FETCH_ROWS}")),
            // Otherwise a boolean is the text 1 or 0.
            (&["boolsaschar", "b9"], "BoolsAsChar=0".into()),
        ];
    }
    // Otherwise these two hold the whole result as well: by their documentation, because there was
    // none of them to try.
    if driver.contains("maodbc") || driver.contains("mariadb") {
        return vec![
            (
                &["no_cache", "streamrs", "option", "options"],
                "NO_CACHE=1".into(),
            ),
            (
                &["forwardonly", "option", "options"],
                "FORWARDONLY=1".into(),
            ),
        ];
    }
    if driver.contains("myodbc") || driver.contains("mysql") {
        return vec![
            (&["no_cache", "option"], "NO_CACHE=1".into()),
            (&["forward_cursor", "option"], "FORWARD_CURSOR=1".into()),
        ];
    }
    if driver.contains("sqlite") {
        // Otherwise the driver holds the whole result.
        return vec![(&["stepapi"], "StepAPI=1".into())];
    }
    vec![]
}

/// `value` as a connection string writes it: in braces if it holds anything that has a meaning
/// there.
pub(super) fn attribute_value(value: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./\\:".contains(c);
    match value.chars().all(plain) {
        true => value.to_owned(),
        false => format!("{{{}}}", value.replace('}', "}}")),
    }
}

/// The attributes of a connection string, keys in lower case; a value in braces may contain
/// semicolons, and `}}` is a brace.
pub(super) fn attributes(string: &str) -> Result<Vec<(String, String)>> {
    let broken = || {
        Error::invalid(
            "option odbc.connection_string is not of the form 'Key=value;Key={value};...'; check \
             its semicolons and braces",
        )
    };
    let mut out = vec![];
    let mut rest = string;
    loop {
        rest = rest.trim_start_matches([';', ' ', '\n', '\t', '\r']);
        if rest.is_empty() {
            return Ok(out);
        }
        let (key, after) = rest.split_once('=').ok_or_else(broken)?;
        let after = after.trim_start();
        let value;
        if let Some(quoted) = after.strip_prefix('{') {
            let mut text = String::new();
            let mut chars = quoted.char_indices().peekable();
            let end = loop {
                match chars.next().ok_or_else(broken)? {
                    (_, '}') if chars.peek().is_some_and(|(_, c)| *c == '}') => {
                        chars.next();
                        text.push('}');
                    }
                    (at, '}') => break at + 1,
                    (_, other) => text.push(other),
                }
            };
            value = text;
            rest = quoted[end..].trim_start();
            if !(rest.is_empty() || rest.starts_with(';')) {
                return Err(broken());
            }
        } else {
            let (text, after) = after.split_once(';').unwrap_or((after, ""));
            value = text.trim().to_owned();
            rest = after;
        }
        if key.contains(';') {
            return Err(broken());
        }
        out.push((key.trim().to_lowercase(), value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_in_braces_may_hold_anything() {
        let found = attributes("Driver={a;b}}c} ; UID = joe;;PWD=x=y").unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        assert_eq!(found, [("driver", "a;b}c"), ("uid", "joe"), ("pwd", "x=y")]);
        let odd = "{a}b;c+ =";
        let string = format!(
            "PWD={};DSN={}",
            attribute_value(odd),
            attribute_value("law")
        );
        let found = attributes(&string).unwrap();
        assert_eq!(
            found,
            [
                ("pwd".into(), odd.to_owned()),
                ("dsn".into(), "law".to_owned())
            ]
        );
        for broken in ["Driver", "Driver={x", "Driver={x}y;a=b"] {
            assert!(attributes(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn drivers_are_told_not_to_hold_whole_results() {
        let of = |driver| {
            additions(driver)
                .into_iter()
                .map(|(_, a)| a)
                .collect::<Vec<_>>()
                .join(";")
        };
        assert!(of("PostgreSQL Unicode").contains("UseDeclareFetch=1"));
        assert!(of("/usr/lib/psqlodbcw.so").contains("Fetch=32"));
        assert_eq!(of("SQLite3"), "StepAPI=1");
        assert_eq!(
            of("MySQL ODBC 9.1 Unicode Driver"),
            "NO_CACHE=1;FORWARD_CURSOR=1"
        );
        assert_eq!(of("/usr/lib/libmyodbc9w.so"), "NO_CACHE=1;FORWARD_CURSOR=1");
        assert_eq!(of("MariaDB Unicode"), "NO_CACHE=1;FORWARDONLY=1");
        assert_eq!(of("/usr/lib/libmaodbc.so"), "NO_CACHE=1;FORWARDONLY=1");
        assert_eq!(of("ODBC Driver 18 for SQL Server"), "");
    }
}
