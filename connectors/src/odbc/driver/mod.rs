//! Tables through an ODBC driver.
//!
//! Texts of any length are read whole, whatever width the driver reports ([`reader`]); rows are
//! staged on the server and enter the table in one statement ([`writer`]).

mod arrays;
mod builders;
mod calendar;
mod check;
mod columns;
mod connection_string;
mod diagnostics;
mod factory;
mod long_values;
mod parameters;
mod reader;
mod scan;
mod server_cursor;
mod session;
mod settings;
mod sink;
mod staging;
mod table;
mod writer;

pub(crate) use check::check;
pub(crate) use factory::OdbcFactory;
