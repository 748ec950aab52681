//! What must be in no message, and how it is taken out again: values that came out of `${...}`, or
//! that stand where secrets belong, in whatever a library or a server says.
//!
//! A value is found in every writing (as Rust, JSON, SQL and URLs escape it, in another case), and
//! so are its parts: a directory above a path, the rest of a token that was cut. What names a file or
//! a directory of this machine is a name and no secret, so it is hidden as a whole only: a message
//! then says `${env:DATA_DIR}/cases.csv`, and other paths below the same directory stay readable.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use casebook_connectors::Secret;

/// Shorter values would take ordinary words out of messages.
const SHORTEST: usize = 4;
/// From this length on a value is hidden inside of words, too.
const LONG: usize = 8;
/// A run without blanks of this length is a token, of which no part is shown; shorter ones and those
/// of a prompt are words.
const TOKEN: usize = 12;
/// What stands in place of a part of a token.
const PART: &str = "***";

/// Values that no message may hold, each with what stands in its place.
#[derive(Default)]
pub struct Hidden(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// The longest first: the whole before its parts.
    values: Vec<(Secret, String)>,
    /// Of which any [`LONG`] bytes are hidden.
    tokens: Vec<Secret>,
    /// What is shown although it is part of a value.
    shown: Vec<String>,
}

impl Hidden {
    /// Takes `value` out of messages from now on; `instead` stands there.
    pub fn note(&self, value: &str, instead: &str) {
        let value = value.trim();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.add(value, instead);
        // A file can hold a key of many lines, of which a message quotes one.
        for line in value.lines().filter(|line| line.len() < value.len()) {
            known.add(line.trim(), instead);
        }
        for word in value.split_whitespace() {
            let secret = &word[named(word)..];
            if secret.len() >= TOKEN && known.tokens.iter().all(|t| t.expose() != secret) {
                known.tokens.push(Secret::new(secret));
            }
        }
        for (levels, above) in above(value).enumerate() {
            let steps = match instead.starts_with('$') {
                true => "/..".repeat(levels + 1),
                false => String::new(),
            };
            known.add(above, &format!("{instead}{steps}"));
        }
        known
            .values
            .sort_by_key(|(value, _)| std::cmp::Reverse(value.expose().len()));
    }

    /// Leaves `name` in messages where it stands by itself, also if it came out of `${...}`: the host
    /// that documents leave for is no secret.
    pub fn show(&self, name: &str) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !name.is_empty() && known.shown.iter().all(|shown| shown != name) {
            known.shown.push(name.to_owned());
        }
    }

    /// `text` as it may be shown.
    pub fn out_of(&self, text: &str) -> String {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.values.is_empty() {
            return text.to_owned();
        }
        let mut found = vec![];
        for writing in WRITINGS {
            if let Some(read) = writing(text) {
                known.find(text, &read, &mut found);
            }
        }
        let tokens: Vec<&[u8]> = known.tokens.iter().map(|t| t.expose().as_bytes()).collect();
        let mut parts = vec![false; text.len()];
        for writing in WRITINGS {
            if let Some(read) = writing(text) {
                mark_parts(&read, &tokens, &mut parts);
            }
        }
        for name in &known.shown {
            for (at, _) in text.match_indices(name.as_str()) {
                let end = at + name.len();
                if is_word(text, at, end) {
                    parts[at..end].fill(false);
                    found.retain(|(from, to, _)| *from < at || *to > end);
                }
            }
        }
        replaced(text, found, &parts)
    }

    /// Takes over what `other` hides.
    pub fn add(&self, other: &Self) {
        let other = other.0.lock().unwrap_or_else(PoisonError::into_inner);
        let values = other.values.clone();
        let (tokens, shown) = (other.tokens.clone(), other.shown.clone());
        drop(other);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (value, instead) in &values {
            known.add(value.expose(), instead);
        }
        known.tokens.extend(tokens);
        known.shown.extend(shown);
        known
            .values
            .sort_by_key(|(value, _)| std::cmp::Reverse(value.expose().len()));
    }
}

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hidden(***)")
    }
}

