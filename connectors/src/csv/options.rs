//! Options of the CSV reader.

use crate::connector::OptionSpec;
use crate::csv_limits::{CsvLimits, InvalidUtf8};
use crate::error::{Error, Result};
use crate::options::parse_value;

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
