//! Options of the JSON reader.

use crate::connector::OptionSpec;
use crate::error::{Error, Result};
use crate::options::parse_value;

/// What to do with keys that are no columns.
pub(crate) const UNKNOWN_KEYS: &str = "json.unknown_keys";

/// Options of `STORED AS JSON` beside DataFusion's own `format.*` keys.
pub(crate) const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        key: "json.batch_bytes",
        secret: false,
        default: "16777216",
        doc: "bytes of JSON after which a batch is passed on",
    },
    OptionSpec {
        key: "json.max_record_bytes",
        secret: false,
        default: "268435456",
        doc: "largest object accepted",
    },
    OptionSpec {
        key: UNKNOWN_KEYS,
        secret: false,
        default: "error; ignore where the columns are declared",
        doc: "what to do with a key that is no column: error or ignore",
    },
];

/// Limits of the reader.
#[derive(Debug, Clone)]
pub(super) struct JsonLimits {
    pub(super) batch_bytes: usize,
    /// An unclosed quote would otherwise swallow the file.
    pub(super) max_record_bytes: usize,
    pub(super) ignore_unknown: bool,
}

impl Default for JsonLimits {
    fn default() -> Self {
        Self {
            batch_bytes: 16 << 20,
            max_record_bytes: 256 << 20,
            ignore_unknown: false,
        }
    }
}

impl JsonLimits {
    /// Takes one of [`OPTIONS`].
    pub(super) fn set(&mut self, key: &str, value: &str) -> Result<()> {
        const BYTES: &str = "a number of bytes, at least 1";
        match key {
            "json.batch_bytes" => self.batch_bytes = parse_value(key, value, BYTES)?,
            "json.max_record_bytes" => self.max_record_bytes = parse_value(key, value, BYTES)?,
            UNKNOWN_KEYS => {
                self.ignore_unknown = match value {
                    "error" => false,
                    "ignore" => true,
                    other => {
                        let what = format!("value of {UNKNOWN_KEYS}");
                        return Err(Error::unknown(&what, other, &["error", "ignore"]));
                    }
                }
            }
            other => {
                let valid: Vec<&str> = OPTIONS.iter().map(|o| o.key).collect();
                return Err(Error::unknown("JSON option", other, &valid));
            }
        }
        match self.batch_bytes.min(self.max_record_bytes) {
            0 => Err(Error::invalid(format!(
                "option {key} is 0; expected {BYTES}"
            ))),
            _ => Ok(()),
        }
    }
}
