//! `casebook::install`: all that a DataFusion host needs to call.

use std::sync::Arc;

use datafusion::execution::context::SessionContext;
use datafusion::prelude::SessionConfig;

use crate::context::Casebook;
use crate::error::Result;
use crate::settings::CasebookConfig;

/// Rows per batch of the program's own session: documents are large.
const BATCH_ROWS: usize = 256;

/// A session set up for documents, with Casebook installed.
pub fn new_session(casebook: &Arc<Casebook>) -> Result<SessionContext> {
    let mut config = SessionConfig::new()
        .with_batch_size(BATCH_ROWS)
        .with_information_schema(true)
        .with_option_extension(CasebookConfig::default());
    let options = config.options_mut();
    options.execution.parquet.schema_force_view_types = true;
    // Spreading rows over partitions first fills large batches: generation would run far ahead of
    // a LIMIT, and documents would pile up in memory.
    options.optimizer.enable_round_robin_repartition = false;
    let ctx = SessionContext::new_with_config(config);
    install(&ctx, casebook)?;
    Ok(ctx)
}

/// Adds Casebook's functions, table formats and settings to `ctx`.
///
/// Call it once per context, after anything that returns another context (such as
/// `enable_url_table`). Planners and factories that the host registered stay in place.
pub fn install(ctx: &SessionContext, casebook: &Arc<Casebook>) -> Result<()> {
    {
        let state = ctx.state_ref();
        let mut state = state.write();
        let options = state.config_mut().options_mut();
        if options.extensions.get::<CasebookConfig>().is_none() {
            options.extensions.insert(CasebookConfig::default());
        }
    }
    crate::functions::register(ctx, casebook)?;
    crate::sinks::register(ctx, casebook)?;
    let options = casebook_connectors::ConnectorOptions {
        table_schemas: vec![(crate::schema::QA_PAIRS, crate::schema::qa_pairs())],
        ..Default::default()
    };
    casebook_connectors::register(ctx, &options)?;
    Ok(())
}
