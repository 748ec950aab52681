//! Servers of our own that follow the public protocols, with faults on request.

#[cfg(feature = "databricks")]
pub mod databricks;
pub mod gcs;
pub mod objects;
#[cfg(any(feature = "databricks", feature = "snowflake"))]
pub mod proxy;
#[cfg(feature = "databricks")]
pub mod s3;
#[cfg(feature = "snowflake")]
pub mod snowflake;
#[cfg(any(feature = "databricks", feature = "snowflake"))]
pub mod tls;
