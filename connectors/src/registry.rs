//! The list of connectors, and their registration in a session. Nothing below imports it.

use std::sync::Arc;

use datafusion::execution::context::SessionContext;

use crate::connector::{Connector, ConnectorOptions};
use crate::csv;
use crate::databricks;
use crate::delta;
use crate::error::{Error, Result};
use crate::files;
use crate::odbc;
use crate::rejects::{self, RejectsFactory};
use crate::snowflake;

/// Every connector. Adding one is a folder and an entry here.
pub static CONNECTORS: &[&Connector] = &[
    &files::CSV,
    &files::PARQUET,
    &files::JSON,
    &delta::CONNECTOR,
    &databricks::CONNECTOR,
    &odbc::CONNECTOR,
    &snowflake::CONNECTOR,
];

/// Other names for a connector.
const ALIASES: &[(&str, &str)] = &[
    ("NDJSON", "JSON"),
    ("JSONL", "JSON"),
    ("DELTATABLE", "DELTA"),
];

/// Adds every connector to `ctx`, and our CSV reader if `options` say so.
pub fn register(ctx: &SessionContext, options: &ConnectorOptions) -> Result<()> {
    let state = ctx.state_ref();
    let mut state = state.write();
    for connector in CONNECTORS {
        let mut factory = (connector.factory)(connector, options);
        if connector
            .options
            .iter()
            .any(|o| o.key == rejects::OPTION.key)
        {
            factory = Arc::new(RejectsFactory(factory));
        }
        let aliases = ALIASES.iter().filter(|(_, name)| *name == connector.name);
        for name in aliases.map(|(alias, _)| *alias).chain([connector.name]) {
            state
                .table_factories_mut()
                .insert(name.to_owned(), Arc::clone(&factory));
        }
    }
    if options.replace_csv {
        let format = csv::CsvTextFormatFactory::new(options.csv_limits.clone());
        state
            .register_file_format(Arc::new(format), true)
            .map_err(|e| Error::while_doing("registering the CSV reader", e))?;
    }
    Ok(())
}
