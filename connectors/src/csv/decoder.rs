//! Bytes to cells and records, by RFC 4180, whatever the borders of the buffers.
//!
//! Strict where leniency would lose text: a closing quote must be followed by a delimiter or a
//! record's end, and a file must not end inside quotes. That is how an unclosed quote in the
//! middle of a large file shows at the record where it happens, not as one cell of half the file.

use memchr::{memchr, memchr2, memchr3};

use super::dialect::{BlankLines, Dialect};
use crate::csv_limits::{CsvLimits, InvalidUtf8};
use crate::error::{Error, ErrorKind, Result};

/// Takes the cells as they end.
pub(super) trait CellSink {
    /// True if the text of this column is wanted.
    fn wants(&self, column: usize) -> bool;
    /// A cell, and whether it had quotes; none for an empty one without. Only called for wanted
    /// columns.
    fn cell(&mut self, column: usize, text: Option<&str>, quoted: bool) -> Result<()>;
    /// The record is complete and has `columns` cells. False stops the decoder.
    fn record(&mut self, columns: usize, at: Position) -> Result<bool>;
}

/// Where something is in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Position {
    /// 1-based, the header included.
    pub(super) record: u64,
    /// Offset from the start of the (decompressed) file.
    pub(super) byte: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    RecordStart,
    CellStart,
    /// Blanks at the start of a cell, which may be in front of a quote by mistake.
    Blanks,
    Plain,
    Quoted,
    Escaped,
    QuoteInQuoted,
    /// Blanks after a closing quote.
    AfterQuoted,
    /// After a CR outside quotes: an LF belongs to it.
    CarriageReturn,
    Comment,
}

/// The state between buffers.
#[derive(Debug)]
pub(super) struct Decoder {
    dialect: Dialect,
    limits: CsvLimits,
    state: State,
    cell: Vec<u8>,
    cell_bytes: usize,
    quoted: bool,
    column: usize,
    /// Bytes consumed before the current buffer.
    consumed: u64,
    record: Position,
    cell_start: u64,
    stopped: bool,
    seen_anything: bool,
    blank_lines: BlankLines,
    /// Last byte of the buffer before.
    last: u8,
    /// A backslash stood before the quote that closed the cell.
    backslash: bool,
}

impl Decoder {
    pub(super) fn new(dialect: Dialect, limits: CsvLimits) -> Self {
        Self {
            dialect,
            limits,
            state: State::RecordStart,
            cell: vec![],
            cell_bytes: 0,
            quoted: false,
            column: 0,
            consumed: 0,
            record: Position { record: 1, byte: 0 },
            cell_start: 0,
            stopped: false,
            seen_anything: false,
            blank_lines: BlankLines::Skipped,
            last: 0,
            backslash: false,
        }
    }

    /// A decoder for what follows `at`, the start of a record.
    pub(super) fn resume(dialect: Dialect, limits: CsvLimits, at: Position) -> Self {
        Self {
            consumed: at.byte,
            record: at,
            seen_anything: at.byte > 0,
            ..Self::new(dialect, limits)
        }
    }

    /// The decoder for files where an empty line is `lines`.
    pub(super) fn with_blank_lines(self, lines: BlankLines) -> Self {
        Self {
            blank_lines: lines,
            ..self
        }
    }

    /// What an empty line is from here on.
    pub(super) fn blank_lines(&self) -> BlankLines {
        self.blank_lines
    }

    /// Decodes `input`; false once the sink has had enough.
    pub(super) fn feed(&mut self, input: &[u8], sink: &mut impl CellSink) -> Result<bool> {
        let mut at = 0;
        if !self.seen_anything && !input.is_empty() {
            self.seen_anything = true;
            // A byte order mark in the first buffer is not part of the first name.
            at = if input.starts_with(b"\xef\xbb\xbf") {
                3
            } else {
                0
            };
        }
        while at < input.len() && !self.stopped {
            at = self.step(input, at, sink)?;
        }
        self.consumed += at as u64;
        self.last = input.last().copied().unwrap_or(self.last);
        Ok(!self.stopped)
    }

