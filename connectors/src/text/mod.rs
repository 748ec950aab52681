//! What the readers of CSV and JSON share: bytes block by block ([`Blocks`]), read and decoded off the
//! async threads ([`stream`]), as the scan of a table ([`scan`]).

mod blocks;
mod scan;
mod stream;

pub(crate) use blocks::{Blocks, Place};
pub(crate) use scan::scan;
pub(crate) use stream::{in_file, off_thread, stream};
