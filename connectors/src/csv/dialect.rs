//! The special bytes of a file, and what is left to interpretation in it.

/// The special bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dialect {
    pub(super) delimiter: u8,
    pub(super) quote: u8,
    /// Makes the next byte inside quotes plain.
    pub(super) escape: Option<u8>,
    /// Ends a record in place of LF or CRLF.
    pub(super) terminator: Option<u8>,
    /// A record that starts with it is skipped.
    pub(super) comment: Option<u8>,
    /// Two quotes inside quotes are one.
    pub(super) double_quote: bool,
    /// Quotes may hold line breaks.
    pub(super) newlines: bool,
    /// Blanks before a cell are dropped; none: they are text, but must not stand before a quote.
    pub(super) leading: Option<bool>,
    /// Blanks after a cell are dropped; none: as before a cell.
    pub(super) trailing: Option<bool>,
}

impl Default for Dialect {
    fn default() -> Self {
        Self {
            delimiter: b',',
            quote: b'"',
            escape: None,
            terminator: None,
            comment: None,
            double_quote: true,
            newlines: true,
            leading: None,
            trailing: None,
        }
    }
}

/// What an empty line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BlankLines {
    /// Nothing.
    Skipped,
    /// A record whose only cell is null.
    Records,
    /// The first record says: a record if it has one cell.
    AsFirst,
}
