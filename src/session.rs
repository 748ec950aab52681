//! `casebook::install`: all that a DataFusion host needs to call; and the program's own session.

use std::num::NonZeroUsize;
use std::sync::Arc;

use casebook_connectors::FileReaders;
use datafusion::execution::context::SessionContext;
use datafusion::execution::memory_pool::{FairSpillPool, TrackConsumersPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::SessionConfig;

use crate::catalog::InformationSchema;
use crate::context::Casebook;
use crate::error::Result;
use crate::schema;
use crate::settings::CasebookConfig;

/// Rows per batch of the program's own session: documents are large.
const BATCH_ROWS: usize = 256;
/// Operators that an error about memory names: those that hold the most.
const NAMED_CONSUMERS: usize = 5;

/// What a host chooses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InstallOptions {
    /// What becomes of the host's own `STORED AS CSV`, `PARQUET` and `JSON`; by default they stay.
    pub files: FileReaders,
}

/// What a session of the program is given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionOptions {
    /// Bytes that sorting, joining and grouping may hold before they spill to disk; absent: no
    /// limit. `SET datafusion.runtime.memory_limit` changes it.
    pub memory_bytes: Option<usize>,
}

/// A session set up for documents, with Casebook installed and no limit on memory.
pub fn new_session(casebook: &Arc<Casebook>) -> Result<SessionContext> {
    new_session_with(casebook, SessionOptions::default())
}

/// A session set up for documents, with Casebook installed.
pub fn new_session_with(
    casebook: &Arc<Casebook>,
    options: SessionOptions,
) -> Result<SessionContext> {
    let mut config = SessionConfig::new()
        .with_batch_size(BATCH_ROWS)
        // Ours opens no table to list it, see below.
        .with_information_schema(false)
        .with_option_extension(CasebookConfig::default());
    let settings = config.options_mut();
    settings.execution.parquet.schema_force_view_types = true;
    // Without one, TIMESTAMP WITH TIME ZONE would be a type without.
    settings.execution.time_zone = Some("+00:00".into());
    // Spreading rows over partitions first fills large batches: generation would run far ahead of
    // a LIMIT, and documents would pile up in memory.
    settings.optimizer.enable_round_robin_repartition = false;
    let mut runtime = RuntimeEnvBuilder::new();
    if let Some(bytes) = options.memory_bytes {
        // What each sort sets aside to merge what it spilled; the library's 10 MB for each of many
        // partitions would leave nothing of a small limit.
        let share = bytes / (8 * settings.execution.target_partitions.max(1));
        let reserved = &mut settings.execution.sort_spill_reservation_bytes;
        *reserved = share.min(*reserved);
        let pool = FairSpillPool::new(bytes);
        let named = NonZeroUsize::new(NAMED_CONSUMERS).unwrap_or(NonZeroUsize::MIN);
        runtime = runtime.with_memory_pool(Arc::new(TrackConsumersPool::new(pool, named)));
    }
    let ctx = SessionContext::new_with_config_rt(config, runtime.build_arc()?);
    InformationSchema::register(&ctx)?;
    let replace = InstallOptions {
        files: FileReaders::Replace,
    };
    install_with(&ctx, casebook, replace)?;
    Ok(ctx)
}

/// Adds Casebook's functions, table formats and settings to `ctx`, and leaves what the host has:
/// `STORED AS CSV`, `PARQUET` and `JSON` stay DataFusion's ([`InstallOptions::files`]).
///
/// Call it once per context, after anything that returns another context (such as
/// `enable_url_table`). Planners and factories that the host registered stay in place.
pub fn install(ctx: &SessionContext, casebook: &Arc<Casebook>) -> Result<()> {
    install_with(ctx, casebook, InstallOptions::default())
}

/// [`install`], as `options` say.
pub fn install_with(
    ctx: &SessionContext,
    casebook: &Arc<Casebook>,
    options: InstallOptions,
) -> Result<()> {
    {
        let state = ctx.state_ref();
        let mut state = state.write();
        let settings = state.config_mut().options_mut();
        if settings.extensions.get::<CasebookConfig>().is_none() {
            settings.extensions.insert(CasebookConfig::default());
        }
    }
    crate::functions::register(ctx, casebook)?;
    crate::sinks::register(ctx, casebook)?;
    let connectors = casebook_connectors::ConnectorOptions {
        table_schemas: vec![
            (schema::QA_PAIRS, schema::qa_pairs()),
            (
                schema::QA_PAIRS_WITH_DOCUMENT,
                schema::qa_pairs_with_document(),
            ),
        ],
        accepted: Some(casebook_connectors::AcceptedRows {
            column: schema::ACCEPTED.0,
            value: schema::ACCEPTED.1,
        }),
        files: options.files,
        ..Default::default()
    };
    casebook_connectors::register(ctx, &connectors)?;
    Ok(())
}
