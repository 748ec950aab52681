//! Options of `STORED AS CSV`: our own and the library's, with what is done about each of them.

use datafusion::error::Result as FusionResult;

use super::encoding::Encoding;
use crate::connector::{OptionSpec, joined};
use crate::csv_limits::{CsvLimits, InvalidUtf8};
use crate::error::{Error, ErrorKind, Result};
use crate::options::parse_value;

/// Options of `STORED AS CSV` that are ours; the library's are [`FORMAT_OPTIONS`].
const OWN_OPTIONS: [OptionSpec; 6] = [
    option(
        "csv.batch_bytes",
        "16777216",
        "bytes of text after which a batch is passed on",
    ),
    option("csv.max_cell_bytes", "67108864", "largest cell accepted"),
    option(
        "csv.encoding",
        "utf-8",
        "how texts are stored in the files that are read: utf-8, utf-16 (a byte order mark says \
         which), utf-16le, utf-16be, windows-1252, latin-1; a file in another one than utf-8 is \
         read by one partition, and INSERT is refused",
    ),
    option(
        "csv.invalid_utf8",
        "error",
        "error, or replace to put U+FFFD in place of bytes that are no text of csv.encoding",
    ),
    option(
        "csv.allow_ragged",
        "false",
        "accept records with too few or too many cells",
    ),
    option(
        "csv.escape_formulas",
        "false",
        "a text that a spreadsheet would run as a formula (it begins with =, +, -, @, a tab or a \
         line break) is written with a ' before it; read with this option, the ' is removed again",
    ),
];

/// The library's options, which take effect in our reader and writer as it says here.
const FORMAT_OPTIONS: [OptionSpec; 19] = [
    option(
        "format.has_header",
        "true",
        "the first record names the columns: they are found by name, not by position",
    ),
    option(
        "format.delimiter",
        "a tab in files called .tsv, else a comma",
        "one character between cells; \\t is a tab",
    ),
    option(
        "format.quote",
        "\"",
        "one character around cells that hold special ones",
    ),
    option(
        "format.escape",
        "none",
        "one character inside quotes that makes a quote after it plain, as \\ in \\\"; with it, \
         \\N outside quotes is null",
    ),
    option(
        "format.double_quote",
        "true",
        "a quote inside quotes may be doubled; false: it must be escaped",
    ),
    option(
        "format.terminator",
        "LF, CRLF or CR; LF is written",
        "one character that ends a record",
    ),
    option(
        "format.comment",
        "none",
        "one character: a record that begins with it is skipped",
    ),
    option(
        "format.newlines_in_values",
        "true",
        "false: a line break inside quotes is an error",
    ),
    option(
        "format.truncated_rows",
        "false",
        "records may have too few cells, and files too few columns: they are null",
    ),
    option(
        "format.null_value",
        "none",
        "text without quotes that means null, as well as nothing at all; nulls are written so",
    ),
    option(
        "format.null_regex",
        "none",
        "pattern of whole cells, with or without quotes, that mean null",
    ),
    option(
        "format.ignore_leading_whitespace",
        "blanks are part of a text; before a quote they are an error",
        "true: blanks before a cell are dropped, when read and when written; false: they are kept",
    ),
    option(
        "format.ignore_trailing_whitespace",
        "blanks are part of a text; after a quote they are an error",
        "true: blanks after a cell are dropped, when read and when written",
    ),
    option(
        "format.quote_style",
        "necessary",
        "which cells are written with quotes: necessary, always, non_numeric, never",
    ),
    option(
        "format.compression",
        "as the name ends: .gz, .bz2, .xz, .zst",
        "gzip, bzip2, xz, zstd or uncompressed",
    ),
    option(
        "format.compression_level",
        "that of the compression",
        "how hard is compressed what is written: gzip and xz 0 to 9, bzip2 1 to 9, zstd 1 to 22",
    ),
    option(
        "format.date_format",
        "YYYY-MM-DD",
        "how DATE columns are written and read, such as %d.%m.%Y",
    ),
    option(
        "format.timestamp_format",
        "RFC 3339",
        "how TIMESTAMP columns are written and read",
    ),
    option(
        "format.timestamp_tz_format",
        "RFC 3339",
        "how TIMESTAMP WITH TIME ZONE columns are written and read",
    ),
];

/// The rest of them.
const MORE_FORMAT_OPTIONS: [OptionSpec; 2] = [
    option(
        "format.datetime_format",
        "RFC 3339",
        "how columns of Arrow's type Date64 are written and read",
    ),
    option(
        "format.time_format",
        "hh:mm:ss",
        "how TIME columns are written and read",
    ),
];

/// Options of the library that would change nothing, and why.
const REFUSED: &[(&str, &str)] = &[(
    "format.schema_infer_max_rec",
    "columns are texts unless CREATE EXTERNAL TABLE declares them, so no records are sampled; \
     leave it out and declare the types",
)];

