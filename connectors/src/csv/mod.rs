//! CSV as a giant export of documents is: quoted text with line breaks, cells of megabytes.
//!
//! Globs, directories, partitions and writing stay DataFusion's; only the reader is ours:
//! [`decoder`] (bytes to records, by RFC 4180), [`batches`] (records to Arrow, bounded by bytes),
//! [`source`] (files to streams), [`split`] and [`pieces`] (one file to several streams),
//! [`format`] (the parts joined).
//!
//! Columns are text (Utf8View) unless CREATE EXTERNAL TABLE declares types: no schema is guessed
//! from megabytes of prose. An empty cell without quotes is null, `""` is an empty text.

mod batches;
mod blocks;
mod decoder;
mod format;
mod header;
mod options;
mod pieces;
mod source;
mod split;

pub use format::CsvTextFormatFactory;
pub(crate) use options::OPTIONS;
