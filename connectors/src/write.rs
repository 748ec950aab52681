//! What every INSERT obeys, whatever the target: its options, its key, what a version means, and
//! what is refused.
//!
//! A version is a number that an application gives to one write. The target records the highest
//! one: an equal version was written before and adds nothing, which is said; a lower one is an
//! error, because nobody can tell whether it is there. So a backfill that commits late is noticed,
//! never lost.

use std::fmt;
use std::time::Duration;

use datafusion::arrow::datatypes::Schema;
use datafusion::logical_expr::CreateExternalTable;

use crate::connector::OptionSpec;
use crate::error::{Error, ErrorKind, Result};
use crate::evolve;
use crate::options::{TableOptions, parse_value};

/// The option that names the schema of a table that may be missing.
pub(crate) const CREATE: OptionSpec = OptionSpec {
    key: "table.create",
    secret: false,
    default: "the table must exist",
    doc: "name of the declared schema with which a missing table is created (qa_pairs)",
};
/// The option that says when a staging table is taken for that of a dead run.
pub(crate) const EXPIRE: OptionSpec = OptionSpec {
    key: "staging.expire_hours",
    secret: false,
    default: "72",
    doc: "hours without a sign of life after which INSERT removes the staging table that a killed \
          program left, where it does not end with its session",
};
/// The option that names the key.
pub(crate) const KEY: OptionSpec = OptionSpec {
    key: "write.key",
    secret: false,
    default: "INSERT appends",
    doc: "column that identifies a row: INSERT adds only rows whose key is not there yet; two rows of \
          one INSERT with one key must be equal, and are one row then",
};
/// The option that names who writes.
pub(crate) const APP_ID: OptionSpec = OptionSpec {
    key: "write.app_id",
    secret: false,
    default: "an INSERT that is run again adds its rows again",
    doc: "name of the writing application: together with write.version, an INSERT of the version \
          that is recorded for it adds nothing",
};
/// The option that numbers a write.
pub(crate) const VERSION: OptionSpec = OptionSpec {
    key: "write.version",
    secret: false,
    default: "none",
    doc: "number of this write, not lower than the last one recorded for write.app_id",
};

/// The highest `write.version`. A number that nothing can follow, such as the largest of its type,
/// would end its application's writes for good.
const MAX_VERSION: i64 = 999_999_999_999_999_999;
/// What [`EXPIRE`] is by default.
const EXPIRE_AFTER: Duration = Duration::from_secs(72 * 3600);

/// How INSERT makes sure that rows are there once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WriteOptions {
    /// The column that identifies a row.
    pub(crate) key: Option<String>,
    /// The write, where it is numbered.
    pub(crate) recorded: Option<Recorded>,
    /// Declared columns that the table lacks are added to it.
    pub(crate) evolve: bool,
    /// Silence after which a run is taken for dead.
    pub(crate) expire: Duration,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self {
            key: None,
            recorded: None,
            evolve: false,
            expire: EXPIRE_AFTER,
        }
    }
}

/// A write that is recorded in the target, so that it is known when it comes again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recorded {
    /// Who writes.
    pub(crate) app_id: String,
    /// Not negative.
    pub(crate) version: i64,
}

impl WriteOptions {
    /// From `write.*` and `table.evolve`.
    ///
    /// # Errors
    /// Options that do not go together, or a version that is no number.
    pub(crate) fn parse(options: &TableOptions) -> Result<Self> {
        let recorded = match (options.get(APP_ID.key), options.get(VERSION.key)) {
            (None, None) => None,
            (Some(app_id), Some(version)) => Some(Recorded {
                app_id: app_id.to_owned(),
                version: number(version)?,
            }),
            _ => {
                return Err(Error::invalid(
                    "options write.app_id and write.version go together; give both, or write.key \
                     alone",
                ));
            }
        };
        Ok(Self {
            key: options.get(KEY.key).map(str::to_owned),
            recorded,
            expire: match options.get(EXPIRE.key) {
                None => EXPIRE_AFTER,
                Some(hours) => expire(hours)?,
            },
            evolve: evolve::asked_for(options)?,
        })
    }

