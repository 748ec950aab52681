//! One suite over the connectors, against real servers, emulators and fakes that make faults. A
//! test whose service is not running says so and passes, unless CASEBOOK_REQUIRE_SERVICES is 1.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout
)]

mod crash;
mod declared_types;
mod exact;
mod fake;
mod floating;
mod round_trip;

#[cfg(feature = "databricks")]
mod databricks;
mod delta;
mod files;
#[cfg(feature = "odbc")]
mod odbc;
#[cfg(feature = "snowflake")]
mod snowflake;
#[cfg(not(feature = "odbc"))]
mod without_odbc;