impl Known {
    fn add(&mut self, value: &str, instead: &str) {
        let new = self.values.iter().all(|(old, _)| old.expose() != value);
        if value.len() >= SHORTEST && new {
            self.values.push((Secret::new(value), instead.to_owned()));
        }
    }

    /// Adds to `found` where values stand in `text`, which `read` is a reading of.
    fn find<'a>(&'a self, text: &str, read: &Read, found: &mut Vec<(usize, usize, &'a str)>) {
        for (value, instead) in &self.values {
            let value = value.expose().as_bytes();
            let is_long = value.len() >= LONG;
            if value.len() > read.bytes.len() {
                continue;
            }
            for (at, part) in read.bytes.windows(value.len()).enumerate() {
                if !part.eq_ignore_ascii_case(value) {
                    continue;
                }
                let (start, end) = (read.starts[at], read.starts[at + value.len()]);
                let free = found
                    .iter()
                    .all(|(from, to, _)| end <= *from || start >= *to);
                if free && (is_long || is_word(text, start, end)) {
                    found.push((start, end, instead));
                }
            }
        }
    }
}

/// How much of `word` names a file or a directory that is there.
fn named(word: &str) -> usize {
    if !word.contains('/') {
        return 0;
    }
    let ends = word.match_indices('/').map(|(at, _)| at);
    let there = ends
        .chain([word.len()])
        .filter(|end| is_there(&word[..*end]));
    there.max().unwrap_or(0)
}

/// The paths above `value` that are not there, from the innermost.
fn above(value: &str) -> impl Iterator<Item = &str> {
    let value = value.trim_end_matches('/');
    let is_path = !value.contains(char::is_whitespace);
    let ends = value.rmatch_indices('/').map(|(at, _)| at);
    ends.filter(move |_| is_path)
        .map(move |at| value[..at].trim_end_matches('/'))
        .filter(|above| !above.ends_with(':') && !is_there(above))
}

fn is_there(path: &str) -> bool {
    Path::new(path).exists()
}

fn is_word(text: &str, start: usize, end: usize) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    let before = text.get(..start).and_then(|t| t.chars().next_back());
    let behind = text.get(end..).and_then(|t| t.chars().next());
    !before.is_some_and(part) && !behind.is_some_and(part)
}

/// A reading of a text: its bytes, and where each begins in the text; one more start for the end.
struct Read {
    bytes: Vec<u8>,
    starts: Vec<usize>,
}

/// How a value can be written; none where the text has nothing of the kind.
const WRITINGS: &[fn(&str) -> Option<Read>] = &[plain, percent, percent_twice, escaped, doubled];

fn plain(text: &str) -> Option<Read> {
    Some(Read {
        bytes: text.as_bytes().to_vec(),
        starts: (0..=text.len()).collect(),
    })
}

/// As URLs and the names of objects write it.
fn percent(text: &str) -> Option<Read> {
    text.contains('%')
        .then(|| decoded(plain(text)?, undo_percent))
        .flatten()
}

/// The name of an object within a URL.
fn percent_twice(text: &str) -> Option<Read> {
    text.contains("%25")
        .then(|| decoded(percent(text)?, undo_percent))
        .flatten()
}

/// As Rust and JSON write a text in quotes.
fn escaped(text: &str) -> Option<Read> {
    text.contains('\\')
        .then(|| decoded(plain(text)?, undo_escape))
        .flatten()
}

/// As SQL writes a text in quotes.
fn doubled(text: &str) -> Option<Read> {
    let has = text.contains("''") || text.contains("\"\"");
    has.then(|| decoded(plain(text)?, undo_doubling)).flatten()
}

/// What some bytes stand for at their beginning, and how many of them do; none: for themselves.
type Undo = fn(&[u8]) -> Option<(Vec<u8>, usize)>;

/// Undoes a writing: `undo` says what the bytes at its beginning stand for, and how many they are.
fn decoded(read: Read, undo: Undo) -> Option<Read> {
    let mut out = Read {
        bytes: vec![],
        starts: vec![],
    };
    let mut at = 0;
    while at < read.bytes.len() {
        let (bytes, length) = undo(&read.bytes[at..]).unwrap_or((vec![read.bytes[at]], 1));
        out.starts.extend(bytes.iter().map(|_| read.starts[at]));
        out.bytes.extend(bytes);
        at += length;
    }
    out.starts.push(read.starts.last().copied()?);
    Some(out)
}

