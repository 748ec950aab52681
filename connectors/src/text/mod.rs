//! What the readers of CSV and JSON share: bytes block by block ([`Blocks`]), read and decoded off the
//! async threads ([`stream`]), as the scan of a table ([`scan`]), and what is a number ([`numbers`]).

mod blocks;
pub(crate) mod numbers;
mod scan;
mod source;
mod stream;

pub(crate) use blocks::{Blocks, Place};
pub(crate) use scan::scan;
pub(crate) use source::{TextReader, TextSource};
pub(crate) use stream::{in_file, off_thread, stream};