/// Every option that is taken.
pub(crate) const OPTIONS: &[OptionSpec] = &joined::<27>(
    &OWN_OPTIONS,
    &joined::<21>(&FORMAT_OPTIONS, &MORE_FORMAT_OPTIONS),
);

const fn option(key: &'static str, default: &'static str, doc: &'static str) -> OptionSpec {
    OptionSpec {
        key,
        secret: false,
        default,
        doc,
    }
}

/// What our own options say.
#[derive(Debug, Clone, Default)]
pub(super) struct OwnOptions {
    pub(super) limits: CsvLimits,
    pub(super) encoding: Encoding,
    pub(super) escape_formulas: bool,
}

impl OwnOptions {
    /// Takes one of the options that begin with `csv.`.
    pub(super) fn set(&mut self, key: &str, value: &str) -> Result<()> {
        const BYTES: &str = "a number of bytes, at least 1";
        const FLAG: &str = "true or false";
        let limits = &mut self.limits;
        match key {
            "csv.batch_bytes" => limits.batch_bytes = parse_value(key, value, BYTES)?,
            "csv.max_cell_bytes" => limits.max_cell_bytes = parse_value(key, value, BYTES)?,
            "csv.allow_ragged" => limits.allow_ragged = parse_value(key, value, FLAG)?,
            "csv.escape_formulas" => self.escape_formulas = parse_value(key, value, FLAG)?,
            "csv.encoding" => self.encoding = Encoding::parse(value)?,
            "csv.invalid_utf8" => {
                limits.invalid_utf8 = match value {
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
            other => return Err(unknown(other)),
        }
        match self.limits.batch_bytes.min(self.limits.max_cell_bytes) {
            0 => Err(Error::invalid(format!(
                "option {key} is 0; expected {BYTES}"
            ))),
            _ => Ok(()),
        }
    }
}

/// The value of one of the library's options, as the library reads it.
pub(super) fn for_library(key: &str, value: &str) -> FusionResult<String> {
    if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| *refused == key) {
        let message = format!("option {key} has no effect on CSV: {why}");
        return Err(Error::new(ErrorKind::Unsupported, message).into());
    }
    if !OPTIONS.iter().any(|o| o.key == key) {
        return Err(unknown(key).into());
    }
    match key {
        "format.delimiter" | "format.quote" | "format.escape" | "format.terminator"
        | "format.comment" => Ok(character(key, value)?.to_string()),
        _ => Ok(value.to_owned()),
    }
}

fn unknown(key: &str) -> Error {
    let valid: Vec<&str> = OPTIONS.iter().map(|o| o.key).collect();
    Error::unknown("CSV option", key, &valid)
}

/// The byte of a single character, which may be typed with a backslash.
fn character(key: &str, value: &str) -> Result<u8> {
    let hex = value.strip_prefix("\\x").filter(|hex| hex.len() == 2);
    let byte = match (value, value.as_bytes()) {
        ("\\t", _) => Some(b'\t'),
        ("\\n", _) => Some(b'\n'),
        ("\\r", _) => Some(b'\r'),
        ("\\\\", _) => Some(b'\\'),
        // The library would take a digit for the number of a character.
        (_, [byte]) if byte.is_ascii() && !byte.is_ascii_digit() => Some(*byte),
        _ => hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()),
    };
    byte.filter(u8::is_ascii).ok_or_else(|| {
        Error::invalid(format!(
            "option {key} is '{value}'; expected one ASCII character that is no digit, such as \
             ';', '|' or '\\t' for a tab; a separator of several characters cannot be read: \
             convert the file"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_single() {
        let parsed = |value| character("format.delimiter", value).ok();
        for (value, byte) in [
            (";", b';'),
            ("\t", b'\t'),
            ("\\t", b'\t'),
            ("\\", b'\\'),
            ("\\\\", b'\\'),
            ("\\x01", 1),
        ] {
            assert_eq!(parsed(value), Some(byte), "{value:?}");
        }
        for value in ["", "||", "9", "44", "é", "\\x", "\\xff", "\\q"] {
            assert_eq!(parsed(value), None, "{value:?}");
        }
    }

    #[test]
    fn unknown_options_list_the_valid_ones() {
        let error = for_library("format.delimitr", ";").unwrap_err().to_string();
        assert!(
            error.contains("Did you mean 'format.delimiter'?") && error.contains("csv.encoding"),
            "{error}"
        );
        let mut own = OwnOptions::default();
        assert!(own.set("csv.max_cell_bytes", "0").is_err());
        let error = own.set("csv.encoding", "ebcdic").unwrap_err().to_string();
        assert!(error.contains("windows-1252"), "{error}");
    }
}
