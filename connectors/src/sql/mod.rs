//! Tables of SQL systems: how they are read and written is here once; each system brings what
//! [`system`] asks for, and nothing else.
//!
//! | what | where |
//! |---|---|
//! | what a system brings | `system`, `exchange` |
//! | how the systems' words differ | `dialect`, `ddl` |
//! | the table, and what INSERT makes of what is missing | `table`, `target`, `columns` |
//! | reading: what is asked of it, where rows wait | `scan`, `select`, `pushdown`, `spool` |
//! | INSERT: staged, then published in one step | `sink`, `staging`, `leftovers` |

// Each system uses its part; a build without one of them leaves that part unused.
#![cfg_attr(
    not(all(feature = "odbc", feature = "snowflake", feature = "databricks")),
    allow(dead_code)
)]

pub(crate) mod columns;
pub(crate) mod ddl;
pub(crate) mod dialect;
pub(crate) mod exchange;
pub(crate) mod leftovers;
pub(crate) mod pushdown;
pub(crate) mod scan;
pub(crate) mod select;
pub(crate) mod sink;
pub(crate) mod spool;
pub(crate) mod staging;
pub(crate) mod system;
pub(crate) mod table;
pub(crate) mod target;
