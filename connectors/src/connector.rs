//! The list of connectors, and their registration in a session.

use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProviderFactory;
use datafusion::execution::context::SessionContext;

use crate::csv::{self, CsvLimits};
use crate::delta::DeltaFactory;
use crate::error::{Error, Result};
use crate::listing::ListingFactory;

/// A table format that SQL can name in `STORED AS`.
#[derive(Debug)]
pub struct Connector {
    /// `STORED AS` name, upper case.
    pub name: &'static str,
    /// One line of documentation.
    pub summary: &'static str,
    /// True if tables can be read.
    pub reads: bool,
    /// True if `INSERT INTO` works.
    pub writes: bool,
    /// Options beside those of the object stores; `format.*` keys go to DataFusion.
    pub options: &'static [OptionSpec],
    factory: fn(&Connector, &ConnectorOptions) -> Arc<dyn TableProviderFactory>,
}

/// One key of OPTIONS.
#[derive(Debug)]
pub struct OptionSpec {
    /// Dotted key, lower case.
    pub key: &'static str,
    /// True if the value must never be printed.
    pub secret: bool,
    /// What absence means.
    pub default: &'static str,
    /// One line of documentation.
    pub doc: &'static str,
}

/// What a host gives to [`register`].
#[derive(Debug, Clone)]
pub struct ConnectorOptions {
    /// Schemas that `'table.create' 'NAME'` can create.
    pub table_schemas: Vec<(&'static str, SchemaRef)>,
    /// Limits of the CSV reader where a table's options say nothing.
    pub csv_limits: CsvLimits,
    /// Replace DataFusion's CSV reader in the session; off, its own stays and `csv.*` options are
    /// errors.
    pub replace_csv: bool,
}

impl Default for ConnectorOptions {
    fn default() -> Self {
        Self {
            table_schemas: vec![],
            csv_limits: CsvLimits::default(),
            replace_csv: true,
        }
    }
}

const DELTA_OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        key: "table.create",
        secret: false,
        default: "the table must exist",
        doc: "name of the declared schema with which a missing table is created (qa_pairs)",
    },
    OptionSpec {
        key: "write.key",
        secret: false,
        default: "INSERT appends",
        doc: "column that identifies a row: INSERT adds only rows whose key is not there yet",
    },
    OptionSpec {
        key: "delta.version",
        secret: false,
        default: "the latest, per statement",
        doc: "version to read",
    },
    OptionSpec {
        key: "delta.timestamp",
        secret: false,
        default: "the latest, per statement",
        doc: "RFC 3339 time whose version to read",
    },
];

/// Every connector. Adding one is a file and an entry here.
pub static CONNECTORS: &[Connector] = &[
    Connector {
        name: "CSV",
        summary: "CSV files as they come: quoted line breaks, huge cells, gzip, zstd",
        reads: true,
        writes: true,
        options: csv::OPTIONS,
        factory: |c, o| Arc::new(ListingFactory::new(c, o)),
    },
    Connector {
        name: "PARQUET",
        summary: "Parquet files",
        reads: true,
        writes: true,
        options: &[],
        factory: |c, o| Arc::new(ListingFactory::new(c, o)),
    },
    Connector {
        name: "JSON",
        summary: "JSON, one object per line",
        reads: true,
        writes: true,
        options: &[],
        factory: |c, o| Arc::new(ListingFactory::new(c, o)),
    },
    Connector {
        name: "DELTA",
        summary: "Delta Lake tables, created and merged by key if asked",
        reads: true,
        writes: true,
        options: DELTA_OPTIONS,
        factory: |c, o| Arc::new(DeltaFactory::new(c, o)),
    },
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
        let factory = (connector.factory)(connector, options);
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
