//! Finding a LORA table by name in the session's catalogs, from places that see no catalog, and
//! through it the model that a name means.

use std::path::PathBuf;
use std::sync::Arc;

use datafusion::catalog::{MemorySchemaProvider, SchemaProvider};
use datafusion::common::TableReference;
use futures::FutureExt;

use crate::catalog::DeclaredTables;
use crate::context::Host;
use crate::error::Result;
use crate::models::{ModelSpec, Models};
use crate::sinks::lora::{FORMAT, LoraOptions, LoraTable};

/// The LORA table called `name`, if there is one.
pub(crate) async fn lora_table(host: &Host, name: &str) -> Result<Option<LoraOptions>> {
    // A name of the configuration may hold a dot.
    let exact = TableReference::bare(name);
    let is_exact = schema_of(host, &exact).is_some_and(|schema| schema.table_exist(name));
    let table = match is_exact {
        true => exact,
        false => TableReference::parse_str(name),
    };
    let Some(schema) = schema_of(host, &table) else {
        return Ok(None);
    };
    let Some(provider) = schema.table(table.table()).await? else {
        return Ok(None);
    };
    Ok(provider
        .downcast_ref::<LoraTable>()
        .map(|table| table.options().clone()))
}

/// The schema that `table` is in, of the session's defaults where its name says none.
fn schema_of(host: &Host, table: &TableReference) -> Option<Arc<dyn SchemaProvider>> {
    let state = host.upgrade()?.read().clone();
    let names = &state.config_options().catalog;
    let catalog = table.catalog().unwrap_or(&names.default_catalog);
    let schema = table.schema().unwrap_or(&names.default_schema);
    state.catalog_list().catalog(catalog)?.schema(schema)
}

/// Names of the LORA tables that need no schema before them. None is opened for that.
fn lora_tables(host: &Host) -> Vec<String> {
    let Some(schema) = schema_of(host, &TableReference::bare("")) else {
        return vec![];
    };
    let declared = schema.downcast_ref::<DeclaredTables>();
    let (mut names, schema) = match declared {
        Some(declared) => declared.of_format(FORMAT),
        None => (vec![], &schema),
    };
    if let Some(open) = schema.downcast_ref::<MemorySchemaProvider>() {
        names.extend(open.table_names().into_iter().filter(|name| {
            let table = open.table(name).now_or_never();
            let table = table.and_then(|found| found.ok().flatten());
            table.is_some_and(|table| table.is::<LoraTable>())
        }));
    }
    names
}

/// The model that `name` means in the session `host`; see [`Models::tuned_or_named`].
pub(crate) async fn model(models: &Models, host: &Host, name: &str) -> Result<ModelSpec> {
    let table = match models.contains(name) {
        true => None,
        false => lora_table(host, name).await?,
    };
    let tables = || lora_tables(host);
    models.tuned_or_named(name, table.map(|table| table.tuned()), &tables)
}

/// The adapter directory that `name` means: a LORA table's, or the path itself.
pub(crate) async fn adapter_directory(host: &Host, name: &str) -> Result<PathBuf> {
    Ok(match lora_table(host, name).await? {
        Some(options) => options.directory,
        None => PathBuf::from(name),
    })
}
