//! `STORED AS DATABRICKS`: what it is and which options there are. Compiled also where the feature
//! is off.

use crate::connector::{CA_FILE, Connector, Maturity, OptionSpec, proxy};
use crate::evolve::EVOLVE;
use crate::left_out;
use crate::rejects;
use crate::sql::spool;
use crate::write::{CREATE, EXPIRE, KEY};

/// The connector, as a build without the feature knows it.
pub(crate) const ABOUT: Connector = Connector {
    name: "DATABRICKS",
    summary: "tables of Unity Catalog, as files or through a SQL warehouse",
    reads: true,
    writes: true,
    pushdown: "projection, filters, LIMIT",
    authentication: "access token; OAuth client (machine to machine)",
    maturity: Maturity::Preview,
    options: OPTIONS,
    check: left_out::check,
    is_table: |_| false,
    factory: left_out::factory,
};

/// `STORED AS DATABRICKS` of a build without the feature.
#[cfg(not(feature = "databricks"))]
pub(crate) static CONNECTOR: Connector = ABOUT;

/// Options beside those of the object stores.
pub(crate) const OPTIONS: &[OptionSpec] = &[
    option(
        "databricks.host",
        "required",
        "workspace: its host name or https:// URL",
    ),
    secret("databricks.token", "OAuth is used", "personal access token"),
    option(
        "databricks.client_id",
        "databricks.token is used",
        "application id of a service principal (OAuth machine-to-machine)",
    ),
    secret(
        "databricks.client_secret",
        "databricks.token is used",
        "OAuth secret of the service principal",
    ),
    option(
        "databricks.warehouse_id",
        "only tables that can be reached as files",
        "SQL warehouse for tables that cannot be read or written from outside",
    ),
    option(
        "databricks.read",
        "auto",
        "auto: as files where that is possible, else through the warehouse; files; warehouse",
    ),
    option(
        "databricks.allow_http",
        "false, but for this machine",
        "true: the token may travel over http://",
    ),
    option(
        "databricks.allow_local_files",
        "false",
        "true: tables that the catalog says lie on this machine's disk may be opened there",
    ),
    option(
        "databricks.connect_timeout_secs",
        "10",
        "longest wait for a connection",
    ),
    option(
        "databricks.read_timeout_secs",
        "60",
        "longest silence of the server in an answer",
    ),
    option(
        "databricks.query_timeout_secs",
        "no limit",
        "longest run of one statement on the warehouse; it is cancelled then",
    ),
    proxy("databricks.proxy"),
    CA_FILE,
    CREATE,
    EVOLVE,
    KEY,
    EXPIRE,
    rejects::OPTION,
    spool::AFTER,
    spool::MAX_BYTES,
    option(
        "delta.version",
        "the latest, per statement",
        "version to read",
    ),
    option(
        "delta.timestamp",
        "the latest, per statement",
        "RFC 3339 time whose version to read",
    ),
];

const fn option(key: &'static str, default: &'static str, doc: &'static str) -> OptionSpec {
    OptionSpec {
        key,
        secret: false,
        default,
        doc,
    }
}

const fn secret(key: &'static str, default: &'static str, doc: &'static str) -> OptionSpec {
    OptionSpec {
        key,
        secret: true,
        default,
        doc,
    }
}