    /// # Errors
    /// A key that is no column of `schema`, or of a type whose values are not told apart by their
    /// texts: 0.0 and -0.0 are equal, a NaN equals nothing, a list may be shown as another.
    pub(crate) fn check_key(&self, schema: &Schema) -> Result<()> {
        let Some(key) = &self.key else {
            return Ok(());
        };
        let column = schema.field(key_position(key, schema)?);
        match column.data_type() {
            kind if kind.is_floating() || kind.is_nested() => Err(Error::invalid(format!(
                "option {} names {key}, which is {kind}; such a value identifies no row: choose a \
                 column of texts, integers, decimals or dates",
                KEY.key
            ))),
            _ => Ok(()),
        }
    }
}

/// As EXPLAIN shows them, after the target.
impl fmt::Display for WriteOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(key) = &self.key {
            write!(f, ", {}={key}", KEY.key)?;
        }
        if let Some(Recorded { app_id, version }) = &self.recorded {
            let (app, number) = (APP_ID.key, VERSION.key);
            write!(f, ", {app}={app_id}, {number}={version}")?;
        }
        Ok(())
    }
}

impl Recorded {
    /// True if this write was done before; `latest` is the highest version that the table at
    /// `location` has recorded for the application.
    ///
    /// # Errors
    /// A version lower than that.
    pub(crate) fn is_done(&self, latest: Option<i64>, location: &str) -> Result<bool> {
        let Self { app_id, version } = self;
        let next = latest.and_then(|latest| latest.checked_add(1));
        let next = next.filter(|next| *next <= MAX_VERSION);
        let advice = next.map_or(String::new(), |next| format!("as version {next}, or "));
        match latest {
            Some(latest) if latest > *version => Err(Error::invalid(format!(
                "write.version is {version}, but the table at '{location}' has recorded version \
                 {latest} of write.app_id '{app_id}' already, and with it nobody can tell whether \
                 {version} was written; look, then write these rows {advice}under a write.app_id of \
                 their own, as a backfill should be",
            ))),
            latest => Ok(latest == Some(*version)),
        }
    }

    /// What to say of a write that was done before.
    pub(crate) fn done_before(&self, location: &str) -> String {
        let Self { app_id, version } = self;
        format!(
            "version {version} of '{app_id}' is in the table at '{location}' already: this INSERT \
             adds nothing"
        )
    }
}

/// The position of the key's column.
///
/// # Errors
/// A key that is no column of `schema`.
pub(crate) fn key_position(key: &str, schema: &Schema) -> Result<usize> {
    let fields = schema.fields().iter();
    let names: Vec<&str> = fields.map(|f| f.name().as_str()).collect();
    let found = names.iter().position(|name| *name == key);
    found.ok_or_else(|| Error::unknown("column in write.key", key, &names))
}

/// A row that could not be found again.
pub(crate) fn no_key(key: &str) -> Error {
    Error::invalid(format!(
        "a row has no {key}, which write.key needs; filter such rows out or choose another key"
    ))
}

/// REPLACE INTO, which no target takes: `target` is a kind of table, as in "a Delta table".
pub(crate) fn no_replace(target: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!(
            "REPLACE INTO {target} is not supported; with the option write.key, INSERT leaves rows \
             whose key is already there as they are"
        ),
    )
}

/// The LOCATION of a table that has one.
///
/// # Errors
/// None, or several.
pub(crate) fn one_location(cmd: &CreateExternalTable) -> Result<&str> {
    match &cmd.locations[..] {
        [location] => Ok(location),
        _ => Err(Error::invalid(format!(
            "{} table {} needs exactly one LOCATION",
            cmd.file_type, cmd.name
        ))),
    }
}

fn expire(hours: &str) -> Result<Duration> {
    let expected = "a whole number of hours from 1 to 8760, which is a year";
    match parse_value(EXPIRE.key, hours, expected)? {
        n @ 1..=8760 => Ok(Duration::from_secs(n * 3600)),
        n => Err(Error::invalid(format!(
            "option {} is {n}; expected {expected}",
            EXPIRE.key
        ))),
    }
}

