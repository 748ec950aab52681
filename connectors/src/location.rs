//! How a LOCATION, and any text with one in it, is shown: without what signs in.
//!
//! A URL can hold `user:password@`, a signature (`?sig=`) or a token behind `#`. Every error of this
//! crate and of the program passes [`without_credentials`], because libraries put URLs into theirs.

use std::borrow::Cow;

/// What stands in place of a credential.
const HIDDEN: &str = "***";
/// Names of attributes whose values are credentials, as ODBC strings and URLs write them.
const ATTRIBUTES: &[&str] = &[
    "pwd",
    "passwd",
    "password",
    "passphrase",
    "secret",
    "token",
    "sig",
    "signature",
];
/// Schemes in which a name before `@` is a container.
const CONTAINERS: &[&str] = &["abfs", "abfss", "wasb", "wasbs"];

/// `location` as it may be shown: no user, no query, no fragment. A path of this machine is shown as
/// it is, but for `user:password@`: that is a URL whose scheme was forgotten.
pub fn shown(location: &str) -> Cow<'_, str> {
    let Some((scheme, rest)) = location.split_once("://") else {
        return without_users(location);
    };
    if scheme.eq_ignore_ascii_case("file") {
        return match without_users(rest) {
            Cow::Borrowed(_) => Cow::Borrowed(location),
            Cow::Owned(clean) => Cow::Owned(format!("{scheme}://{clean}")),
        };
    }
    let user = rest.split(['/', '@']).next().unwrap_or_default();
    let named = CONTAINERS.contains(&scheme) && !user.contains(':');
    let clean = without_query(if named { rest } else { without_user(rest) });
    match clean.len() == rest.len() {
        true => Cow::Borrowed(location),
        false => Cow::Owned(format!("{scheme}://{clean}")),
    }
}

/// `text` with every URL in it as [`shown`] has it, and without the values of attributes such as
/// `PWD=`.
pub fn without_credentials(text: &str) -> Cow<'_, str> {
    let urls = without_url_credentials(text);
    match without_attributes(&urls) {
        Some(clean) => Cow::Owned(clean),
        None => urls,
    }
}

/// The part of a URL behind `://` without `user:password@`. A password with a plain `/` in it ends
/// the authority early, so that a "port" that is no number is taken for one.
fn without_user(rest: &str) -> &str {
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    if let Some(at) = rest[..end].rfind('@') {
        return &rest[at + 1..];
    }
    let port = rest[..end].rsplit_once(':').map(|(_, port)| port);
    let is_port = |port: &str| port.bytes().all(|b| b.is_ascii_digit());
    let bracketed = rest.starts_with('[');
    match (port, rest.rfind('@')) {
        (Some(port), Some(at)) if !is_port(port) && !bracketed => &rest[at + 1..],
        _ => rest,
    }
}

fn without_query(rest: &str) -> &str {
    let authority = rest.find('/').unwrap_or(0);
    match rest[authority..].find(['?', '#']) {
        // A glob such as `part-?.csv` is not a query: nothing in it has a name and a value.
        Some(at) if looks_like_query(&rest[authority + at..]) => &rest[..authority + at],
        _ => rest,
    }
}

/// True for what can hold a signature: `#...`, or `?name=value`, or a long word.
fn looks_like_query(query: &str) -> bool {
    query.starts_with('#') || query.contains('=') || !query[1..].starts_with('.')
}

/// `text`, in which no URL has its scheme, without every `user:password@`.
fn without_users(text: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let mut done = 0;
    for (at, _) in text.match_indices('@') {
        // A password may have an @ in it, so the last one of a word counts.
        let behind = &text[at + 1..];
        let word = behind.find(ends_url).unwrap_or(behind.len());
        if behind[..word].contains('@') {
            continue;
        }
        let before = &text[done..at];
        let start = before.rfind(ends_url).map_or(0, |i| {
            i + before[i..].chars().next().map_or(1, char::len_utf8)
        });
        let Some((user, password)) = before[start..].split_once(':') else {
            continue;
        };
        let name = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '%' | '+' | '-');
        let length = user.len() - user.trim_end_matches(name).len();
        // `C:\` begins a path.
        if length == 0 || password.is_empty() || password.starts_with('\\') {
            continue;
        }
        out.push_str(&before[..start + user.len() - length]);
        out.push_str(HIDDEN);
        done = at;
    }
    match done {
        0 => Cow::Borrowed(text),
        _ => Cow::Owned(out + &text[done..]),
    }
}

/// True for what stands around a URL in a text.
fn ends_url(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | '`' | '|')
}

