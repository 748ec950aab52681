//! How does the text of a document look in a prompt?
//!
//! Opinions come with page layout: runs of blanks, form feeds, lines broken at 60 characters,
//! `&amp;`. Prompts show the text without it. Byte ranges always refer to the original text.

use std::borrow::Cow;

/// The text as prompts show it.
///
/// `&amp;` becomes `&`; a form feed counts as a newline (so do `\r` and `\r\n`); runs of blanks and
/// tabs become one blank; blanks around newlines go; two or more newlines become one empty line; a
/// single newline inside text becomes a blank; the ends are trimmed.
///
/// ```
/// use casebook_qa::normalize::normalize;
/// assert_eq!(normalize("  Ropes &amp; Gray  on\nbrief.\n  \n\n  We affirm. "), "Ropes & Gray on brief.\n\nWe affirm.");
/// ```
pub fn normalize(text: &str) -> Cow<'_, str> {
    let mut out = String::with_capacity(text.len());
    let (mut blank, mut newlines) = (false, 0usize);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let mut width = c.len_utf8();
        match c {
            ' ' | '\t' => blank = true,
            '\n' | '\u{c}' => newlines += 1,
            '\r' => {
                newlines += 1;
                width += usize::from(rest[1..].starts_with('\n'));
            }
            _ => {
                let exotic = c.is_whitespace() || out.ends_with(char::is_whitespace);
                match newlines {
                    0 if blank => out.push(' '),
                    0 => {}
                    1 if exotic => out.push('\n'),
                    1 => out.push(' '),
                    _ => out.push_str("\n\n"),
                }
                (blank, newlines) = (false, 0);
                out.push(c);
                if rest.starts_with("&amp;") {
                    width = "&amp;".len();
                }
            }
        }
        rest = &rest[width..];
    }
    let trimmed = out.trim();
    if trimmed == text {
        Cow::Borrowed(text)
    } else if trimmed.len() == out.len() {
        Cow::Owned(out)
    } else {
        Cow::Owned(trimmed.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden() {
        for (text, want) in [
            ("", ""),
            (" \n\t\u{c} ", ""),
            ("plain text", "plain text"),
            (
                "Burns,  Bryant &amp;  Schulte,\n     \nP.A.",
                "Burns, Bryant & Schulte,\n\nP.A.",
            ),
            ("a\nb", "a b"),
            ("a \n b", "a b"),
            ("a\u{c}b", "a b"),
            ("a\n\u{c}b", "a\n\nb"),
            ("a\r\nb\r\n\r\nc\rd", "a b\n\nc d"),
            ("&amp;amp; & &am", "&amp; & &am"),
            ("8\tU.S.C.  \u{a7} 1251", "8 U.S.C. \u{a7} 1251"),
            ("caf\u{e9}\n\n\n\nna\u{ef}ve", "caf\u{e9}\n\nna\u{ef}ve"),
        ] {
            assert_eq!(normalize(text), want, "{text:?}");
        }
        assert!(matches!(normalize("as it\n\nis"), Cow::Borrowed(_)));
    }

    proptest! {
        #[test]
        fn whitespace_is_all_that_changes(text in "[ab \t\n\u{c}\r.]{0,60}") {
            let squeeze = |t: &str| t.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            let normal = normalize(&text);
            prop_assert_eq!(squeeze(&normal), squeeze(&text));
            let again = normalize(&normal);
            prop_assert_eq!(again.as_ref(), normal.as_ref());
            prop_assert!(!normal.contains("  ") && !normal.contains("\n\n\n"));
        }
    }
}
