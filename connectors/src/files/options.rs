//! Options of tables of files.

use crate::connector::OptionSpec;
use crate::csv;
use crate::rejects;
use crate::write::{APP_ID, CREATE, KEY, VERSION};

/// Keys that are not the file format's.
pub(super) const WRITE_KEYS: &[&str] = &[CREATE.key, KEY.key, APP_ID.key, VERSION.key];

/// Options of PARQUET and JSON.
pub(crate) const OPTIONS: &[OptionSpec] = &[CREATE, KEY, APP_ID, VERSION, rejects::OPTION];

/// Options of CSV: those of its format, too.
pub(crate) const CSV_OPTIONS: &[OptionSpec] = &{
    let mut all = [CREATE; csv::OPTIONS.len() + OPTIONS.len()];
    let mut i = 0;
    while i < all.len() {
        all[i] = match i < csv::OPTIONS.len() {
            true => csv::OPTIONS[i],
            false => OPTIONS[i - csv::OPTIONS.len()],
        };
        i += 1;
    }
    all
};
