//! What the connectors of SQL systems share: how the systems differ ([`dialect`]), what is asked of
//! them ([`pushdown`]) and how tables get there ([`ddl`]).

// Each system uses its part; a build without one of them leaves that part unused.
#![cfg_attr(
    not(all(feature = "odbc", feature = "snowflake", feature = "databricks")),
    allow(dead_code)
)]

pub(crate) mod ddl;
pub(crate) mod dialect;
pub(crate) mod pushdown;
