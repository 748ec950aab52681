//! CSV as a giant export of documents is: quoted text with line breaks, cells of megabytes.
//!
//! Globs, directories, partitions and writing stay DataFusion's; only the reader is ours:
//! [`decoder`] (bytes to records, by RFC 4180), [`batches`] (records to Arrow, bounded by bytes),
//! [`source`] (files to streams), [`split`] and [`pieces`] (one file to several streams),
//! [`format`] (the parts joined).
//!
//! Columns are text (Utf8View) unless CREATE EXTERNAL TABLE declares types: no schema is guessed
//! from megabytes of prose. An empty cell without quotes is null, `""` is an empty text.

mod batches;
mod blocks;
mod decoder;
mod format;
mod header;
mod pieces;
mod source;
mod split;

use crate::connector::OptionSpec;
use crate::error::{Error, Result};
use crate::options::parse_value;

pub use format::CsvTextFormatFactory;

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

/// Options of `STORED AS CSV` beside DataFusion's own `format.*` keys.
pub(crate) const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        key: "csv.batch_bytes",
        secret: false,
        default: "16777216",
        doc: "bytes of text after which a batch is passed on",
    },
    OptionSpec {
        key: "csv.max_cell_bytes",
        secret: false,
        default: "67108864",
        doc: "largest cell accepted",
    },
    OptionSpec {
        key: "csv.invalid_utf8",
        secret: false,
        default: "error",
        doc: "error, or replace to put U+FFFD in place of bytes that are not UTF-8",
    },
    OptionSpec {
        key: "csv.allow_ragged",
        secret: false,
        default: "false",
        doc: "accept records with too few or too many cells",
    },
];

impl CsvLimits {
    /// Takes one of [`OPTIONS`].
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Result<()> {
        const BYTES: &str = "a number of bytes, at least 1";
        match key {
            "csv.batch_bytes" => self.batch_bytes = parse_value(key, value, BYTES)?,
            "csv.max_cell_bytes" => self.max_cell_bytes = parse_value(key, value, BYTES)?,
            "csv.allow_ragged" => self.allow_ragged = parse_value(key, value, "true or false")?,
            "csv.invalid_utf8" => {
                self.invalid_utf8 = match value {
                    "error" => InvalidUtf8::Error,
                    "replace" => InvalidUtf8::Replace,
                    other => {
                        return Err(Error::unknown(
                            "value of csv.invalid_utf8",
                            other,
                            &["error", "replace"],
                        ));
                    }
                };
            }
            other => {
                let valid: Vec<&str> = OPTIONS.iter().map(|o| o.key).collect();
                return Err(Error::unknown("CSV option", other, &valid));
            }
        }
        match self.batch_bytes.min(self.max_cell_bytes) {
            0 => Err(Error::invalid(format!(
                "option {key} is 0; expected {BYTES}"
            ))),
            _ => Ok(()),
        }
    }
}
