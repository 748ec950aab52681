//! The list of connectors, and their registration in a session.

use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProviderFactory;
use datafusion::execution::context::SessionContext;

use crate::check::Check;
use crate::check_files;
use crate::csv::{self, CsvLimits};
#[cfg(feature = "databricks")]
use crate::databricks;
use crate::delta::{self, DeltaFactory};
use crate::error::{Error, ErrorKind, Result};
use crate::files::{self, FilesFactory};
use crate::left_out::LEFT_OUT;
use crate::odbc::{self, OdbcFactory};
use crate::rejects::{self, RejectsFactory};
#[cfg(feature = "snowflake")]
use crate::snowflake;

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
    /// What the source takes over from a query.
    pub pushdown: &'static str,
    /// How it is signed in to.
    pub authentication: &'static str,
    /// How far it is proven.
    pub maturity: Maturity,
    /// Options beside those of the object stores; `format.*` keys go to DataFusion.
    pub options: &'static [OptionSpec],
    /// What `casebook check` runs.
    pub check: Check,
    factory: fn(&Connector, &ConnectorOptions) -> Arc<dyn TableProviderFactory>,
}

/// How far a connector is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maturity {
    /// Tested against a stand-in of our own; no real account has been seen.
    Preview,
    /// Tested against a third party's server or emulator of the same protocol.
    Beta,
    /// Tested against the real thing.
    Stable,
}

impl Maturity {
    /// In lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Preview => "preview",
            Self::Beta => "beta",
            Self::Stable => "stable",
        }
    }
}

/// One key of OPTIONS.
#[derive(Debug, Clone, Copy)]
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

/// How files are signed in to.
const FILES: &str = "keys, roles and tokens of the object store";

/// Every connector. Adding one is a file and an entry here.
pub static CONNECTORS: &[Connector] = &[
    Connector {
        name: "CSV",
        summary: "CSV files as they come: quoted line breaks, huge cells, gzip, zstd",
        reads: true,
        writes: true,
        pushdown: "projection; LIMIT",
        authentication: FILES,
        maturity: Maturity::Stable,
        options: files::CSV_OPTIONS,
        check: |request| Box::pin(check_files::check("CSV", request)),
        factory: |c, o| Arc::new(FilesFactory::new(c, o)),
    },
    Connector {
        name: "PARQUET",
        summary: "Parquet files, read by row group, written once",
        reads: true,
        writes: true,
        pushdown: "projection, filters (row groups, pages), LIMIT",
        authentication: FILES,
        maturity: Maturity::Stable,
        options: files::OPTIONS,
        check: |request| Box::pin(check_files::check("PARQUET", request)),
        factory: |c, o| Arc::new(FilesFactory::new(c, o)),
    },
    Connector {
        name: "JSON",
        summary: "JSON, one object per line, gzip, zstd",
        reads: true,
        writes: true,
        pushdown: "projection, LIMIT",
        authentication: FILES,
        maturity: Maturity::Stable,
        options: files::OPTIONS,
        check: |request| Box::pin(check_files::check("JSON", request)),
        factory: |c, o| Arc::new(FilesFactory::new(c, o)),
    },
    Connector {
        name: "DELTA",
        summary: "Delta Lake tables, created and merged by key if asked",
        reads: true,
        writes: true,
        pushdown: "projection, filters (files, row groups), LIMIT",
        authentication: FILES,
        maturity: Maturity::Stable,
        options: delta::OPTIONS,
        check: |request| Box::pin(check_files::check("DELTA", request)),
        factory: |c, o| Arc::new(DeltaFactory::new(c, o)),
    },
    #[cfg(feature = "databricks")]
    Connector {
        name: "DATABRICKS",
        summary: "tables of Unity Catalog, as files or through a SQL warehouse",
        reads: true,
        writes: true,
        pushdown: "projection, filters, LIMIT",
        authentication: "access token; OAuth client (machine to machine)",
        maturity: Maturity::Preview,
        options: databricks::OPTIONS,
        check: |request| Box::pin(databricks::check(request)),
        factory: |c, o| Arc::new(databricks::DatabricksFactory::new(c, o)),
    },
    Connector {
        name: "ODBC",
        summary: "tables of any system with an ODBC driver (needs the feature odbc)",
        reads: true,
        writes: true,
        pushdown: "projection, filters, LIMIT, in the system's dialect",
        authentication: "connection string or data source name, user and password",
        maturity: Maturity::Stable,
        options: odbc::OPTIONS,
        check: |request| Box::pin(odbc::check(request)),
        factory: |c, o| Arc::new(OdbcFactory::new(c, o)),
    },
    #[cfg(feature = "snowflake")]
    Connector {
        name: "SNOWFLAKE",
        summary: "Snowflake tables, streamed as Arrow, created and merged by key if asked",
        reads: true,
        writes: true,
        pushdown: "projection, filters, LIMIT",
        authentication: "password, key pair, OAuth, access token",
        maturity: Maturity::Beta,
        options: snowflake::OPTIONS,
        check: |request| Box::pin(snowflake::check(request)),
        factory: |c, o| Arc::new(snowflake::SnowflakeFactory::new(c, o)),
    },
];

/// The connector called `name`.
pub(crate) fn named(name: &str) -> Result<&'static Connector> {
    let found = CONNECTORS.iter().find(|c| c.name == name);
    found.ok_or_else(|| Error::new(ErrorKind::Internal, format!("no connector {name}")))
}

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
    for absent in LEFT_OUT {
        let tables = state.table_factories_mut();
        tables.insert(absent.name.to_owned(), Arc::new(absent));
    }
    if options.replace_csv {
        let format = csv::CsvTextFormatFactory::new(options.csv_limits.clone());
        state
            .register_file_format(Arc::new(format), true)
            .map_err(|e| Error::while_doing("registering the CSV reader", e))?;
    }
    Ok(())
}
