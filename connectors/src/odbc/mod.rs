//! Any system that has an ODBC driver: which options there are, and what happens without the
//! feature `odbc`, which links unixODBC and is therefore off unless asked for.
//!
//! Beside what the user says, psqlODBC is told `UseDeclareFetch=1;Fetch=32;BoolsAsChar=0` and the
//! SQLite driver `StepAPI=1`: by themselves they hold a whole result, and psqlODBC shows a boolean
//! as a text. What the user sets stays. PostgreSQL is read through a cursor on the server, whose
//! blocks grow and shrink with the texts. A timestamp with a time zone arrives in the zone of the
//! database session; times of day, intervals, identifiers and JSON arrive as text, as does a
//! PostgreSQL `numeric` without a precision, whose digits no other type holds.

#[cfg(feature = "odbc")]
mod driver;
#[cfg(feature = "odbc")]
use driver::{OdbcFactory, check};
#[cfg(not(feature = "odbc"))]
use missing::{OdbcFactory, check};

use std::sync::Arc;

use crate::connector::{Connector, Maturity, OptionSpec};
use crate::rejects;

/// `STORED AS ODBC`.
pub(crate) static CONNECTOR: Connector = Connector {
    name: "ODBC",
    summary: "tables of any system with an ODBC driver (needs the feature odbc)",
    reads: true,
    writes: true,
    pushdown: "projection, filters, LIMIT, in the system's dialect",
    authentication: "connection string or data source name, user and password",
    maturity: Maturity::Stable,
    options: OPTIONS,
    check: |c, request| Box::pin(check(c, request)),
    factory: |c, o| Arc::new(OdbcFactory::new(c, o)),
};

/// Options of `STORED AS ODBC`; LOCATION is 'table', 'schema.table' or 'catalog.schema.table', with
/// names as the system stores them.
const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        key: "odbc.connection_string",
        secret: true,
        default: "odbc.dsn names a data source",
        doc: "what the driver needs, as in 'Driver={PostgreSQL Unicode};Server=db;Database=law'",
    },
    OptionSpec {
        key: "odbc.dsn",
        secret: false,
        default: "odbc.connection_string says it all",
        doc: "name of a data source of odbc.ini",
    },
    OptionSpec {
        key: "odbc.user",
        secret: false,
        default: "as the connection string or the data source says",
        doc: "user name",
    },
    OptionSpec {
        key: "odbc.password",
        secret: true,
        default: "as the connection string or the data source says",
        doc: "password of that user",
    },
    OptionSpec {
        key: "odbc.login_timeout_secs",
        secret: false,
        default: "30",
        doc: "seconds to wait for a connection",
    },
    OptionSpec {
        key: "odbc.query_timeout_secs",
        secret: false,
        default: "no limit",
        doc: "seconds after which the system gives up a statement, where the driver can",
    },
    OptionSpec {
        key: "odbc.dialect",
        secret: false,
        default: "by the name that the driver gives its system",
        doc: "postgresql, sql_server, mysql, oracle, sqlite, snowflake, databricks or standard",
    },
    OptionSpec {
        key: "odbc.fetch",
        secret: false,
        default: "auto",
        doc: "auto: whole arrays of rows where every column is narrow; rows: always row by row",
    },
    OptionSpec {
        key: "table.create",
        secret: false,
        default: "the table must exist",
        doc: "name of the declared schema with which a missing table is created (qa_pairs)",
    },
    OptionSpec {
        key: "write.key",
        secret: false,
        default: "INSERT appends",
        doc: "column that identifies a row: INSERT adds only rows whose key is not there yet",
    },
    rejects::OPTION,
];

/// What a program built without the feature answers.
#[cfg(not(feature = "odbc"))]
mod missing {
    use std::sync::Arc;

    use async_trait::async_trait;
    use datafusion::catalog::{Session, TableProvider, TableProviderFactory};
    use datafusion::logical_expr::CreateExternalTable;

    use crate::check::{CheckRequest, CheckStep};
    use crate::connector::{Connector, ConnectorOptions};
    use crate::error::{Error, ErrorKind};

    fn error() -> Error {
        Error::new(
            ErrorKind::Unsupported,
            "this program was built without ODBC, because that links unixODBC; install unixODBC \
             (Debian: apt-get install unixodbc-dev) and build it with --features odbc",
        )
    }

    /// Takes the place of the factory that the feature brings.
    #[derive(Debug)]
    pub(crate) struct OdbcFactory;

    impl OdbcFactory {
        pub(crate) fn new(_: &'static Connector, _: &ConnectorOptions) -> Self {
            Self
        }
    }

    #[async_trait]
    impl TableProviderFactory for OdbcFactory {
        async fn create(
            &self,
            _: &dyn Session,
            _: &CreateExternalTable,
        ) -> datafusion::error::Result<Arc<dyn TableProvider>> {
            Err(error().into())
        }
    }

    pub(crate) async fn check(_: &'static Connector, _: CheckRequest) -> Vec<CheckStep> {
        let result = Err(error());
        vec![CheckStep {
            name: "driver",
            result,
        }]
    }
}
