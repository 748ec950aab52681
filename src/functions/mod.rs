//! The SQL functions, one file or folder each. Registration reads [`register`] only.

use std::sync::Arc;

use datafusion::execution::context::SessionContext;

use crate::context::Casebook;
use crate::error::Result;

mod ask;
mod async_calls;
mod chunk_text;
pub mod docs_to_qa;
pub(crate) mod lookup;
mod score;
mod text_slice;
mod train_log;

/// Adds every function to `ctx`.
pub(crate) fn register(ctx: &SessionContext, casebook: &Arc<Casebook>) -> Result<()> {
    docs_to_qa::register(ctx, casebook)?;
    chunk_text::register(ctx, casebook)?;
    text_slice::register(ctx, casebook)?;
    ask::register(ctx, casebook)?;
    async_calls::register(ctx);
    score::register(ctx, casebook)?;
    train_log::register(ctx, casebook)?;
    Ok(())
}
