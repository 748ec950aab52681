//! Options of Delta tables.

use crate::connector::OptionSpec;
use crate::evolve::EVOLVE;
use crate::rejects;
use crate::write::{APP_ID, CREATE, KEY, VERSION};

/// The keys of OPTIONS.
pub(crate) const OPTIONS: &[OptionSpec] = &[
    CREATE,
    EVOLVE,
    KEY,
    APP_ID,
    VERSION,
    rejects::OPTION,
    OptionSpec {
        key: "delta.version",
        secret: false,
        default: "the latest, per statement",
        doc: "version to read",
    },
    OptionSpec {
        key: "delta.timestamp",
        secret: false,
        default: "the latest, per statement",
        doc: "RFC 3339 time whose version to read",
    },
];
