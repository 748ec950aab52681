//! Finding a LORA table by name in the session's catalogs, from places that see no catalog, and
//! through it the model that a name means.

use std::path::PathBuf;
use std::sync::Weak;

use datafusion::common::TableReference;
use datafusion::execution::session_state::SessionState;
use parking_lot::RwLock;

use crate::error::Result;
use crate::models::{ModelSpec, Models};
use crate::sinks::lora::{LoraOptions, LoraTable};

/// The session that a function was registered in.
pub(crate) type Host = Weak<RwLock<SessionState>>;

/// The LORA table called `name`, if there is one.
pub(crate) async fn lora_table(host: &Host, name: &str) -> Result<Option<LoraOptions>> {
    let Some(state) = host.upgrade() else {
        return Ok(None);
    };
    let state = state.read().clone();
    let names = &state.config_options().catalog;
    let full =
        TableReference::parse_str(name).resolve(&names.default_catalog, &names.default_schema);
    let schema = state
        .catalog_list()
        .catalog(&full.catalog)
        .and_then(|c| c.schema(&full.schema));
    let Some(schema) = schema else {
        return Ok(None);
    };
    let Some(provider) = schema.table(&full.table).await? else {
        return Ok(None);
    };
    Ok(provider
        .downcast_ref::<LoraTable>()
        .map(|table| table.options().clone()))
}

/// The model that `name` means in the session `host`; see [`Models::tuned_or_named`].
pub(crate) async fn model(models: &Models, host: &Host, name: &str) -> Result<ModelSpec> {
    let table = match models.contains(name) {
        true => None,
        false => lora_table(host, name).await?,
    };
    models.tuned_or_named(name, table.map(|table| table.tuned()))
}

/// The adapter directory that `name` means: a LORA table's, or the path itself.
pub(crate) async fn adapter_directory(host: &Host, name: &str) -> Result<PathBuf> {
    Ok(match lora_table(host, name).await? {
        Some(options) => options.directory,
        None => PathBuf::from(name),
    })
}
