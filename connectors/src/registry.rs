//! The list of connectors, and their registration in a session. Nothing below imports it.

use std::sync::Arc;

use datafusion::datasource::file_format::FileFormatFactory;
use datafusion::execution::context::SessionContext;

use crate::connector::{Connector, ConnectorOptions, FileReaders};
use crate::csv;
use crate::databricks;
use crate::delta;
use crate::error::{Error, Result};
use crate::files;
use crate::guard::ParquetFactory;
use crate::inserted;
use crate::json;
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

/// Stands before the names of file formats where the session's own readers stay.
const PREFIX: &str = "CASEBOOK_";

/// Adds every connector to `ctx`. Only [`FileReaders::Replace`] takes a name that the session has.
pub fn register(ctx: &SessionContext, options: &ConnectorOptions) -> Result<()> {
    inserted::register(ctx, CONNECTORS.iter().map(|c| c.is_table));
    let state = ctx.state_ref();
    let mut state = state.write();
    let replace = options.files == FileReaders::Replace;
    let tables = state.table_factories_mut();
    for connector in CONNECTORS {
        let is_file = [&files::CSV, &files::PARQUET, &files::JSON]
            .iter()
            .any(|file| file.name == connector.name);
        if is_file && options.files == FileReaders::Leave {
            continue;
        }
        let mut factory = (connector.factory)(connector, options);
        if connector
            .options
            .iter()
            .any(|o| o.key == rejects::OPTION.key)
        {
            factory = Arc::new(RejectsFactory {
                tables: factory,
                accepted: options.accepted,
            });
        }
        let aliases = ALIASES.iter().filter(|(_, name)| *name == connector.name);
        for name in aliases.map(|(alias, _)| *alias).chain([connector.name]) {
            let name = match is_file && !replace {
                true => format!("{PREFIX}{name}"),
                false => name.to_owned(),
            };
            if replace || !tables.contains_key(&name) {
                tables.insert(name, Arc::clone(&factory));
            }
        }
    }
    if replace {
        // What COPY and a statement on a file's path read and write.
        let formats: [Arc<dyn FileFormatFactory>; 3] = [
            Arc::new(csv::CsvTextFormatFactory::new(options.csv_limits.clone())),
            Arc::new(json::JsonTextFormatFactory),
            Arc::new(ParquetFactory { base: None }),
        ];
        for format in formats {
            let registered = state.register_file_format(format, true);
            registered.map_err(|e| Error::while_doing("registering the readers of files", e))?;
        }
    }
    Ok(())
}
