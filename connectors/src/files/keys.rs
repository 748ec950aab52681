//! The keys that the files of a table already hold.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::error::DataFusionError;
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;

use crate::error::{Error, Result};
use crate::keys::{Hashes, Keys, collect};

/// The keys in `column` of `table`, which errors call `into`; only that column is kept.
pub(super) async fn read(
    ctx: &SessionContext,
    table: Arc<dyn TableProvider>,
    column: &str,
    into: &str,
) -> Result<Keys> {
    let failed = |e: DataFusionError| {
        Error::while_doing(format!("reading the column {column} of a table"), e)
    };
    let index = table
        .schema()
        .index_of(column)
        .map_err(|e| failed(e.into()))?;
    let frame = ctx.read_table(table).map_err(failed)?;
    let name = frame.schema().columns()[index].clone();
    let frame = frame.select([datafusion::logical_expr::Expr::Column(name)]);
    let mut rows = frame
        .map_err(failed)?
        .execute_stream()
        .await
        .map_err(failed)?;
    let mut there = Hashes::default();
    while let Some(batch) = rows.try_next().await.map_err(failed)? {
        there = collect(there, batch.column(0), column).await?;
    }
    Ok(Keys::new(column, into, there))
}
