//! JSON as warehouses and APIs export it: one object after the other, or an array of them.
//!
//! Directories, partitions and writing are the files'; the reader is ours: [`records`] (bytes to
//! objects, bounded), [`shape`] (columns from the first objects), [`check`] (each object against all
//! columns, so that nothing is dropped or changed in silence), [`source`] (files to batches, decoded
//! by the arrow library), [`write`] (what the library would lose), [`format`] (the parts joined).
//!
//! Digits stay as they stand: a column with integers beyond 64 bits, or with numbers and texts, is
//! text.

mod check;
mod format;
mod options;
mod records;
mod shape;
mod source;
mod write;

pub(crate) use format::JsonTextFormatFactory;
pub(crate) use options::{OPTIONS, UNKNOWN_KEYS};
