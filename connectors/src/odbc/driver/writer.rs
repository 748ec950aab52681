//! The thread that writes: rows into a staging table as they come, then into the target in one
//! statement. Whatever ends it before that leaves the target as it was.
//!
//! Rows may take hours to make. No transaction is open meanwhile: what is staged is committed, and
//! only this session sees it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use datafusion::arrow::array::{AsArray, RecordBatch};
use tokio::sync::mpsc;

use super::parameters::pieces;
use super::session::Session;
use super::staging::Staging;
use super::table::OdbcTable;
use crate::error::{Error, ErrorKind, Result};
use crate::sql::dialect::SQLITE;

/// What the sink asks of the writer.
pub(super) enum Order {
    /// Stage these rows, whose columns are those of the table.
    Stage(RecordBatch),
    /// All rows are there: move them into the target.
    Publish,
}

/// Follows `orders`; the number of rows added to the target. Without [`Order::Publish`], none.
pub(super) fn write(
    table: &OdbcTable,
    overwrite: bool,
    mut orders: mpsc::Receiver<Order>,
) -> Result<u64> {
    let session = Session::open(&table.settings)?;
    let key = table.key.as_deref().filter(|_| !overwrite);
    let staging = Staging::new(
        table.dialect,
        &table.name,
        &table.columns.schema,
        key,
        &unique(),
    );
    if overwrite && !staging.transactions {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "INSERT OVERWRITE {}: {} cannot empty and fill a table in one transaction over \
                 ODBC; empty it there and use INSERT INTO",
                table.quoted(),
                table.dialect.name
            ),
        ));
    }
    let writer = Writer {
        session,
        table,
        staging,
    };
    let written = writer.follow(overwrite, &mut orders);
    if written.is_err() {
        // The first error is the one that tells.
        writer.session.connection.rollback().ok();
    }
    if let Some(sql) = &writer.staging.drop {
        let dropped = writer.session.run("removing a staging table", sql);
        writer.commit("removing a staging table").ok();
        // A staging table that stays does no harm to a target that is complete.
        dropped.ok();
    }
    written
}

struct Writer<'t> {
    session: Session<'t>,
    table: &'t OdbcTable,
    staging: Staging,
}

impl Writer<'_> {
    fn follow(&self, overwrite: bool, orders: &mut mpsc::Receiver<Order>) -> Result<u64> {
        let doing = format!("writing to {}", self.table.quoted());
        if self.staging.transactions {
            let off = self.session.connection.set_autocommit(false);
            off.map_err(|e| self.session.failed(&doing, e))?;
        }
        self.session.run(&doing, &self.staging.create)?;
        self.commit(&doing)?;
        let mut staged = 0;
        loop {
            match orders.blocking_recv() {
                // The rows broke off: nothing is published.
                None => return Ok(0),
                Some(Order::Stage(batch)) => {
                    self.stage(&doing, &batch)?;
                    staged += batch.num_rows() as u64;
                }
                Some(Order::Publish) => break,
            }
        }
        if overwrite {
            self.session.run(&doing, &self.staging.empty)?;
        }
        if staged == 0 {
            self.commit(&doing)?;
            return Ok(0);
        }
        let publish = || self.session.run(&doing, &self.staging.publish);
        let added = publish().or_else(|first| match self.table.key {
            // Another writer may have added the same keys meanwhile; a second look sees them.
            Some(_) if !overwrite && self.session.connection.rollback().is_ok() => publish(),
            _ => Err(first),
        })?;
        self.commit(&doing)?;
        Ok(added.unwrap_or(staged))
    }

    fn stage(&self, doing: &str, batch: &RecordBatch) -> Result<()> {
        let failed = |e| self.session.failed(doing, e);
        let utf8 = self.table.utf8();
        if std::ptr::eq(self.table.dialect, &SQLITE) {
            refuse_empty_bytes(batch)?;
        }
        let mut prepared = self
            .session
            .connection
            .prepare(&self.staging.insert)
            .map_err(failed)?;
        for piece in pieces(batch, utf8) {
            let descriptions = piece.descriptions(batch, utf8)?;
            let mut inserter = prepared
                .column_inserter(piece.rows.len(), descriptions)
                .map_err(failed)?;
            piece.fill(batch, &mut inserter)?;
            inserter.execute().map_err(failed)?;
        }
        self.commit(doing)
    }

    fn commit(&self, doing: &str) -> Result<()> {
        if self.staging.transactions {
            self.session
                .connection
                .commit()
                .map_err(|e| self.session.failed(doing, e))?;
        }
        Ok(())
    }
}

/// The SQLite driver takes no bytes for as many zeroes as the array is wide.
fn refuse_empty_bytes(batch: &RecordBatch) -> Result<()> {
    let schema = batch.schema();
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        let bytes = column.as_binary_view_opt();
        if bytes.is_some_and(|b| b.iter().flatten().any(<[u8]>::is_empty)) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "column {}: the SQLite ODBC driver cannot write an empty value of bytes; \
                     write null instead",
                    field.name()
                ),
            ));
        }
    }
    Ok(())
}

/// Tells writers apart that share a schema, in this process and in others.
fn unique() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{}_{}_{count}", std::process::id(), since.as_micros())
}
