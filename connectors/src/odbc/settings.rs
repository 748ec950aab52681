//! What the options of one ODBC table say: the connection string with our additions, the
//! timeouts, the dialect. It never prints the connection string.

use std::fmt;

use odbc_api::environment;

use super::connection_string::{additions, attribute_value, attributes};
use crate::error::{Error, Result};
use crate::options::{TableOptions, parse_value};
use crate::secret::Secret;
use crate::sql::dialect::{
    DATABRICKS, MYSQL, ORACLE, POSTGRESQL, SNOWFLAKE, SQL_SERVER, SQLITE, STANDARD, SqlDialect,
};

/// Seconds to wait for a connection if the options say nothing: long enough for a warehouse that
/// has to start.
const LOGIN_TIMEOUT_SECS: u32 = 30;

/// Attributes of a connection string that may be shown in errors.
const PLAIN_ATTRIBUTES: &[&str] = &[
    "driver",
    "dsn",
    "server",
    "servername",
    "host",
    "hostname",
    "port",
    "database",
    "db",
    "uid",
    "user",
    "username",
    "schema",
    "warehouse",
    "role",
    "sslmode",
    "ssl",
];

/// A value this short is likely to occur in any message, so it is not blanked out in errors.
const MIN_SECRET_CHARS: usize = 4;

/// One table's options, checked.
#[derive(Clone)]
pub(super) struct Settings {
    connection: Secret,
    /// Texts that no error may show.
    secrets: Vec<Secret>,
    /// Seconds to wait for a connection; 0 waits for ever.
    pub(super) login_timeout_secs: u32,
    /// Seconds that the system may take for a statement.
    pub(super) query_timeout_secs: Option<usize>,
    /// The dialect that the user named.
    pub(super) dialect: Option<&'static SqlDialect>,
    /// Never fetch arrays of rows.
    pub(super) row_by_row: bool,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").finish_non_exhaustive()
    }
}

const DIALECTS: &[(&str, &SqlDialect)] = &[
    ("postgresql", &POSTGRESQL),
    ("sql_server", &SQL_SERVER),
    ("mysql", &MYSQL),
    ("oracle", &ORACLE),
    ("sqlite", &SQLITE),
    ("snowflake", &SNOWFLAKE),
    ("databricks", &DATABRICKS),
    ("standard", &STANDARD),
];

/// What drivers call their system, in lower case, in the order in which it is looked for.
const SYSTEM_NAMES: &[(&str, &SqlDialect)] = &[
    ("postgres", &POSTGRESQL),
    ("sql server", &SQL_SERVER),
    ("mysql", &MYSQL),
    ("mariadb", &MYSQL),
    ("oracle", &ORACLE),
    ("sqlite", &SQLITE),
    ("snowflake", &SNOWFLAKE),
    ("databricks", &DATABRICKS),
    ("spark", &DATABRICKS),
];

/// The dialect of the system that a driver calls `name`.
pub(super) fn dialect_of(name: &str) -> &'static SqlDialect {
    let name = name.to_lowercase();
    let found = SYSTEM_NAMES.iter().find(|(part, _)| name.contains(part));
    found.map_or(&STANDARD, |(_, dialect)| dialect)
}

impl Settings {
    /// Checks `options`, with the driver of a data source looked up where its files are read.
    pub(super) async fn resolve(options: TableOptions) -> Result<Self> {
        off_thread(move || {
            Self::new(&options, |dsn| {
                let sources = environment().and_then(|e| e.data_sources()).ok()?;
                let found = sources.into_iter().find(|s| s.server_name == dsn)?;
                Some(found.driver)
            })
        })
        .await
    }

    /// Checks `options`; `driver_of` names the driver of a data source.
    pub(super) fn new(
        options: &TableOptions,
        driver_of: impl Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        let given = |key| options.get(key).filter(|v| !v.is_empty());
        let mut string = match (given("odbc.connection_string"), given("odbc.dsn")) {
            (Some(string), None) => string.trim().trim_end_matches(';').to_owned(),
            (None, Some(dsn)) => format!("DSN={}", attribute_value(dsn)),
            (Some(_), Some(_)) => {
                return Err(Error::invalid(
                    "options odbc.connection_string and odbc.dsn are both given; keep one",
                ));
            }
            (None, None) => {
                return Err(Error::invalid(
                    "an ODBC table needs the option odbc.connection_string, as in \
                     'Driver={PostgreSQL Unicode};Server=db;Database=law', or odbc.dsn",
                ));
            }
        };
        let attributes = attributes(&string)?;
        let mut secrets: Vec<Secret> = attributes
            .iter()
            .filter(|(key, value)| {
                !PLAIN_ATTRIBUTES.contains(&key.as_str())
                    && value.chars().count() >= MIN_SECRET_CHARS
            })
            .map(|(_, value)| Secret::new(value.clone()))
            .collect();
        let value_of = |names: &[&str]| {
            let found = attributes
                .iter()
                .find(|(key, _)| names.contains(&key.as_str()));
            found.map(|(_, value)| value.as_str())
        };
        let pairs: [(&str, &str, &[&str]); 2] = [
            ("odbc.user", "UID", &["uid", "user", "username"]),
            ("odbc.password", "PWD", &["pwd", "password"]),
        ];
        for (option, attribute, names) in pairs {
            let Some(value) = given(option) else { continue };
            if value_of(names).is_some() {
                return Err(Error::invalid(format!(
                    "option {option} is given and odbc.connection_string says it too; keep one"
                )));
            }
            string.push_str(&format!(";{attribute}={}", attribute_value(value)));
            if option == "odbc.password" {
                secrets.push(Secret::new(value));
                secrets.push(Secret::new(attribute_value(value)));
            }
        }
        let driver = match (value_of(&["driver"]), value_of(&["dsn"])) {
            (Some(driver), _) => Some(driver.to_owned()),
            (None, Some(dsn)) => driver_of(dsn),
            (None, None) => None,
        };
        for (names, attribute) in additions(driver.as_deref().unwrap_or_default()) {
            if value_of(names).is_none() {
                string.push(';');
                string.push_str(&attribute);
            }
        }
        string.push(';');
        let seconds = |key| -> Result<Option<u32>> {
            let expected = "a number of seconds";
            given(key)
                .map(|v| parse_value(key, v, expected))
                .transpose()
        };
        Ok(Self {
            connection: Secret::new(string),
            secrets,
            login_timeout_secs: seconds("odbc.login_timeout_secs")?.unwrap_or(LOGIN_TIMEOUT_SECS),
            query_timeout_secs: seconds("odbc.query_timeout_secs")?.map(|s| s as usize),
            dialect: given("odbc.dialect").map(named_dialect).transpose()?,
            row_by_row: match given("odbc.fetch") {
                None | Some("auto") => false,
                Some("rows") => true,
                Some(other) => {
                    return Err(Error::unknown(
                        "value of odbc.fetch",
                        other,
                        &["auto", "rows"],
                    ));
                }
            },
        })
    }

