//! stub
use std::sync::Arc;
use datafusion::execution::context::SessionContext;
use crate::context::Casebook;
pub(crate) fn register(_: &SessionContext, _: &Arc<Casebook>) -> crate::Result<()> { Ok(()) }
