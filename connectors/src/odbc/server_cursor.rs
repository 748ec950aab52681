//! A cursor on the server, for PostgreSQL, whose drivers would otherwise hold the whole result: rows
//! come in blocks whose number of rows follows their size.
//!
//! <https://www.postgresql.org/docs/current/sql-declare.html>,
//! <https://www.postgresql.org/docs/current/sql-fetch.html>

use odbc_api::CursorImpl;
use odbc_api::handles::StatementImpl;

use super::session::Session;
use crate::error::Result;

/// Bytes of texts that a block should bring.
const BLOCK_BYTES: usize = 4 << 20;
/// Rows of the first block, about which nothing is known.
const FIRST_ROWS: usize = 16;
/// Rows of a block at most; beyond that, round trips cost nothing to speak of. Where long texts
/// follow short ones without warning, the driver holds so many of them, once.
const MOST_ROWS: usize = 512;

/// An open cursor. It lasts as long as its transaction, which ends with the session.
pub(super) struct ServerCursor<'s> {
    session: &'s Session<'s>,
    doing: &'s str,
    /// Rows that the last block asked for; none before the first.
    asked: Option<usize>,
    /// Rows and bytes of texts before the last block.
    before: (usize, usize),
}

impl<'s> ServerCursor<'s> {
    /// Declares a cursor for the rows of `sql`.
    pub(super) fn open(session: &'s Session<'s>, doing: &'s str, sql: &str) -> Result<Self> {
        let off = session.connection.set_autocommit(false);
        off.map_err(|e| session.failed(doing, e))?;
        let declare = format!("DECLARE casebook_rows NO SCROLL CURSOR FOR {sql}");
        session.run(doing, &declare)?;
        Ok(Self {
            session,
            doing,
            asked: None,
            before: (0, 0),
        })
    }

    /// The next block; none after the last row. So far, all blocks had `rows` rows with `bytes`
    /// bytes of texts.
    pub(super) fn next_block(
        &mut self,
        rows: usize,
        bytes: usize,
    ) -> Result<Option<CursorImpl<StatementImpl<'s>>>> {
        let ask = match self.asked {
            None => FIRST_ROWS,
            Some(asked) if rows - self.before.0 < asked => return Ok(None),
            Some(asked) => rows_after(asked, bytes - self.before.1),
        };
        self.asked = Some(ask);
        self.before = (rows, bytes);
        let sql = format!("FETCH FORWARD {ask} FROM casebook_rows");
        self.session.query(self.doing, &sql).map(Some)
    }
}

/// Rows of the block after one of `rows` rows with `bytes` bytes: as many as make [`BLOCK_BYTES`] if
/// they are like these, but at most twice as many.
fn rows_after(rows: usize, bytes: usize) -> usize {
    let each = bytes.div_ceil(rows).max(1);
    (BLOCK_BYTES / each).clamp(1, MOST_ROWS.min(rows * 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_follow_the_size_of_the_rows() {
        let grown = (0..10).fold(FIRST_ROWS, |rows, _| rows_after(rows, rows * 5_000));
        assert_eq!(grown, MOST_ROWS);
        assert_eq!(rows_after(512, 512 * 20_000), 209);
        assert_eq!(rows_after(512, 512 * 5_000_000), 1);
        assert_eq!(rows_after(16, 0), 32);
        assert_eq!(rows_after(1, 5_000), 2);
    }
}
