//! Options of tables of files.

use crate::connector::{OptionSpec, joined};
use crate::csv;
use crate::evolve::EVOLVE;
use crate::json;
use crate::rejects;
use crate::write::{APP_ID, CREATE, KEY, VERSION};

/// `files.strict`.
pub(super) const STRICT: OptionSpec = OptionSpec {
    key: "files.strict",
    secret: false,
    default: "false: a warning names them, and they are null",
    doc: "a declared column that no file has is an error",
};

/// Keys that are not the file format's.
pub(super) const TABLE_KEYS: &[&str] = &[
    CREATE.key,
    EVOLVE.key,
    KEY.key,
    APP_ID.key,
    VERSION.key,
    STRICT.key,
];

/// Options of every table of files.
const OPTIONS: &[OptionSpec] = &[CREATE, EVOLVE, KEY, APP_ID, VERSION, rejects::OPTION];

/// Options of PARQUET.
pub(crate) const PARQUET_OPTIONS: &[OptionSpec] = &joined::<7>(&[STRICT], OPTIONS);

/// Options of JSON: those of its reader, too.
pub(crate) const JSON_OPTIONS: &[OptionSpec] =
    &joined::<{ json::OPTIONS.len() + 7 }>(json::OPTIONS, PARQUET_OPTIONS);

/// Options of CSV: those of its format, too.
pub(crate) const CSV_OPTIONS: &[OptionSpec] =
    &joined::<{ csv::OPTIONS.len() + OPTIONS.len() }>(csv::OPTIONS, OPTIONS);