    /// Ends the file: the last record needs no line break, but quotes must be closed.
    pub(super) fn finish(&mut self, sink: &mut impl CellSink) -> Result<()> {
        match self.state {
            _ if self.stopped => Ok(()),
            State::Quoted | State::Escaped => Err(Error::invalid(format!(
                "record {}: the file ends inside quotes that were opened at byte {}; the closing \
                 quote is missing (quotes inside a text must be doubled, or name the character \
                 before them as format.escape)",
                self.record.record, self.cell_start
            ))),
            State::RecordStart | State::CarriageReturn | State::Comment if self.column == 0 => {
                Ok(())
            }
            _ => {
                self.end_cell(sink)?;
                self.end_record(0, sink)
            }
        }
    }

    /// Consumes from `at` on; returns how far.
    fn step(&mut self, input: &[u8], at: usize, sink: &mut impl CellSink) -> Result<usize> {
        let byte = input[at];
        match self.state {
            State::CarriageReturn if byte == b'\n' => {
                self.state = State::RecordStart;
                self.record.byte = self.consumed + at as u64 + 1;
                Ok(at + 1)
            }
            State::RecordStart | State::CarriageReturn => {
                self.record.byte = self.consumed + at as u64;
                if Some(byte) == self.dialect.comment {
                    self.state = State::Comment;
                    return Ok(at + 1);
                }
                self.state = State::CellStart;
                if self.is_end(byte) {
                    if self.blank_lines == BlankLines::Records {
                        self.start_cell(at, false);
                        return self.border(byte, at, sink);
                    }
                    self.state = self.after_end(byte);
                    return Ok(at + 1);
                }
                Ok(at)
            }
            State::Comment => {
                let found = match self.dialect.terminator {
                    Some(end) => memchr(end, &input[at..]),
                    None => memchr2(b'\n', b'\r', &input[at..]),
                };
                let Some(i) = found else {
                    return Ok(input.len());
                };
                self.state = self.after_end(input[at + i]);
                self.record.byte = self.consumed + (at + i) as u64 + 1;
                Ok(at + i + 1)
            }
            State::CellStart if self.dialect.leading == Some(true) && self.is_blank(byte) => {
                self.start_cell(at, false);
                Ok(at + 1)
            }
            State::CellStart if self.dialect.leading.is_none() && self.is_blank(byte) => {
                self.start_cell(at, false);
                self.state = State::Blanks;
                Ok(at)
            }
            State::Blanks if self.is_blank(byte) => {
                self.push(&[byte], sink)?;
                Ok(at + 1)
            }
            State::Blanks if byte == self.dialect.quote => Err(self.blank_before_quote()),
            State::Blanks => {
                self.state = State::Plain;
                Ok(at)
            }
            State::CellStart => {
                self.start_cell(at, byte == self.dialect.quote);
                self.state = if self.quoted {
                    State::Quoted
                } else {
                    State::Plain
                };
                Ok(at + usize::from(self.quoted))
            }
            State::Plain => self.plain(input, at, sink),
            State::Quoted => self.quoted(input, at, sink),
            State::Escaped => {
                // What programs put it before: PostgreSQL and Spark a quote, MySQL line breaks,
                // too. Before anything else it is a character of the text.
                let escape = self.dialect.escape.unwrap_or(byte);
                self.state = State::Quoted;
                if byte == self.dialect.quote || byte == escape || matches!(byte, b'\n' | b'\r') {
                    self.check_newlines(&[byte])?;
                    self.push(&[byte], sink)?;
                    return Ok(at + 1);
                }
                self.push(&[escape], sink)?;
                Ok(at)
            }
            State::QuoteInQuoted if byte == self.dialect.quote && self.dialect.double_quote => {
                self.push(&[byte], sink)?;
                self.state = State::Quoted;
                Ok(at + 1)
            }
            State::QuoteInQuoted | State::AfterQuoted => {
                if byte == self.dialect.delimiter || self.is_end(byte) {
                    return self.border(byte, at, sink);
                }
                if self.dialect.trailing == Some(true) && self.is_blank(byte) {
                    self.state = State::AfterQuoted;
                    return Ok(at + 1);
                }
                Err(self.stray(byte, at))
            }
        }
    }

    fn plain(&mut self, input: &[u8], at: usize, sink: &mut impl CellSink) -> Result<usize> {
        let rest = &input[at..];
        let found = match self.dialect.terminator {
            Some(end) => memchr2(self.dialect.delimiter, end, rest),
            None => memchr3(self.dialect.delimiter, b'\n', b'\r', rest),
        };
        let end = found.unwrap_or(rest.len());
        self.push(&rest[..end], sink)?;
        match found {
            Some(i) => self.border(rest[i], at + i, sink),
            None => Ok(input.len()),
        }
    }

