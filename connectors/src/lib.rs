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

mod connector;
mod error;
mod listing;
mod options;
mod secret;
mod stores;

pub mod csv;
pub mod delta;

pub use connector::{CONNECTORS, Connector, ConnectorOptions, OptionSpec, register};
pub use error::{Error, ErrorKind, Result};
pub use secret::Secret;
