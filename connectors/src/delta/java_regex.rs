//! A regular expression of Java in the words of the one that is used here.
//!
//! The two agree on most of what people write and differ without a word on the rest: `\d` is ten digits
//! in Java and those of all scripts here, `$` may stand before a last line break, `.` is no line break
//! of five kinds. What is known to be the same is translated, anything else is no pattern.
//! <https://docs.oracle.com/en/java/javase/17/docs/api/java.base/java/util/regex/Pattern.html>

use std::iter::Peekable;
use std::str::Chars;

/// What Java's `.` is not.
const LINE_ENDS: &str = r"\n\r\u{85}\u{2028}\u{2029}";
/// The bound of `{n}`, which copies what it repeats.
const MAX_COUNT: u32 = 1000;

/// `java`, which is looked for anywhere in a text.
///
/// # Errors
/// The part of it that may mean something else here.
pub(super) fn translated(java: &str) -> Result<String, String> {
    let mut parser = Translation {
        rest: java.chars().peekable(),
        out: String::new(),
    };
    parser.all()?;
    regex::Regex::new(&parser.out).map_err(|_| "the pattern".to_owned())?;
    Ok(parser.out)
}

struct Translation<'a> {
    rest: Peekable<Chars<'a>>,
    out: String,
}

impl Translation<'_> {
    fn all(&mut self) -> Result<(), String> {
        // True after something that can be repeated.
        let mut repeatable = false;
        let mut depth = 0;
        while let Some(c) = self.rest.next() {
            repeatable = match c {
                '^' if !repeatable => {
                    self.out.push_str(r"\A");
                    false
                }
                '$' => {
                    // Nothing may follow it: what it stands before is taken here.
                    if !matches!(self.rest.peek(), None | Some('|' | ')')) {
                        return Err("$ within the pattern".into());
                    }
                    let ends = r"(?:\r\n|[\n\r\u{85}\u{2028}\u{2029}])?\z";
                    self.out.push_str(ends);
                    false
                }
                '.' => {
                    self.out.push_str(&format!("[^{LINE_ENDS}]"));
                    true
                }
                '[' => {
                    self.class()?;
                    true
                }
                '(' => {
                    if self.rest.next_if_eq(&'?').is_some() && self.rest.next() != Some(':') {
                        return Err("(?".into());
                    }
                    self.out.push_str("(?:");
                    depth += 1;
                    false
                }
                ')' if depth > 0 => {
                    self.out.push(')');
                    depth -= 1;
                    true
                }
                '|' => {
                    self.out.push('|');
                    false
                }
                '*' | '+' | '?' | '{' if repeatable => {
                    self.repeat(c)?;
                    false
                }
                '\\' => {
                    let class = self.escape()?;
                    self.out.push_str(&class);
                    true
                }
                '*' | '+' | '?' | '{' | '}' | ')' | '^' => return Err(c.into()),
                literal => {
                    self.out
                        .push_str(&regex::escape(literal.encode_utf8(&mut [0; 4])));
                    true
                }
            };
        }
        match depth {
            0 => Ok(()),
            _ => Err("(".into()),
        }
    }

    /// How often, after its first character; `?` after it changes how, not whether, a text matches.
    fn repeat(&mut self, first: char) -> Result<(), String> {
        self.out.push(first);
        if first == '{' {
            let mut counts = String::new();
            while let Some(c) = self.rest.next_if(|c| c.is_ascii_digit() || *c == ',') {
                counts.push(c);
            }
            let (from, to) = counts.split_once(',').unwrap_or((&counts, ""));
            let fits = |n: &str| n.parse().is_ok_and(|n: u32| n <= MAX_COUNT);
            if self.rest.next() != Some('}') || !fits(from) || !(to.is_empty() || fits(to)) {
                return Err("{".into());
            }
            self.out.push_str(&counts);
            self.out.push('}');
        }
        self.rest.next_if_eq(&'?');
        match self.rest.peek() {
            Some(c @ ('+' | '*' | '?' | '{')) => Err(format!("{c} after {first}")),
            _ => Ok(()),
        }
    }

    /// What stands after a backslash, within a class or not.
    fn escape(&mut self) -> Result<String, String> {
        let c = self.rest.next().ok_or("a backslash at its end")?;
        Ok(match c {
            'd' => "[0-9]".into(),
            'w' => "[0-9A-Za-z_]".into(),
            's' => r"[ \t\n\x0B\f\r]".into(),
            'D' => "[^0-9]".into(),
            'W' => "[^0-9A-Za-z_]".into(),
            'S' => r"[^ \t\n\x0B\f\r]".into(),
            't' | 'n' | 'r' | 'f' => format!(r"\{c}"),
            c if c.is_ascii_punctuation() => regex::escape(c.encode_utf8(&mut [0; 4])),
            c => return Err(format!(r"\{c}")),
        })
    }

    fn class(&mut self) -> Result<(), String> {
        self.out.push('[');
        if self.rest.next_if_eq(&'^').is_some() {
            self.out.push('^');
        }
        let mut empty = true;
        loop {
            let c = self.rest.next().ok_or("[")?;
            match c {
                ']' if !empty => break,
                ']' | '[' => return Err("[ within [".into()),
                '&' if self.rest.peek() == Some(&'&') => return Err("&&".into()),
                '\\' => {
                    let class = self.escape()?;
                    self.out.push_str(&class);
                }
                '-' => self
                    .out
                    .push_str(match empty || self.rest.peek() == Some(&']') {
                        true => r"\-",
                        false => "-",
                    }),
                '^' | '~' | '&' => {
                    self.out.push('\\');
                    self.out.push(c);
                }
                literal => self.out.push(literal),
            }
            empty = false;
        }
        self.out.push(']');
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_translated_matches_as_in_java() {
        // As the documentation of java.util.regex.Pattern says of find().
        for (java, text, found) in [
            ("^[A-Z]{2}-\\d+$", "AB-12", true),
            ("^[A-Z]{2}-\\d+$", "AB-12\n", true),
            ("^[A-Z]{2}-\\d+$", "AB-12\n\n", false),
            ("^[A-Z]{2}-\\d+$", "AB-١٢", false),
            ("^\\w+$", "é", false),
            ("a.c", "a\u{2028}c", false),
            ("a.c", "a\tc", true),
            ("^a|b$", "xb", true),
            ("^a|b$", "xbx", false),
            ("^(?:a|b)+?$", "abab", true),
            ("^(a|b)c?$", "bc", true),
            ("[^\\s@]+@[^\\s@]+", "a@b", true),
            ("[^\\s@]+@[^\\s@]+", " @ ", false),
            ("^[a-z.\\-]*$", "a-b.c", true),
            ("^[-a]+$", "-a-", true),
            ("^[a-]+$", "-a-", true),
            ("\\.", "ab", false),
            ("^$", "", true),
            ("^$", "\n", true),
            ("", "x", true),
            ("x{2,3}", "xx", true),
            ("[~^&]", "&", true),
            ("é+", "éé", true),
            ("\\S\\D\\W", "ab-", true),
        ] {
            let pattern = translated(java).unwrap();
            let matches = regex::Regex::new(&pattern).unwrap().is_match(text);
            assert_eq!(matches, found, "{java} ({pattern}) in {text:?}");
        }
    }

    #[test]
    fn what_may_differ_is_no_pattern() {
        for java in [
            "(?i)a",
            "(?=a)",
            "(?<x>a)",
            "\\bword\\b",
            "\\p{L}",
            "\\1",
            "a++",
            "a*+",
            "a?+",
            "a**",
            "[a&&b]",
            "[a[b]]",
            "[]a]",
            "a{,3}",
            "a{1001}",
            "a{2",
            "a$b",
            "x^",
            "(a",
            "a)",
            "[a",
            "a\\",
            "\\Qa\\E",
            "\\u0041",
            "\\x41",
            "*a",
            "a|*",
            "[z-a]",
            "}",
            "\\h",
            "\\R",
            "\\Z",
        ] {
            assert!(translated(java).is_err(), "{java}: {:?}", translated(java));
        }
    }
}