    fn quoted(&mut self, input: &[u8], at: usize, sink: &mut impl CellSink) -> Result<usize> {
        let mut at = at;
        loop {
            let rest = &input[at..];
            let found = match self.dialect.escape {
                Some(escape) => memchr2(self.dialect.quote, escape, rest),
                None => memchr(self.dialect.quote, rest),
            };
            let end = found.unwrap_or(rest.len());
            self.check_newlines(&rest[..end])?;
            let Some(i) = found else {
                self.push(&rest[..end], sink)?;
                return Ok(input.len());
            };
            let is_quote = rest[i] == self.dialect.quote;
            // Dialogue is full of doubled quotes: they are taken without a change of state.
            if is_quote && self.dialect.double_quote && rest.get(i + 1) == Some(&self.dialect.quote)
            {
                self.push(&rest[..=i], sink)?;
                at += i + 2;
                continue;
            }
            self.push(&rest[..end], sink)?;
            self.state = match is_quote {
                true => State::QuoteInQuoted,
                false => State::Escaped,
            };
            if is_quote {
                let before = (at + i).checked_sub(1).map_or(self.last, |i| input[i]);
                self.backslash |= before == b'\\' && self.dialect.escape.is_none();
            }
            return Ok(at + i + 1);
        }
    }

    /// A delimiter or record end at `at`, outside quotes.
    fn border(&mut self, byte: u8, at: usize, sink: &mut impl CellSink) -> Result<usize> {
        self.end_cell(sink)?;
        if byte == self.dialect.delimiter {
            self.state = State::CellStart;
            // A delimiter at the very end of the file is followed by an empty cell.
            self.cell.clear();
            self.cell_bytes = 0;
            self.quoted = false;
            return Ok(at + 1);
        }
        self.end_record(at as u64 + 1, sink)?;
        self.state = self.after_end(byte);
        Ok(at + 1)
    }

    fn after_end(&self, byte: u8) -> State {
        match byte {
            b'\r' if self.dialect.terminator.is_none() => State::CarriageReturn,
            _ => State::RecordStart,
        }
    }

    fn start_cell(&mut self, at: usize, quoted: bool) {
        self.cell.clear();
        self.cell_bytes = 0;
        self.cell_start = self.consumed + at as u64;
        self.quoted = quoted;
    }

    fn is_blank(&self, byte: u8) -> bool {
        matches!(byte, b' ' | b'\t') && byte != self.dialect.delimiter
    }

