//! Bytes to objects: where each begins and ends. What is in them is not looked at.

use std::fmt;
use std::ops::Range;

use crate::error::{Error, ErrorKind, Result};

/// Where an object stands in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    /// From 1.
    pub(super) record: u64,
    /// From 0.
    pub(super) byte: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record {} (byte {})", self.record, self.byte)
    }
}

/// How the objects of a file follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// White space between them, as a rule the end of the line.
    Lines,
    /// Commas between them, brackets around them.
    Array,
}

/// Finds the objects in bytes that arrive block by block.
pub(super) struct Records {
    layout: Layout,
    max_bytes: usize,
    buffer: Vec<u8>,
    /// Byte of the file that the buffer begins with.
    base: u64,
    /// Where the search for the next object goes on.
    at: usize,
    /// The object that is being looked at.
    open: Option<Open>,
    state: State,
    found: u64,
}

struct Open {
    start: usize,
    depth: usize,
    in_text: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing but white space so far.
    Start,
    /// An object comes next.
    Object,
    /// A comma or the end of the array comes next.
    Separator,
    /// An object or, in an empty array, its end.
    First,
    /// The array has ended.
    Closed,
}

impl Records {
    pub(super) fn new(layout: Layout, max_bytes: usize) -> Self {
        Self {
            layout,
            max_bytes,
            buffer: vec![],
            base: 0,
            at: 0,
            open: None,
            state: State::Start,
            found: 0,
        }
    }

