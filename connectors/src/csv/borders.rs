//! Where the byte ranges of a file are to be cut: at the first record that begins in each.

use super::decoder::{CellSink, Position};
use super::header::{Header, cell_name};

/// Notes the first record at or after each range's start, and keeps no text but the header's.
pub(super) struct Borders {
    starts: Vec<u64>,
    /// The records, as far as they were seen; the first begins the file.
    pub(super) found: Vec<Position>,
    /// The cells of the first record, if it is one of names.
    pub(super) header: Header,
    in_header: bool,
}

impl Borders {
    pub(super) fn new(starts: Vec<u64>, has_header: bool) -> Self {
        Self {
            starts,
            found: vec![Position { record: 1, byte: 0 }],
            header: vec![],
            in_header: has_header,
        }
    }

    /// No record begins any more: the remaining pieces are empty.
    pub(super) fn end(&mut self, bytes: u64) {
        let last = Position {
            record: 0,
            byte: bytes,
        };
        self.found.resize(self.starts.len(), last);
    }
}

impl CellSink for Borders {
    fn wants(&self, _: usize) -> bool {
        self.in_header
    }

    fn cell(&mut self, _: usize, text: Option<&str>, _: bool) -> crate::error::Result<()> {
        self.header.push(cell_name(text));
        Ok(())
    }

    fn record(&mut self, _: usize, at: Position) -> crate::error::Result<bool> {
        // No piece begins with the names, however much stands before them.
        if std::mem::take(&mut self.in_header) {
            return Ok(true);
        }
        while self.found.len() < self.starts.len() && self.starts[self.found.len()] <= at.byte {
            self.found.push(at);
        }
        Ok(true)
    }
}