    /// Fails if `bytes`, inside quotes, hold a line break where none may be.
    fn check_newlines(&self, bytes: &[u8]) -> Result<()> {
        if self.dialect.newlines || memchr2(b'\n', b'\r', bytes).is_none() {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "record {}, cell {}: a line break inside the quotes opened at byte {}, and \
             format.newlines_in_values is false; a closing quote may be missing, or set it to true",
            self.record.record,
            self.column + 1,
            self.cell_start
        )))
    }

    fn is_end(&self, byte: u8) -> bool {
        match self.dialect.terminator {
            Some(end) => byte == end,
            None => byte == b'\n' || byte == b'\r',
        }
    }

    fn push(&mut self, bytes: &[u8], sink: &impl CellSink) -> Result<()> {
        self.cell_bytes += bytes.len();
        if self.cell_bytes > self.limits.max_cell_bytes {
            let cause = match self.quoted {
                true => "a closing quote may be missing",
                false => "a delimiter or line break may be missing",
            };
            return Err(Error::invalid(format!(
                "record {}, cell {}: more than {} bytes since byte {}; {cause}, or raise \
                 csv.max_cell_bytes",
                self.record.record,
                self.column + 1,
                self.limits.max_cell_bytes,
                self.cell_start
            )));
        }
        if sink.wants(self.column) {
            self.cell.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn end_cell(&mut self, sink: &mut impl CellSink) -> Result<()> {
        let column = self.column;
        self.column += 1;
        if !sink.wants(column) {
            return Ok(());
        }
        let mut cell = &self.cell[..];
        if !self.quoted {
            if self.dialect.trailing == Some(true) {
                let ends = cell.iter().rposition(|byte| !self.is_blank(*byte));
                cell = &cell[..ends.map_or(0, |i| i + 1)];
            }
            if cell.is_empty() {
                return sink.cell(column, None, false);
            }
        }
        match std::str::from_utf8(cell) {
            Ok(text) => sink.cell(column, Some(text), self.quoted),
            Err(_) if self.limits.invalid_utf8 == InvalidUtf8::Replace => {
                sink.cell(column, Some(&String::from_utf8_lossy(cell)), self.quoted)
            }
            Err(error) => Err(Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "record {}, cell {}: bytes that are not UTF-8, {} bytes into the cell that \
                     starts at byte {}; name the file's encoding, such as csv.encoding \
                     'windows-1252', or set csv.invalid_utf8 to replace",
                    self.record.record,
                    column + 1,
                    error.valid_up_to(),
                    self.cell_start
                ),
            )),
        }
    }

    /// Blanks before quotes, which then are part of the text: few mean that.
    fn blank_before_quote(&self) -> Error {
        Error::invalid(format!(
            "record {}, cell {}: a blank before a quote (byte {}); set \
             format.ignore_leading_whitespace to true if the quotes are around the text, to false \
             if they are part of it",
            self.record.record,
            self.column + 1,
            self.cell_start
        ))
    }

    fn end_record(&mut self, next: u64, sink: &mut impl CellSink) -> Result<()> {
        let columns = std::mem::take(&mut self.column);
        let more = sink.record(columns, self.record);
        self.stopped = !more.map_err(|e| match self.backslash {
            true => Error::new(e.kind(), format!("{e}{ESCAPE_ADVICE}")).with_source(e),
            false => e,
        })?;
        self.backslash = false;
        if self.blank_lines == BlankLines::AsFirst {
            self.blank_lines = match columns {
                1 => BlankLines::Records,
                _ => BlankLines::Skipped,
            };
        }
        self.record.record += 1;
        self.record.byte = self.consumed + next;
        self.state = State::RecordStart;
        Ok(())
    }

    fn stray(&self, byte: u8, at: usize) -> Error {
        let advice = match (self.dialect.double_quote, self.backslash) {
            (_, true) => ESCAPE_ADVICE,
            (true, false) => {
                "; a quote inside a text must be doubled (or escaped: say the character before it \
                 as format.escape), and an earlier record may lack its closing quote"
            }
            (false, false) => {
                "; format.double_quote is false: a quote inside a text must be escaped"
            }
        };
        Error::invalid(format!(
            "record {}, cell {}: the quotes opened at byte {} are closed before byte {}, but {:?} \
             follows instead of a delimiter or line break{advice}",
            self.record.record,
            self.column + 1,
            self.cell_start,
            self.consumed + at as u64,
            char::from(byte)
        ))
    }
}

