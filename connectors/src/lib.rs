//! Source and sink tables of Casebook as DataFusion table formats.
//!
//! ```sql
//! CREATE EXTERNAL TABLE cases STORED AS CSV LOCATION 'cases.csv'
//! CREATE EXTERNAL TABLE qa STORED AS DELTA LOCATION 's3://bucket/qa'
//!   OPTIONS ('table.create' 'qa_pairs', 'write.key' 'qa_id', 'aws.region' 'eu-west-1')
//! ```
//!
//! [`CONNECTORS`] lists them; registration, documentation and errors read that list.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

#[cfg(feature = "s3")]
mod aws_profile;
mod cast;
mod check;
mod connector;
mod csv_limits;
mod current_time;
mod declared;
mod error;
mod evolve;
mod exact;
#[cfg(any(feature = "s3", feature = "databricks"))]
#[cfg_attr(not(feature = "databricks"), allow(dead_code))] // what a token takes that can be revoked
mod expiring;
mod files;
mod folders;
#[cfg(feature = "gcs")]
mod gcs;
mod guard;
mod held;
mod inserted;
mod interrupt;
mod json;
mod keys;
mod left_out;
mod location;
#[cfg(feature = "odbc")]
mod odbc;
#[cfg(not(feature = "odbc"))]
#[path = "odbc/options.rs"]
mod odbc;
mod options;
mod reference;
mod registry;
mod rejects;
mod secret;
mod sizes;
#[cfg(feature = "snowflake")]
mod snowflake;
#[cfg(not(feature = "snowflake"))]
#[path = "snowflake/options.rs"]
mod snowflake;
mod sql;
mod stores;
#[cfg(test)]
mod test_store;
mod text;
mod unfinished;
mod whole;
mod write;

pub mod csv;
#[cfg(feature = "databricks")]
mod databricks;
#[cfg(not(feature = "databricks"))]
#[path = "databricks/options.rs"]
mod databricks;
pub mod delta;
#[cfg_attr(
    not(any(feature = "snowflake", feature = "databricks")),
    allow(dead_code) // what only warehouses are asked
)]
pub mod http;

pub use check::{CheckRequest, CheckStep, ScratchDirectories};
pub use connector::{AcceptedRows, Connector, ConnectorOptions, FileReaders, Maturity, OptionSpec};
pub use csv_limits::{CsvLimits, InvalidUtf8};
pub use declared::fitted;
pub use error::{Error, ErrorKind, Result, nearest};
pub use exact::double_holds;
pub use guard::hide_caught_panics;
pub use interrupt::is_committing;
pub use location::{shown, without_credentials};
pub use reference::{connector_table, option_reference};
pub use registry::{CONNECTORS, register};
pub use secret::{GivenOptions, Secret};