fn undo_percent(text: &[u8]) -> Option<(Vec<u8>, usize)> {
    let [b'%', high, low, ..] = text else {
        return None;
    };
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let byte = digit(high)? * 16 + digit(low)?;
    Some((vec![u8::try_from(byte).ok()?], 3))
}

fn undo_escape(text: &[u8]) -> Option<(Vec<u8>, usize)> {
    let [b'\\', kind, rest @ ..] = text else {
        return None;
    };
    let code = |digits: &[u8], length: usize| {
        let code = u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        Some((char::from_u32(code)?.to_string().into_bytes(), length))
    };
    match kind {
        b'\\' | b'"' | b'\'' | b'/' => Some((vec![*kind], 2)),
        b'n' => Some((vec![b'\n'], 2)),
        b'r' => Some((vec![b'\r'], 2)),
        b't' => Some((vec![b'\t'], 2)),
        b'u' if rest.first() == Some(&b'{') => {
            let end = rest.iter().take(8).position(|byte| *byte == b'}')?;
            code(&rest[1..end], end + 3)
        }
        b'u' => code(rest.get(..4)?, 6),
        _ => None,
    }
}

fn undo_doubling(text: &[u8]) -> Option<(Vec<u8>, usize)> {
    match text {
        [a @ (b'\'' | b'"'), b, ..] if a == b => Some((vec![*a], 2)),
        _ => None,
    }
}

/// Marks every byte of a text that belongs to [`LONG`] bytes in a row of one of `tokens`. Those that
/// are lower-case letters alone are words.
fn mark_parts(read: &Read, tokens: &[&[u8]], marks: &mut [bool]) {
    let window =
        |bytes: &[u8]| -> [u8; LONG] { std::array::from_fn(|i| bytes[i].to_ascii_lowercase()) };
    let there: HashSet<[u8; LONG]> = read.bytes.windows(LONG).map(window).collect();
    let tells = |bytes: &&[u8]| !bytes.iter().all(u8::is_ascii_lowercase);
    let of_tokens = tokens.iter().flat_map(|token| token.windows(LONG));
    let found: HashSet<[u8; LONG]> = of_tokens
        .filter(tells)
        .map(window)
        .filter(|window| there.contains(window))
        .collect();
    if found.is_empty() {
        return;
    }
    for (at, bytes) in read.bytes.windows(LONG).enumerate() {
        if found.contains(&window(bytes)) {
            marks[read.starts[at]..read.starts[at + LONG]].fill(true);
        }
    }
}