/// What to do about a quote that a backslash stands before.
const ESCAPE_ADVICE: &str = "; a backslash stands before a quote: if the file writes quotes so, \
                             set OPTIONS ('format.escape' '\\')";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Collects every cell.
    #[derive(Default)]
    struct All {
        row: Vec<Option<String>>,
        rows: Vec<Vec<Option<String>>>,
        at: Vec<Position>,
    }

    impl CellSink for All {
        fn wants(&self, _: usize) -> bool {
            true
        }

        fn cell(&mut self, column: usize, text: Option<&str>, _: bool) -> Result<()> {
            assert_eq!(column, self.row.len());
            self.row.push(text.map(str::to_owned));
            Ok(())
        }

        fn record(&mut self, columns: usize, at: Position) -> Result<bool> {
            assert_eq!(columns, self.row.len());
            self.rows.push(std::mem::take(&mut self.row));
            self.at.push(at);
            Ok(true)
        }
    }

    fn decode_parts(parts: &[&[u8]], limits: CsvLimits) -> Result<All> {
        let (mut decoder, mut all) = (Decoder::new(Dialect::default(), limits), All::default());
        for part in parts {
            decoder.feed(part, &mut all)?;
        }
        decoder.finish(&mut all)?;
        Ok(all)
    }

    fn decode(text: &str) -> Result<All> {
        decode_parts(&[text.as_bytes()], CsvLimits::default())
    }

    fn rows(text: &str) -> Vec<Vec<Option<String>>> {
        decode(text).unwrap().rows
    }

    fn row(cells: &[Option<&str>]) -> Vec<Option<String>> {
        cells.iter().map(|c| c.map(str::to_owned)).collect()
    }

    #[test]
    fn reads_what_exports_hold() {
        assert_eq!(
            rows("a,b\n1,2\n"),
            [row(&[Some("a"), Some("b")]), row(&[Some("1"), Some("2")])]
        );
        assert_eq!(
            rows("a,\"x\ny \"\"z\"\"\"\r\nb,c"),
            [
                row(&[Some("a"), Some("x\ny \"z\"")]),
                row(&[Some("b"), Some("c")]),
            ]
        );
        assert_eq!(rows(",\"\"\n"), [row(&[None, Some("")])]);
        assert_eq!(rows("a,"), [row(&[Some("a"), None])]);
        assert_eq!(
            rows("\u{feff}a\n\n\r\nb\n"),
            [row(&[Some("a")]), row(&[Some("b")])]
        );
        assert_eq!(rows("a\rb"), [row(&[Some("a")]), row(&[Some("b")])]);
        assert_eq!(rows("it\"s,ok\0\n"), [row(&[Some("it\"s"), Some("ok\0")])]);
        assert!(rows("").is_empty());
    }

    #[test]
    fn positions_are_of_the_record() {
        let all = decode("ab,c\n\"x\ny\",1\r\nz,2").unwrap();
        let at: Vec<(u64, u64)> = all.at.iter().map(|p| (p.record, p.byte)).collect();
        assert_eq!(at, [(1, 0), (2, 5), (3, 14)]);
    }

    #[test]
    fn broken_quotes_are_errors_with_their_place() {
        let error = decode("a,b\n1,\"never closed\n2,x\n")
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.contains("record 2") && error.contains("byte 6"),
            "{error}"
        );
        let error = decode("a,b\n1,\"open\n2,\"text\"\n")
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.contains("record 2") && error.contains("'t' follows"),
            "{error}"
        );
    }

    #[test]
    fn limits_hold() {
        let limits = CsvLimits {
            max_cell_bytes: 4,
            ..CsvLimits::default()
        };
        let error = decode_parts(&[b"a,12", b"345\n"], limits)
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.contains("csv.max_cell_bytes") && error.contains("cell 2"),
            "{error}"
        );
        let error = decode_parts(&[b"a,\xff\n"], CsvLimits::default())
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains("not UTF-8"), "{error}");
        let replace = CsvLimits {
            invalid_utf8: InvalidUtf8::Replace,
            ..CsvLimits::default()
        };
        assert_eq!(
            decode_parts(&[b"a,\xff\n"], replace).unwrap().rows,
            [row(&[Some("a"), Some("\u{fffd}")])]
        );
    }

    /// Writes cells in one of the legal styles.
    fn write(rows: &[Vec<Option<String>>], crlf: bool, quote_all: bool) -> String {
        let mut out = String::new();
        for row in rows {
            let cells: Vec<String> = row
                .iter()
                .map(|cell| match cell {
                    None => String::new(),
                    Some(text) => {
                        let needs = text.is_empty() || text.contains(['"', ',', '\n', '\r']);
                        match needs || quote_all {
                            true => format!("\"{}\"", text.replace('"', "\"\"")),
                            false => text.clone(),
                        }
                    }
                })
                .collect();
            out.push_str(&cells.join(","));
            out.push_str(if crlf { "\r\n" } else { "\n" });
        }
        out
    }

    proptest! {
        #[test]
        fn reads_back_what_was_written_in_any_buffers(
            rows in prop::collection::vec(
                prop::collection::vec(prop::option::of("[a-z\",\n\r é]{0,6}"), 2..4), 0..6),
            crlf in any::<bool>(),
            quote_all in any::<bool>(),
            cut in 1usize..9,
        ) {
            let text = write(&rows, crlf, quote_all);
            let parts: Vec<&[u8]> = text.as_bytes().chunks(cut).collect();
            let all = decode_parts(&parts, CsvLimits::default()).unwrap();
            prop_assert_eq!(all.rows, rows);
        }

        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 1usize..9) {
            let parts: Vec<&[u8]> = bytes.chunks(cut).collect();
            decode_parts(&parts, CsvLimits::default()).ok();
        }
    }
}
