//! Options of tables of files, and what those about writing mean together.

use crate::connector::OptionSpec;
use crate::csv;
use crate::error::{Error, Result};
use crate::json;
use crate::options::{TableOptions, parse_value};
use crate::rejects;

const CREATE: OptionSpec = OptionSpec {
    key: "table.create",
    secret: false,
    default: "the files must exist",
    doc: "name of the declared schema (qa_pairs) of a directory that the first INSERT makes",
};
const KEY: OptionSpec = OptionSpec {
    key: "write.key",
    secret: false,
    default: "INSERT appends",
    doc: "column that identifies a row: INSERT adds only rows whose key is not there yet",
};
const APP_ID: OptionSpec = OptionSpec {
    key: "write.app_id",
    secret: false,
    default: "an INSERT that is run again adds its rows again",
    doc: "name of the writing application: together with write.version, an INSERT of a version \
          that is recorded for it adds nothing",
};
const VERSION: OptionSpec = OptionSpec {
    key: "write.version",
    secret: false,
    default: "none",
    doc: "number of this write; needs write.app_id",
};

/// `files.strict`.
pub(super) const STRICT: OptionSpec = OptionSpec {
    key: "files.strict",
    secret: false,
    default: "false: a warning names them, and they are null",
    doc: "a declared column that no file has is an error",
};

/// Keys that are not the file format's.
pub(super) const TABLE_KEYS: &[&str] = &[CREATE.key, KEY.key, APP_ID.key, VERSION.key, STRICT.key];

/// Options of every table of files.
const OPTIONS: &[OptionSpec] = &[CREATE, KEY, APP_ID, VERSION, rejects::OPTION];

/// Options of PARQUET.
pub(crate) const PARQUET_OPTIONS: &[OptionSpec] = &joined::<6>(&[STRICT], OPTIONS);

/// Options of JSON: those of its reader, too.
pub(crate) const JSON_OPTIONS: &[OptionSpec] =
    &joined::<{ json::OPTIONS.len() + 6 }>(json::OPTIONS, PARQUET_OPTIONS);

/// Options of CSV: those of its format, too.
pub(crate) const CSV_OPTIONS: &[OptionSpec] =
    &joined::<{ csv::OPTIONS.len() + OPTIONS.len() }>(csv::OPTIONS, OPTIONS);

/// `first` and `more`, which are `N` together.
const fn joined<const N: usize>(first: &[OptionSpec], more: &[OptionSpec]) -> [OptionSpec; N] {
    assert!(first.len() + more.len() == N);
    let mut all = [CREATE; N];
    let mut i = 0;
    while i < N {
        all[i] = match i < first.len() {
            true => first[i],
            false => more[i - first.len()],
        };
        i += 1;
    }
    all
}

/// How INSERT makes sure that rows are there once.
#[derive(Debug, Clone, Default)]
pub(super) struct WriteOptions {
    pub(super) key: Option<String>,
    pub(super) recorded: Option<Recorded>,
}

/// A write that is recorded, so that it can be told from the next one.
#[derive(Debug, Clone)]
pub(super) struct Recorded {
    pub(super) app_id: String,
    pub(super) version: u64,
}

impl WriteOptions {
    pub(super) fn new(options: &TableOptions) -> Result<Self> {
        let recorded = match (options.get("write.app_id"), options.get("write.version")) {
            (Some(app_id), Some(version)) => Some(Recorded {
                app_id: app_id.to_owned(),
                version: parse_value("write.version", version, "a number, 0 or more")?,
            }),
            (None, None) => None,
            _ => {
                return Err(Error::invalid(
                    "options write.app_id and write.version only work together; give both, or \
                     write.key alone",
                ));
            }
        };
        Ok(Self {
            key: options.get("write.key").map(str::to_owned),
            recorded,
        })
    }

    /// True if a write must not be done twice.
    pub(super) fn once(&self) -> bool {
        self.key.is_some() || self.recorded.is_some()
    }
}