/// `text` with what was `found` replaced, and what is marked as a part elsewhere.
fn replaced(text: &str, mut found: Vec<(usize, usize, &str)>, parts: &[bool]) -> String {
    found.sort_unstable();
    let mut found = found.into_iter().peekable();
    let mut out = String::with_capacity(text.len());
    let mut in_part = false;
    let mut at = 0;
    while at < text.len() {
        if let Some((_, end, instead)) = found.next_if(|(start, ..)| *start <= at) {
            out.push_str(instead);
            in_part = false;
            at = end.max(at);
            continue;
        }
        let next = text[at..].chars().next().map_or(1, char::len_utf8);
        if parts[at..at + next].contains(&true) {
            if !in_part {
                out.push_str(PART);
            }
            in_part = true;
        } else {
            out.push_str(&text[at..at + next]);
            in_part = false;
        }
        at += next;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_that_is_shown_stays_and_what_is_around_it_does_not() {
        let hidden = Hidden::default();
        hidden.note("https://host-4711.example:8000/hunter2/v1", "${env:URL}");
        hidden.note("host-4711.example", "${env:HOST}");
        let of = |text: &str| hidden.out_of(text);
        assert!(!of("to host-4711.example:8000.").contains("example"));
        hidden.show("host-4711.example:8000");
        assert_eq!(
            of("to host-4711.example:8000."),
            "to host-4711.example:8000."
        );
        for text in [
            "at https://host-4711.example:8000/hunter2/v1",
            "of xhost-4711.example:8000",
            "from example:8000/hunter2",
        ] {
            let shown = of(text);
            assert!(
                !shown.contains("hunter2") && !shown.contains("4711"),
                "{shown}"
            );
        }
        let other = Hidden::default();
        other.add(&hidden);
        assert_eq!(
            other.out_of("host-4711.example:8000"),
            "host-4711.example:8000"
        );
    }

    #[test]
    fn values_are_taken_out_in_every_writing() {
        let hidden = Hidden::default();
        hidden.note("hunter2 \"x/y\"", "${env:PW}");
        hidden.note("it's a 'secret'", "${env:SQL}");
        hidden.note("-----BEGIN-----\nABCDEFGH\n-----END-----\n", "***");
        hidden.note("abc", "***");
        hidden.note("word", "***");
        hidden.note("Host77", "${env:HOST}");
        for (text, expected) in [
            ("it is hunter2 \"x/y\"!", "it is ${env:PW}!"),
            ("it is \"hunter2 \\\"x/y\\\"\"", "it is \"${env:PW}\""),
            ("?p=hunter2%20%22x%2Fy%22", "?p=${env:PW}"),
            ("?p=hunter2%20%22x/y%22", "?p=${env:PW}"),
            ("?p=hunter2%2520%2522x%252fy%2522", "?p=${env:PW}"),
            ("'it''s a ''secret'''", "'${env:SQL}'"),
            ("line 2: ABCDEFGH", "line 2: ***"),
            ("abc is too short", "abc is too short"),
            ("a word, no password", "a ***, no password"),
            ("http://host77:9/x", "http://${env:HOST}:9/x"),
            ("100% of 5%2 \\u \\u{zz} %", "100% of 5%2 \\u \\u{zz} %"),
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
    fn no_part_of_a_token_is_shown() {
        let hidden = Hidden::default();
        hidden.note("kX9+aa/bbb/QQ77zzäTT=w0rd", "${env:KEY}");
        for (text, expected) in [
            ("is 'kX9+aa/bbb/QQ77zzäTT=w0rd'", "is '${env:KEY}'"),
            ("in 'kX9+aa/bbb' is", "in '${env:KEY}/..' is"),
            ("in 'kX9+aa' is", "in '${env:KEY}/../..' is"),
            ("cut: kX9+aa/bbb/QQ7...", "cut: ${env:KEY}/..***..."),
            ("tail: ...QQ77zzäTT=w0rd", "tail: ...***"),
            ("url: qq77zz%C3%A4TT%3Dw0rd&x", "url: ***&x"),
            ("few: QQ77zz", "few: QQ77zz"),
        ] {
            assert_eq!(hidden.out_of(text), expected);
        }
    }

    #[test]
    fn what_names_something_that_is_there_stays_readable() {
        let dir = tempfile::tempdir().unwrap();
        let here = dir.path().display().to_string();
        let hidden = Hidden::default();
        hidden.note(&format!("{here}/data"), "${env:DATA_DIR}");
        for (text, expected) in [
            (
                format!("no file '{here}/data/x.csv'"),
                "no file '${env:DATA_DIR}/x.csv'".into(),
            ),
            (format!("in {here}"), format!("in {here}")),
            (format!("{here}/c.toml"), format!("{here}/c.toml")),
        ] {
            assert_eq!(hidden.out_of(&text), expected);
        }
        // A prompt is made of words, and messages are, too.
        hidden.note(
            "Answer the question of the paralegal.",
            "${file:prompt.txt}",
        );
        assert_eq!(hidden.out_of("questions_per_chunk"), "questions_per_chunk");
        // So are the names of systems.
        hidden.note("snowflake-prod", "${env:HOST}");
        assert_eq!(hidden.out_of("snowflake.account"), "snowflake.account");
    }

    proptest! {
        #[test]
        fn any_value_is_taken_out_of_any_text(
            value in any::<String>(),
            text in any::<String>(),
            tail in "[%\\\\'\"a-f0-9{}u]{0,9}",
        ) {
            let hidden = Hidden::default();
            hidden.note(&value, "***");
            let shown = hidden.out_of(&format!("{text}{tail}{value}{tail}{text}"));
            let value = value.trim();
            prop_assert!(value.len() < LONG || !shown.contains(value), "{shown}");
        }
    }
}
