//! INSERT INTO targets that are not connectors: one file per target, listed in [`SINKS`].

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::catalog::TableProviderFactory;
use datafusion::execution::context::SessionContext;

use crate::context::Casebook;
use crate::error::Result;

mod jsonl;
pub mod lora;

/// A table format that exists to be inserted into.
pub(crate) struct Sink {
    /// `STORED AS` name, upper case.
    pub(crate) name: &'static str,
    /// Builds the factory for one session.
    pub(crate) factory: fn(&Arc<Casebook>) -> Arc<dyn TableProviderFactory>,
    /// Refuses wrong options of the table of this name, as far as nothing else is needed for it.
    pub(crate) check: fn(&str, &HashMap<String, String>) -> Result<()>,
}

/// Every sink. Adding one is a file and a line here.
pub(crate) static SINKS: &[Sink] = &[lora::SINK, jsonl::SINK];

/// Adds every sink's factory to `ctx`.
pub(crate) fn register(ctx: &SessionContext, casebook: &Arc<Casebook>) -> Result<()> {
    let state = ctx.state_ref();
    let mut state = state.write();
    for sink in SINKS {
        state
            .table_factories_mut()
            .insert(sink.name.to_owned(), (sink.factory)(casebook));
    }
    Ok(())
}
