//! What the log of a table says: later commits, recorded transactions, who was first.

use std::collections::BTreeMap;

use bytes::Bytes;
use deltalake::kernel::transaction::TransactionError;
use deltalake::{DeltaTable, DeltaTableError};

use crate::error::{Error, Result};
use crate::write::Recorded;

/// The commits of `table` from version `first` on.
pub(super) async fn commits_from(
    table: &DeltaTable,
    location: &str,
    first: u64,
) -> Result<BTreeMap<u64, Bytes>> {
    let log_store = table.log_store();
    let mut commits = BTreeMap::new();
    for version in first.. {
        match log_store.read_commit_entry(version).await {
            Ok(Some(bytes)) => commits.insert(version, bytes),
            Ok(None) => break,
            Err(e) => return Err(opening(location, e)),
        };
    }
    Ok(commits)
}

/// True if `transaction` is the latest of its application in the log.
///
/// # Errors
/// A later one is.
pub(super) async fn is_recorded(
    table: &DeltaTable,
    location: &str,
    transaction: Option<&Recorded>,
) -> Result<bool> {
    let Some(transaction) = transaction else {
        return Ok(false);
    };
    let state = table.snapshot().map_err(|e| opening(location, e))?;
    let found = state
        .transaction_version(table.log_store().as_ref(), &transaction.app_id)
        .await
        .map_err(|e| opening(location, e))?;
    transaction.is_done(found, location)
}

/// True if another writer created the version that a commit tried to.
pub(super) fn is_conflict(error: &DeltaTableError) -> bool {
    matches!(
        error,
        DeltaTableError::VersionAlreadyExists(_)
            | DeltaTableError::Transaction {
                source: TransactionError::MaxCommitAttempts(_)
                    | TransactionError::VersionAlreadyExists(_)
                    | TransactionError::CommitConflict(_)
            }
    )
}

/// A failure to read the log of the table at `location`.
pub(super) fn opening(location: &str, error: DeltaTableError) -> Error {
    Error::while_doing(
        format!("reading the log of the Delta table at '{location}'"),
        error,
    )
}
