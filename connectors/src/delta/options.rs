//! Options of Delta tables, and what those about writing mean together.

use crate::connector::OptionSpec;
use crate::error::{Error, Result};
use crate::evolve::EVOLVE;
use crate::options::{TableOptions, parse_value};
use crate::rejects;

/// The keys of OPTIONS.
pub(crate) const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        key: "table.create",
        secret: false,
        default: "the table must exist",
        doc: "name of the declared schema with which a missing table is created (qa_pairs)",
    },
    EVOLVE,
    OptionSpec {
        key: "write.key",
        secret: false,
        default: "INSERT appends",
        doc: "column that identifies a row: INSERT adds only rows whose key is not there yet",
    },
    OptionSpec {
        key: "write.app_id",
        secret: false,
        default: "an INSERT that is run again adds its rows again",
        doc: "name of the writing application: together with write.version, an INSERT of a \
              version that is recorded for it adds nothing",
    },
    OptionSpec {
        key: "write.version",
        secret: false,
        default: "none",
        doc: "number of this write, greater than those before it; needs write.app_id",
    },
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

/// How INSERT makes sure that rows are there once.
#[derive(Debug, Clone, Default)]
pub(crate) struct WriteOptions {
    pub(super) key: Option<String>,
    pub(super) transaction: Option<Recorded>,
}

/// An application transaction: recorded with the rows of an INSERT, in the same commit.
#[derive(Debug, Clone)]
pub(super) struct Recorded {
    pub(super) app_id: String,
    pub(super) version: i64,
}

impl WriteOptions {
    /// From `write.*`; what does not fit together is an error.
    pub(crate) fn parse(options: &TableOptions) -> Result<Self> {
        let key = options.get("write.key").map(str::to_owned);
        let transaction = match (options.get("write.app_id"), options.get("write.version")) {
            (None, None) => None,
            (Some(app_id), Some(version)) => Some(Recorded {
                app_id: app_id.to_owned(),
                version: parse_value("write.version", version, "a whole number")?,
            }),
            _ => {
                return Err(Error::invalid(
                    "options write.app_id and write.version go together; give both or neither",
                ));
            }
        };
        Ok(Self { key, transaction })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::CONNECTORS;

    fn check(pairs: &[(&str, &str)], error: Option<&str>) {
        let connector = CONNECTORS.iter().find(|c| c.name == "DELTA").unwrap();
        let given = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into()));
        let options = TableOptions::parse(connector, "t", &given.collect()).unwrap();
        match (WriteOptions::parse(&options), error) {
            (Ok(_), None) => {}
            (Err(found), Some(part)) => assert!(found.to_string().contains(part), "{found}"),
            (found, _) => panic!("{pairs:?}: {found:?}"),
        }
    }

    #[test]
    fn write_options_that_do_not_fit_together_are_errors() {
        check(&[], None);
        check(&[("write.app_id", "a"), ("write.version", "7")], None);
        check(&[("write.app_id", "a")], Some("go together"));
        check(&[("write.version", "7")], Some("go together"));
        check(
            &[("write.app_id", "a"), ("write.version", "x")],
            Some("expected a whole number"),
        );
    }
}
