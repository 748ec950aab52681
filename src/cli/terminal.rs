//! Text on a terminal: what a document or an answer holds is shown and never obeyed.
//!
//! An escape sequence in a warehouse's text could retitle the window, rewrite lines that were
//! printed before, or type into the shell. Control characters are therefore shown as `\u{1b}`, and
//! so are the marks that override the direction of text. Line breaks and tabs stay. What goes to a
//! file or a pipe, and CSV and JSON anywhere, is left as it is.

use std::borrow::Cow;
use std::io::IsTerminal;

/// `text` as standard output can take it.
pub(super) fn out(text: &str) -> Cow<'_, str> {
    match std::io::stdout().is_terminal() {
        true => shown(text),
        false => Cow::Borrowed(text),
    }
}

/// `text` as standard error can take it.
pub(super) fn err(text: &str) -> Cow<'_, str> {
    match std::io::stderr().is_terminal() {
        true => shown(text),
        false => Cow::Borrowed(text),
    }
}

/// `text` with what a terminal would obey escaped.
pub(super) fn shown(text: &str) -> Cow<'_, str> {
    if !text.contains(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match is_obeyed(c) {
            true => out.extend(c.escape_unicode()),
            false => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// C0 but line feed and tab, DEL, C1, and the marks that override the direction of text.
fn is_obeyed(c: char) -> bool {
    let direction = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    (c.is_control() && c != '\n' && c != '\t') || direction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown() {
        for (text, wanted) in [
            (
                "plain text, ünïcode, 判例\n\tindented",
                "plain text, ünïcode, 判例\n\tindented",
            ),
            ("\x1b[31mred", "\\u{1b}[31mred"),
            ("\x1b]0;title\x07", "\\u{1b}]0;title\\u{7}"),
            ("over\rwritten\x08", "over\\u{d}written\\u{8}"),
            ("\u{9b}2J\u{90}\x7f\0", "\\u{9b}2J\\u{90}\\u{7f}\\u{0}"),
            ("a\u{202e}b\u{2066}c", "a\\u{202e}b\\u{2066}c"),
        ] {
            assert_eq!(shown(text), wanted);
        }
    }
}
