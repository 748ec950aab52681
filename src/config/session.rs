//! `[session]`: what the program's own session is given.

use datafusion::prelude::SessionContext;

use super::Config;
use crate::error::Result;

/// Less than this is no use: a sort could not even merge what it spilled.
const LEAST_BYTES: usize = 16 << 20;

impl Config {
    /// Bytes that sorting, joining and grouping may hold before they spill to disk, if the file
    /// says so.
    ///
    /// # Errors
    /// A size that is none.
    pub fn memory_bytes(&self) -> Result<Option<usize>> {
        let Some(limit) = &self.raw.session.memory_limit else {
            return Ok(None);
        };
        let bytes = SessionContext::parse_capacity_limit("memory_limit", limit).unwrap_or(0);
        match bytes >= LEAST_BYTES {
            true => Ok(Some(bytes)),
            false => Err(self.wrong(
                "[session]",
                "memory_limit is not a size of at least 16M, such as \"512M\" or \"4G\"",
            )),
        }
    }
}
