//! `STORED AS SNOWFLAKE`: what it is and which options there are. Compiled also where the feature
//! is off.

use crate::connector::{CA_FILE, Connector, Maturity, OptionSpec, proxy};
use crate::evolve::EVOLVE;
use crate::left_out;
use crate::rejects;
use crate::sql::spool;
use crate::write::{CREATE, KEY};

/// The connector, as a build without the feature knows it.
pub(crate) const ABOUT: Connector = Connector {
    name: "SNOWFLAKE",
    summary: "Snowflake tables, streamed as Arrow, created and merged by key if asked",
    reads: true,
    writes: true,
    pushdown: "projection, filters, LIMIT",
    authentication: "password, key pair, OAuth, access token",
    maturity: Maturity::Beta,
    options: OPTIONS,
    check: left_out::check,
    is_table: |_| false,
    factory: left_out::factory,
};

/// `STORED AS SNOWFLAKE` of a build without the feature.
#[cfg(not(feature = "snowflake"))]
pub(crate) static CONNECTOR: Connector = ABOUT;

const fn plain(key: &'static str, default: &'static str, doc: &'static str) -> OptionSpec {
    OptionSpec {
        key,
        secret: false,
        default,
        doc,
    }
}

const fn secret(key: &'static str, doc: &'static str) -> OptionSpec {
    OptionSpec {
        key,
        secret: true,
        default: "not used",
        doc,
    }
}

/// Options of `STORED AS SNOWFLAKE`.
pub(crate) const OPTIONS: &[OptionSpec] = &[
    plain(
        "snowflake.account",
        "must be given",
        "account identifier: ORGANISATION-ACCOUNT or a locator with its region",
    ),
    plain(
        "snowflake.host",
        "ACCOUNT.snowflakecomputing.com",
        "another host (PrivateLink, China), or a URL with scheme and port",
    ),
    plain(
        "snowflake.allow_http",
        "false",
        "true: the password or token may travel over http://",
    ),
    plain(
        "snowflake.user",
        "none",
        "login name; needed unless oauth_token is given",
    ),
    secret("snowflake.password", "password"),
    secret(
        "snowflake.private_key",
        "PKCS#8 private key in PEM form, its text",
    ),
    plain(
        "snowflake.private_key_path",
        "not used",
        "file that holds the private key",
    ),
    secret(
        "snowflake.private_key_passphrase",
        "passphrase of an encrypted private key",
    ),
    secret("snowflake.oauth_token", "OAuth access token"),
    secret("snowflake.access_token", "programmatic access token"),
    plain(
        "snowflake.warehouse",
        "the user's",
        "virtual warehouse that runs the statements",
    ),
    plain("snowflake.role", "the user's", "role"),
    plain(
        "snowflake.database",
        "none",
        "database of a LOCATION that names none",
    ),
    plain(
        "snowflake.schema",
        "PUBLIC",
        "schema of a LOCATION that names none",
    ),
    plain(
        "snowflake.query_tag",
        "casebook",
        "tag of the statements in QUERY_HISTORY",
    ),
    plain(
        "snowflake.statement_timeout_secs",
        "the account's",
        "seconds after which Snowflake stops a statement",
    ),
    plain(
        "snowflake.connect_timeout_secs",
        "30",
        "seconds for a connection",
    ),
    plain(
        "snowflake.read_timeout_secs",
        "120",
        "seconds between two parts of an answer",
    ),
    plain(
        "snowflake.prefetch_bytes",
        "67108864",
        "bytes of result chunks that are downloaded ahead",
    ),
    plain(
        "snowflake.fold_names",
        "true",
        "show column names that are all upper case in lower case, as other tools do",
    ),
    plain(
        "snowflake.load",
        "auto",
        "how INSERT sends rows: auto (more than one statement's worth as Parquet files in a \
         temporary stage, where the role may make one) or bind (as bound values)",
    ),
    proxy("snowflake.proxy"),
    CA_FILE,
    CREATE,
    EVOLVE,
    KEY,
    rejects::OPTION,
    spool::AFTER,
    spool::MAX_BYTES,
];