    /// The bytes of an object that [`Records::next`] found, until it is called again.
    pub(super) fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.buffer[range]
    }

    /// The next object. `more` appends a block to what is there, and gives false at the end.
    pub(super) fn next<E: From<Error>>(
        &mut self,
        mut more: impl FnMut(&mut Vec<u8>) -> std::result::Result<bool, E>,
    ) -> std::result::Result<Option<(Position, Range<usize>)>, E> {
        loop {
            if let Some(range) = self.search()? {
                self.found += 1;
                let byte = self.base + range.start as u64;
                let record = self.found;
                return Ok(Some((Position { record, byte }, range)));
            }
            // What was passed is not needed again.
            let keep = self.open.as_ref().map_or(self.at, |open| open.start);
            self.buffer.drain(..keep);
            self.base += keep as u64;
            self.at -= keep;
            if let Some(open) = &mut self.open {
                open.start = 0;
                if self.buffer.len() > self.max_bytes {
                    return Err(Error::new(
                        ErrorKind::Exhausted,
                        format!(
                            "{} has more than {} bytes; a quote or a brace may be missing, or set \
                             json.max_record_bytes to more",
                            self.position(0),
                            self.max_bytes
                        ),
                    )
                    .into());
                }
            }
            if !more(&mut self.buffer)? {
                self.check_end()?;
                return Ok(None);
            }
        }
    }

    /// Of what begins at `at` in the buffer, the object after those that were found.
    fn position(&self, at: usize) -> Position {
        Position {
            record: self.found + 1,
            byte: self.base + at as u64,
        }
    }

    /// An object that is complete in the buffer.
    fn search(&mut self) -> Result<Option<Range<usize>>> {
        if self.base == 0 && self.at == 0 && self.open.is_none() && !self.skip_mark()? {
            return Ok(None);
        }
        while self.open.is_none() {
            let Some(&byte) = self.buffer.get(self.at) else {
                return Ok(None);
            };
            if !matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
                self.begin(byte)?;
            }
            self.at += 1;
        }
        Ok(self.find_end())
    }

    /// What `byte`, which is no white space, means between objects.
    fn begin(&mut self, byte: u8) -> Result<()> {
        let wrong = |what: &str| {
            Err(Error::invalid(format!(
                "{} begins with {}; {what}",
                self.position(self.at),
                shown(byte)
            )))
        };
        self.state = match (self.layout, self.state, byte) {
            (Layout::Lines, State::Start, b'[') => {
                return Err(Error::invalid(
                    "the file begins with [, so it is an array of objects; set \
                     format.newline_delimited to false",
                ));
            }
            (Layout::Array, State::Start, b'{') => {
                return Err(Error::invalid(
                    "the file begins with {, so it is one object after the other; leave out \
                     format.newline_delimited or set it to true",
                ));
            }
            (Layout::Lines, _, b'{') | (Layout::Array, State::First | State::Object, b'{') => {
                self.open = Some(Open {
                    start: self.at,
                    depth: 1,
                    in_text: false,
                });
                State::Separator
            }
            (Layout::Array, State::Start, b'[') => State::First,
            (Layout::Array, State::Separator, b',') => State::Object,
            (Layout::Array, State::Separator | State::First, b']') => State::Closed,
            (Layout::Array, State::Closed, _) => {
                return Err(Error::invalid(format!(
                    "there is {} behind the end of the array, at byte {}; give one array a file",
                    shown(byte),
                    self.base + self.at as u64
                )));
            }
            (Layout::Array, State::Separator, _) => return wrong("expected a comma or ]"),
            _ => return wrong("expected an object, which begins with {"),
        };
        Ok(())
    }

    /// The open object, if it ends in the buffer.
    fn find_end(&mut self) -> Option<Range<usize>> {
        let open = self.open.as_mut()?;
        while self.at < self.buffer.len() {
            let rest = &self.buffer[self.at..];
            if open.in_text {
                let Some(i) = memchr::memchr2(b'"', b'\\', rest) else {
                    self.at = self.buffer.len();
                    break;
                };
                if rest[i] == b'"' {
                    open.in_text = false;
                    self.at += i + 1;
                } else if i + 1 < rest.len() {
                    self.at += i + 2;
                } else {
                    // What it escapes is still to come.
                    self.at += i;
                    break;
                }
                continue;
            }
            let Some(i) = memchr::memchr3(b'"', b'{', b'}', rest) else {
                self.at = self.buffer.len();
                break;
            };
            self.at += i + 1;
            match rest[i] {
                b'"' => open.in_text = true,
                b'{' => open.depth += 1,
                _ => open.depth -= 1,
            }
            if open.depth == 0 {
                let range = open.start..self.at;
                self.open = None;
                return Some(range);
            }
        }
        None
    }

    /// Passes the mark that some systems put before UTF-8, and refuses those of other encodings. False
    /// if more bytes must tell.
    fn skip_mark(&mut self) -> Result<bool> {
        match &self.buffer[..] {
            [0xEF, 0xBB, 0xBF, ..] => self.at = 3,
            [0xFE, 0xFF, ..] | [0xFF, 0xFE, ..] => {
                return Err(Error::invalid(
                    "the file is UTF-16, and JSON is UTF-8; convert it, for example with iconv -f \
                     UTF-16 -t UTF-8",
                ));
            }
            [0xEF] | [0xEF, 0xBB] | [0xFE] | [0xFF] => return Ok(false),
            _ => {}
        }
        Ok(true)
    }

    fn check_end(&self) -> Result<()> {
        let cut = |what: String| {
            Err(Error::new(
                ErrorKind::Corrupt,
                format!("{what}; the file may not have been written to its end"),
            ))
        };
        match (self.layout, self.state, &self.open) {
            (_, _, Some(open)) => cut(format!(
                "the file ends inside {}",
                self.position(open.start)
            )),
            (Layout::Array, State::First | State::Object | State::Separator, None) => {
                cut(format!("the array is cut off after record {}", self.found))
            }
            // The beginning of a mark.
            (_, State::Start, None) if !self.buffer.is_empty() => {
                cut("the file has no object".to_owned())
            }
            _ => Ok(()),
        }
    }
}