    /// For the driver, and for nothing else.
    pub(super) fn connection(&self) -> &Secret {
        &self.connection
    }

    /// `text` without what must not be shown.
    pub(super) fn redacted(&self, text: &str) -> String {
        let mut out = text.to_owned();
        for secret in &self.secrets {
            if !secret.expose().is_empty() {
                out = out.replace(secret.expose(), "***");
            }
        }
        out
    }
}

/// Runs blocking work beside the async threads.
pub(super) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| Error::while_doing("talking to an ODBC driver", e))?
}

fn named_dialect(name: &str) -> Result<&'static SqlDialect> {
    let found = DIALECTS.iter().find(|(known, _)| *known == name);
    found.map(|(_, dialect)| *dialect).ok_or_else(|| {
        let valid: Vec<&str> = DIALECTS.iter().map(|(name, _)| *name).collect();
        Error::unknown("value of odbc.dialect", name, &valid)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&'static str, &str)]) -> Result<Settings> {
        let mut options = TableOptions::default();
        for (key, value) in pairs {
            options.own.insert(key, (*value).to_owned());
        }
        Settings::new(&options, |dsn| {
            (dsn == "law").then(|| "psqlodbcw.so".to_owned())
        })
    }

    fn string(pairs: &[(&'static str, &str)]) -> String {
        settings(pairs).unwrap().connection().expose().to_owned()
    }

    #[test]
    fn a_connection_string_gets_what_its_driver_needs() {
        let own = string(&[(
            "odbc.connection_string",
            "Driver={PostgreSQL Unicode};Server=db;b6=0;",
        )]);
        assert_eq!(
            own,
            "Driver={PostgreSQL Unicode};Server=db;b6=0;Fetch=32;BoolsAsChar=0;"
        );
        let dsn = string(&[
            ("odbc.dsn", "law"),
            ("odbc.user", "u"),
            ("odbc.password", "a;b+}"),
        ]);
        assert!(
            dsn.starts_with("DSN=law;UID=u;PWD={a;b+}}};UseDeclareFetch=1;"),
            "{dsn}"
        );
        assert_eq!(string(&[("odbc.dsn", "other")]), "DSN=other;");
        let own = "Driver=MySQL;NO_CACHE=0";
        let own = string(&[("odbc.connection_string", own)]);
        assert_eq!(own, "Driver=MySQL;NO_CACHE=0;FORWARD_CURSOR=1;");
        // A number holds all of these settings.
        let own = string(&[("odbc.connection_string", "Driver=MariaDB;OPTION=3")]);
        assert_eq!(own, "Driver=MariaDB;OPTION=3;");
    }

    #[test]
    fn secrets_are_blanked_out_and_names_are_not() {
        let settings = settings(&[(
            "odbc.connection_string",
            "Driver=x;Server=db;UID=joe;PWD={hunt}}er;2};Token=abcdef",
        )])
        .unwrap();
        let shown = settings.redacted("db joe 'hunt}er;2' abcdef");
        assert_eq!(shown, "db joe '***' ***");
        assert!(!format!("{settings:?}").contains("hunt"));
    }

    #[test]
    fn conflicts_and_unknown_values_are_errors() {
        let check = |pairs: &[(&'static str, &str)], expected: &str| {
            let error = settings(pairs).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(&[], "odbc.connection_string");
        check(
            &[("odbc.connection_string", "DSN=a"), ("odbc.dsn", "a")],
            "keep one",
        );
        check(
            &[
                ("odbc.connection_string", "DSN=a;PWD=x"),
                ("odbc.password", "y"),
            ],
            "keep one",
        );
        check(&[("odbc.connection_string", "Driver={x")], "braces");
        check(
            &[("odbc.dsn", "a"), ("odbc.dialect", "postgres")],
            "'postgresql'",
        );
        check(&[("odbc.dsn", "a"), ("odbc.fetch", "bulk")], "auto, rows");
        check(
            &[("odbc.dsn", "a"), ("odbc.login_timeout_secs", "soon")],
            "seconds",
        );
    }

    #[test]
    fn systems_are_told_by_their_name() {
        let names = [
            ("PostgreSQL", "PostgreSQL"),
            ("Microsoft SQL Server", "SQL Server"),
            ("MariaDB", "MySQL"),
            ("Spark SQL", "Databricks"),
            ("DB2/LINUXX8664", "standard SQL"),
        ];
        for (system, dialect) in names {
            assert_eq!(dialect_of(system).name, dialect);
        }
    }
}
