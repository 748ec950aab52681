//! What a SQL system has to bring, so that its tables are read and written by [`crate::sql`]: one
//! trait, whose implementations are one table of one system each.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use super::exchange::{Described, Query, Rows, Staged, Statement};
use super::staging::Staging;
use crate::error::Result;

/// One table of a SQL system, and the way to it.
#[async_trait]
pub(crate) trait SqlSystem: fmt::Debug + Send + Sync {
    /// The table as it is now.
    async fn describe(&self) -> Result<Described>;

    /// The rows of a query. Nothing is sent before they are polled; dropped, they end the query at
    /// the source.
    fn rows(&self, query: Query) -> Rows;

    /// The same table in a session of its own, for one INSERT: staged rows live there, and what the
    /// session alone sees goes with it.
    async fn session(&self) -> Result<Arc<dyn SqlSystem>>;

    /// Makes the staging table and puts all of `rows` into it. The columns of `rows` are those of
    /// [`Staging::columns`]. A missing right should show before `rows` are polled.
    async fn stage(&self, staging: &Staging, rows: Rows) -> datafusion::error::Result<Staged>;

    /// The names of the tables beside this one that begin with `prefix`. Asked only where staging
    /// tables outlive their session.
    async fn tables(&self, prefix: &str) -> Result<Vec<String>>;

    /// Runs `statements`, all or none where there are several; how many rows the last one changed,
    /// where the system says so.
    async fn publish(&self, doing: &str, statements: &[Statement]) -> Result<Option<u64>>;
}
