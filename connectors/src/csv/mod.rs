//! CSV as a giant export of documents is: quoted text with line breaks, cells of megabytes.
//!
//! Globs, directories and partitions stay DataFusion's. Options become a [`layout`], which both
//! sides use: the reader is [`encoding`] (a file to UTF-8), [`decoder`] (bytes to
//! records, by RFC 4180), [`columns`] (cells to columns, by the names in [`header`]), [`batches`]
//! (records to Arrow, bounded by bytes), [`source`] (files to streams), [`split`], [`pieces`] and
//! [`borders`] (one file to several streams); the writer is [`encoder`] and [`sink`]. [`nulls`] and [`typed`] say what
//! cells mean, [`format`](mod@format) joins the parts.
//!
//! Columns are text (Utf8View) unless CREATE EXTERNAL TABLE declares types: no schema is guessed
//! from megabytes of prose. An empty cell without quotes is null, `""` is an empty text, and what is
//! written is read back equal, or refused.

mod batches;
mod borders;
mod columns;
mod decoder;
mod dialect;
mod encoder;
mod encoding;
mod format;
mod header;
mod layout;
mod nulls;
mod options;
mod pieces;
mod sink;
mod source;
mod split;
#[cfg(test)]
mod test_every_option;
#[cfg(test)]
mod test_names;
#[cfg(test)]
mod test_round_trip;
#[cfg(test)]
mod test_session;
mod typed;

pub use encoder::CsvEncoder;
pub use format::CsvTextFormatFactory;
pub(crate) use layout::Known;
pub(crate) use options::OPTIONS;
