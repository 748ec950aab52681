//! Limits of the CSV reader, which a host or a table sets.

/// Limits of the reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CsvLimits {
    /// Bytes of text after which a batch is passed on, whatever its number of rows.
    pub batch_bytes: usize,
    /// Largest cell accepted, bytes: an unclosed quote would otherwise swallow the file.
    pub max_cell_bytes: usize,
    /// What to do with bytes that are not UTF-8.
    pub invalid_utf8: InvalidUtf8,
    /// Accept records with too few cells (null) or too many (dropped).
    pub allow_ragged: bool,
}

impl Default for CsvLimits {
    fn default() -> Self {
        Self {
            batch_bytes: 16 << 20,
            max_cell_bytes: 64 << 20,
            invalid_utf8: InvalidUtf8::Error,
            allow_ragged: false,
        }
    }
}

/// What to do with bytes that are not UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidUtf8 {
    /// Stop and say where they are.
    Error,
    /// Put U+FFFD in their place.
    Replace,
}
