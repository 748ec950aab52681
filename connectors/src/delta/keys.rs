//! The keys that a Delta table already holds.

use datafusion::catalog::TableProvider;
use datafusion::physical_plan::execute_stream;
use datafusion::prelude::SessionContext;
use deltalake::DeltaTable;
use futures::TryStreamExt;

use super::scan;
use crate::error::{Error, Result};
use crate::keys::{Hashes, collect};

/// The keys in column `key` of `table`, or of those of its files whose `paths` are given and
/// which are still there. Only that column is read.
pub(super) async fn read(
    table: &DeltaTable,
    location: &str,
    key: &str,
    paths: Option<Vec<String>>,
) -> Result<Hashes> {
    let doing = || format!("reading column {key} of the Delta table at '{location}'");
    let session = SessionContext::new().state();
    let index = scan::provider(table, location)?
        .schema()
        .index_of(key)
        .map_err(|e| Error::while_doing(doing(), e))?;
    let projection = vec![index];
    let plan = match paths {
        None => scan::plan(table, location, &session, Some(&projection), &[], None).await,
        Some(paths) => scan::plan_files(table, location, &session, &projection, paths).await,
    };
    let mut stream = plan
        .and_then(|plan| execute_stream(plan, session.task_ctx()))
        .map_err(|e| Error::while_doing(doing(), e))?;
    let mut out = Hashes::default();
    while let Some(batch) = stream
        .try_next()
        .await
        .map_err(|e| Error::while_doing(doing(), e))?
    {
        out = collect(out, batch.column(0), key).await?;
    }
    Ok(out)
}