/// A byte as an error may show it.
fn shown(byte: u8) -> String {
    match byte.is_ascii_graphic() {
        true => char::from(byte).to_string(),
        false => format!("the byte 0x{byte:02X}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The objects of `text`, which arrives in blocks of `block` bytes.
    fn read(layout: Layout, text: &[u8], block: usize) -> Result<Vec<(u64, String)>> {
        let mut records = Records::new(layout, 100);
        let mut blocks = text.chunks(block);
        let mut out = vec![];
        while let Some((at, range)) = records.next(|buffer| -> Result<bool> {
            let next = blocks.next();
            buffer.extend_from_slice(next.unwrap_or_default());
            Ok(next.is_some())
        })? {
            let text = String::from_utf8_lossy(records.bytes(range)).into_owned();
            out.push((at.byte, text));
        }
        Ok(out)
    }

    fn check(layout: Layout, text: &str, expected: &[(u64, &str)]) {
        for block in 1..text.len() + 2 {
            let found = read(layout, text.as_bytes(), block).unwrap();
            let found: Vec<(u64, &str)> = found.iter().map(|(n, t)| (*n, t.as_str())).collect();
            assert_eq!(found, expected, "{text} in blocks of {block}");
        }
    }

    #[test]
    fn objects_are_found_in_blocks_of_any_size() {
        check(Layout::Lines, "", &[]);
        check(Layout::Lines, "\n \r\n", &[]);
        check(
            Layout::Lines,
            "{}\n{\"a\":\"}\"}",
            &[(0, "{}"), (3, "{\"a\":\"}\"}")],
        );
        let odd = "{\"a\":\"\\\"}\",\"b\":{\"c\":\"\\\\\"}}";
        check(
            Layout::Lines,
            &format!("{odd} {odd}"),
            &[(0, odd), (27, odd)],
        );
        check(Layout::Lines, "\u{feff}{}", &[(3, "{}")]);
        check(Layout::Array, " [ ] \n", &[]);
        check(
            Layout::Array,
            "[{\"a\":[]} , {}]",
            &[(1, "{\"a\":[]}"), (12, "{}")],
        );
    }

    #[test]
    fn what_is_no_object_is_an_error_that_is_short() {
        let long = format!("[{{\"a\":\"{}\"}}]", "x".repeat(50));
        for (layout, text, part) in [
            (
                Layout::Lines,
                long.as_str(),
                "format.newline_delimited to false",
            ),
            (
                Layout::Array,
                "{\"a\":1}\n",
                "format.newline_delimited or set it to true",
            ),
            (Layout::Lines, "{} 7", "record 2 (byte 3) begins with 7"),
            (Layout::Lines, "{} [1]", "expected an object"),
            (
                Layout::Lines,
                "{\"a\":1}\n{\"b\"",
                "ends inside record 2 (byte 8)",
            ),
            (Layout::Array, "[{},{}", "cut off after record 2"),
            (Layout::Array, "[{},", "cut off after record 1"),
            (Layout::Array, "[", "cut off after record 0"),
            (Layout::Array, "[{},]", "expected an object"),
            (Layout::Array, "[{} {}]", "expected a comma"),
            (Layout::Array, "[{}]{}", "behind the end"),
            (Layout::Array, "[1]", "expected an object"),
            (Layout::Lines, "\u{1f}x", "the byte 0x1F"),
            (Layout::Lines, "é", "the byte 0xC3"),
        ] {
            for block in [1, 3, 1000] {
                let error = read(layout, text.as_bytes(), block)
                    .unwrap_err()
                    .to_string();
                assert!(error.contains(part) && error.len() < 200, "{text}: {error}");
            }
        }
        let error = read(Layout::Lines, b"\xff\xfe{\0", 100)
            .unwrap_err()
            .to_string();
        assert!(error.contains("UTF-16"), "{error}");
        let error = read(Layout::Lines, b"\xef\xbb", 1).unwrap_err().to_string();
        assert!(error.contains("no object"), "{error}");
        let endless = format!("{{\"a\":\"{}", "x".repeat(300));
        let error = read(Layout::Lines, endless.as_bytes(), 10).unwrap_err();
        assert!(
            error.to_string().contains("json.max_record_bytes"),
            "{error}"
        );
    }
}
