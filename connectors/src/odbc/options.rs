//! `STORED AS ODBC`: any system that has an ODBC driver, and which options there are. Compiled also
//! where the feature `odbc` is off, so that what is documented of the connector does not depend on
//! a build.

use crate::connector::{Connector, Maturity, OptionSpec};
use crate::evolve::EVOLVE;
use crate::left_out;
use crate::rejects;
use crate::sql::spool;
use crate::write::{CREATE, EXPIRE, KEY};

/// The connector, as a build without the feature knows it.
pub(crate) const ABOUT: Connector = Connector {
    name: "ODBC",
    summary: "tables of any system with an ODBC driver (needs the feature odbc)",
    reads: true,
    writes: true,
    pushdown: "projection, filters, LIMIT, in the system's dialect",
    authentication: "connection string or data source name, user and password",
    maturity: Maturity::Stable,
    options: OPTIONS,
    check: left_out::check,
    is_table: |_| false,
    factory: left_out::factory,
};

/// `STORED AS ODBC` of a build without the feature.
#[cfg(not(feature = "odbc"))]
pub(crate) static CONNECTOR: Connector = ABOUT;

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
        // Longer than any pause of a statement that keeps up, and short for a transaction.
        default: "30",
        ..spool::AFTER
    },
    spool::MAX_BYTES,
    CREATE,
    EVOLVE,
    KEY,
    EXPIRE,
    rejects::OPTION,
];