fn without_url_credentials(text: &str) -> Cow<'_, str> {
    if !text.contains("://") {
        return without_users(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let start = rest[..at]
            .rfind(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.')))
            .map_or(0, |i| {
                i + rest[i..].chars().next().map_or(1, char::len_utf8)
            });
        let end = rest[at + 3..]
            .find(ends_url)
            .map_or(rest.len(), |i| at + 3 + i);
        let url = &rest[start..end];
        // What closes the sentence around a URL is not of the URL.
        let bare = url.trim_end_matches([')', ']', '}', '.', ',', ';', ':', '!']);
        out.push_str(&without_users(&rest[..start]));
        out.push_str(&shown(bare));
        out.push_str(&url[bare.len()..]);
        rest = &rest[end..];
    }
    out.push_str(&without_users(rest));
    Cow::Owned(out)
}

/// None if there is no such attribute.
fn without_attributes(text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let mut out = String::new();
    let mut done = 0;
    for (at, _) in lower.match_indices('=') {
        if at < done {
            continue;
        }
        let name = lower[done..at].trim_end();
        let word = name
            .rfind(|c: char| !c.is_ascii_alphanumeric())
            .map_or(name, |i| {
                &name[i + name[i..].chars().next().map_or(1, char::len_utf8)..]
            });
        if !ATTRIBUTES.contains(&word) {
            continue;
        }
        let value = &text[at + 1..];
        let spaces = value.len() - value.trim_start_matches(' ').len();
        let length = value_length(&value[spaces..]);
        if length == 0 {
            continue;
        }
        out.push_str(&text[done..at + 1 + spaces]);
        out.push_str(HIDDEN);
        done = at + 1 + spaces + length;
    }
    (done > 0).then(|| out + &text[done..])
}

/// Bytes of an attribute's value: `{...}` or quoted as a whole, else up to what ends it. `> '` after
/// the `=` is SQL's `key => 'value'`, and a second `=` a comparison: no attributes.
fn value_length(value: &str) -> usize {
    let mut chars = value.char_indices();
    match chars.next() {
        None | Some((_, '>' | '=')) => 0,
        Some((_, open @ ('{' | '"' | '\''))) => {
            let close = if open == '{' { '}' } else { open };
            let mut rest = chars.peekable();
            while let Some((i, c)) = rest.next() {
                if c != close {
                    continue;
                }
                // Doubled, it stands for itself.
                if rest.peek().is_some_and(|(_, next)| *next == close) {
                    rest.next();
                    continue;
                }
                return i + c.len_utf8();
            }
            value.len()
        }
        Some(_) => value
            .find(|c: char| c.is_whitespace() || matches!(c, ';' | '&' | ',' | '\'' | '"' | ')'))
            .unwrap_or(value.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_shown_without_what_signs_in() {
        for (location, expected) in [
            ("cases.csv", "cases.csv"),
            ("dir?x=1/a@b.csv", "dir?x=1/a@b.csv"),
            ("file:///tmp/a?b@c", "file:///tmp/a?b@c"),
            ("bob:SECRET@h/x.csv", "***@h/x.csv"),
            ("bob:SE/CR@ET@h/x.csv", "***@h/x.csv"),
            ("/tmp/bob:SECRET@h/x.csv", "/tmp/***@h/x.csv"),
            ("file:///tmp/bob:SECRET@h/x", "file:///tmp/***@h/x"),
            ("C:\\dir\\a@b.csv", "C:\\dir\\a@b.csv"),
            ("a@b:c.csv", "a@b:c.csv"),
            ("s3://bucket/a@b.csv", "s3://bucket/a@b.csv"),
            ("s3://ID:SECRET@bucket/x.csv", "s3://bucket/x.csv"),
            (
                "http://bob:SECRET@127.0.0.1:9/x.csv",
                "http://127.0.0.1:9/x.csv",
            ),
            ("http://bob:SE@CRET@h/x.csv", "http://h/x.csv"),
            ("http://bob:SE/CRET@h/x.csv", "http://h/x.csv"),
            ("http://SECRET@h", "http://h"),
            ("https://h/x.csv?sig=SECRET&se=2", "https://h/x.csv"),
            ("https://h?sig=SECRET", "https://h"),
            ("https://h/x.csv#SECRET", "https://h/x.csv"),
            ("https://h/x.csv?SECRET", "https://h/x.csv"),
            ("az://c/x?sv=1&sig=a/b/SECRET", "az://c/x"),
            ("s3://b/part-?.csv", "s3://b/part-?.csv"),
            ("http://[::1]:9/x@y", "http://[::1]:9/x@y"),
            ("http://[::1]/x@y", "http://[::1]/x@y"),
            ("http://h:80/x@y", "http://h:80/x@y"),
            ("abfss://box@a.net/x?sig=SECRET", "abfss://box@a.net/x"),
            ("abfss://box:SECRET@a.net/x", "abfss://a.net/x"),
        ] {
            assert_eq!(shown(location), expected, "{location}");
        }
    }

    #[test]
    fn a_text_keeps_everything_else() {
        for (text, expected) in [
            ("no URL, 1 = 1", "no URL, 1 = 1"),
            ("no file 'bob:SE CRET@h/x'", "no file 'bob:SE CRET@h/x'"),
            (
                "no file '/d/bob:SECRET@h/x' é:SECRET@h at http://h/x?a=SECRET or a:SECRET@b",
                "no file '/d/***@h/x' ***@h at http://h/x or ***@b",
            ),
            (
                "write to bob@example.org: now",
                "write to bob@example.org: now",
            ),
            (
                "sending (https://u:SECRET@h/x?sig=SECRET): refused",
                "sending (https://h/x): refused",
            ),
            ("at 'az://c/x?sig=SECRET'; look", "at 'az://c/x'; look"),
            (
                "a http://h/1?x=SECRET b é://u:SECRET@i/2.",
                "a http://h/1 b é://i/2.",
            ),
            (
                "Driver={X};Uid=bob;Pwd={SEC;RE}}T};Database=d",
                "Driver={X};Uid=bob;Pwd=***;Database=d",
            ),
            ("DSN=x;PASSWORD = SECRET;", "DSN=x;PASSWORD = ***;"),
            ("access_token=\"SECRET\" ok", "access_token=*** ok"),
            ("sig=SECRET&se=2026", "sig=***&se=2026"),
            ("write.key => 'qa_id'", "write.key => 'qa_id'"),
            ("WHERE key == 7", "WHERE key == 7"),
            ("monkey=banana", "monkey=banana"),
        ] {
            assert_eq!(without_credentials(text), expected, "{text}");
        }
    }
}