fn number(version: &str) -> Result<i64> {
    let expected = "a whole number from 0 to 999999999999999999, so that there is one after it";
    match parse_value(VERSION.key, version, expected)? {
        n @ 0..=MAX_VERSION => Ok(n),
        n => Err(Error::invalid(format!(
            "option {} is {n}; expected {expected}",
            VERSION.key
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::datatypes::{DataType, Field};

    use super::*;

    fn parse(pairs: &[(&'static str, &str)]) -> Result<WriteOptions> {
        let mut options = TableOptions::default();
        for (key, value) in pairs {
            options.own.insert(key, (*value).to_owned());
        }
        WriteOptions::parse(&options)
    }

    #[test]
    fn options_that_do_not_fit_together_are_errors() {
        let check = |pairs: &[(&'static str, &str)], expected: &str| {
            let error = parse(pairs).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        assert_eq!(parse(&[]).unwrap(), WriteOptions::default());
        let both = parse(&[("write.app_id", "a"), ("write.version", "7")]).unwrap();
        assert_eq!(both.to_string(), ", write.app_id=a, write.version=7");
        let evolve = [
            ("table.create", "qa_pairs"),
            ("table.evolve", "add_columns"),
        ];
        assert!(parse(&evolve).unwrap().evolve);
        check(&[("table.evolve", "true")], "Valid: add_columns");
        let hours = |h: &str| parse(&[("staging.expire_hours", h)]).map(|w| w.expire.as_secs());
        assert_eq!(hours("2").unwrap(), 7200);
        for wrong in ["0", "-1", "8761", "x"] {
            let error = hours(wrong).unwrap_err().to_string();
            assert!(error.contains("from 1 to 8760"), "{error}");
        }
        check(&[("write.app_id", "a")], "go together");
        check(&[("write.version", "7")], "go together");
        for wrong in [
            "x",
            "-1",
            "1.5",
            "9223372036854775807",
            "9223372036854775808",
        ] {
            let pairs = [("write.app_id", "a"), ("write.version", wrong)];
            check(
                &pairs,
                "expected a whole number from 0 to 999999999999999999",
            );
        }
        let last = [
            ("write.app_id", "a"),
            ("write.version", "999999999999999999"),
        ];
        assert!(parse(&last).is_ok());
    }

    #[test]
    fn a_version_is_written_once_and_never_after_a_later_one() {
        let write = Recorded {
            app_id: "job".into(),
            version: 5,
        };
        for (latest, done) in [
            (None, false),
            (Some(0), false),
            (Some(4), false),
            (Some(5), true),
        ] {
            assert_eq!(write.is_done(latest, "t").unwrap(), done, "{latest:?}");
        }
        let error = write.is_done(Some(7), "t").unwrap_err().to_string();
        for part in [
            "write.version is 5",
            "recorded version 7",
            "'job'",
            "version 8",
        ] {
            assert!(error.contains(part), "{error}");
        }
        // What another program may have recorded leaves no higher one.
        for latest in [i64::MAX, MAX_VERSION] {
            let error = write.is_done(Some(latest), "t").unwrap_err().to_string();
            assert!(
                error.contains("write these rows under a write.app_id of"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_table_has_one_location() {
        let create = |locations: &[&str]| {
            let mut cmd = CreateExternalTable::builder(
                datafusion::common::TableReference::bare("qa"),
                String::new(),
                "DELTA".to_owned(),
                Arc::new(datafusion::common::DFSchema::empty()),
            )
            .build();
            cmd.locations = locations.iter().map(|l| (*l).to_owned()).collect();
            one_location(&cmd)
                .map(str::to_owned)
                .map_err(|e| e.to_string())
        };
        assert_eq!(create(&["x/y"]).unwrap(), "x/y");
        for wrong in [&[][..], &["x", "y"]] {
            let error = create(wrong).unwrap_err();
            assert_eq!(error, "DELTA table qa needs exactly one LOCATION");
        }
    }

    #[test]
    fn a_key_is_a_column() {
        let schema = Schema::new(vec![
            Field::new("id", DataType::Int64, true),
            Field::new("qa_id", DataType::Utf8, true),
        ]);
        assert_eq!(key_position("qa_id", &schema).unwrap(), 1);
        let keyed = |kind: DataType| {
            let schema = Schema::new(vec![Field::new("id", kind, true)]);
            parse(&[("write.key", "id")]).unwrap().check_key(&schema)
        };
        let list = DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)));
        for kind in [
            DataType::Float64,
            DataType::Float32,
            DataType::Float16,
            list,
        ] {
            let error = keyed(kind).unwrap_err().to_string();
            assert!(error.contains("identifies no row"), "{error}");
        }
        for kind in [
            DataType::Int64,
            DataType::Utf8View,
            DataType::Date32,
            DataType::Decimal128(38, 3),
        ] {
            keyed(kind).unwrap();
        }
        let error = key_position("qa", &schema).unwrap_err().to_string();
        assert!(error.contains("Did you mean 'qa_id'?"), "{error}");
    }
}
