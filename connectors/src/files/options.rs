//! Options of tables of files.

use crate::connector::OptionSpec;
use crate::csv;
use crate::rejects;
use crate::write::{APP_ID, CREATE, KEY, VERSION};

/// Keys that are not the file format's.
pub(super) const WRITE_KEYS: &[&str] = &[CREATE.key, KEY.key, APP_ID.key, VERSION.key];

/// Options of PARQUET and JSON.
pub(crate) const OPTIONS: &[OptionSpec] = &[CREATE, KEY, APP_ID, VERSION, rejects::OPTION];

/// Options of CSV: those of its reader, too.
pub(crate) const CSV_OPTIONS: &[OptionSpec] = &{
    assert!(csv::OPTIONS.len() == 4);
    [
        csv::OPTIONS[0],
        csv::OPTIONS[1],
        csv::OPTIONS[2],
        csv::OPTIONS[3],
        CREATE,
        KEY,
        APP_ID,
        VERSION,
        rejects::OPTION,
    ]
};
