//! CSV, PARQUET and JSON: DataFusion's listing tables, reached through our options and stores.
//!
//! Reading, pruning and encoding stay the library's. Ours are which files a LOCATION means
//! ([`locate`]), the declared schemas, and how an INSERT becomes visible ([`sink`], [`commit`]):
//! whole, and once.

mod batches;
pub(crate) mod check;
mod commit;
mod keys;
mod locate;
mod options;
mod schema;
mod sink;
mod table;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider, TableProviderFactory};
use datafusion::datasource::file_format::FileFormatFactory;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig};
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::logical_expr::CreateExternalTable;

use crate::connector::{Connector, ConnectorOptions, FILES, Maturity};
use crate::csv::CsvTextFormatFactory;
use crate::declared;
use crate::error::{Error, ErrorKind, Result};
use crate::guard::GuardedFormat;
use crate::location;
use crate::options::TableOptions;

use locate::Located;
use options::{CSV_OPTIONS, OPTIONS, WRITE_KEYS, WriteOptions};
use table::FilesTable;

/// `STORED AS CSV`.
pub(crate) static CSV: Connector = Connector {
    name: "CSV",
    summary: "CSV files as they come: quoted line breaks, huge cells, gzip, zstd",
    reads: true,
    writes: true,
    pushdown: "projection; LIMIT",
    authentication: FILES,
    maturity: Maturity::Stable,
    options: CSV_OPTIONS,
    check: |c, request| Box::pin(check::check(c, request)),
    factory: |c, o| Arc::new(FilesFactory::new(c, o)),
};

/// `STORED AS PARQUET`.
pub(crate) static PARQUET: Connector = Connector {
    name: "PARQUET",
    summary: "Parquet files, read by row group, written once",
    reads: true,
    writes: true,
    pushdown: "projection, filters (row groups, pages), LIMIT",
    authentication: FILES,
    maturity: Maturity::Stable,
    options: OPTIONS,
    check: |c, request| Box::pin(check::check(c, request)),
    factory: |c, o| Arc::new(FilesFactory::new(c, o)),
};

/// `STORED AS JSON`.
pub(crate) static JSON: Connector = Connector {
    name: "JSON",
    summary: "JSON, one object per line, gzip, zstd",
    reads: true,
    writes: true,
    pushdown: "projection, LIMIT",
    authentication: FILES,
    maturity: Maturity::Stable,
    options: OPTIONS,
    check: |c, request| Box::pin(check::check(c, request)),
    factory: |c, o| Arc::new(FilesFactory::new(c, o)),
};

/// Encoded bytes of a Parquet row group: what a writer, and later a reader, has in memory.
const ROW_GROUP_BYTES: &str = "67108864";

/// Opens the files that a statement names.
#[derive(Debug)]
pub(crate) struct FilesFactory {
    connector: &'static Connector,
    table_schemas: Vec<(&'static str, SchemaRef)>,
    /// Ours whatever the session's own reader of CSV is.
    csv: Arc<dyn FileFormatFactory>,
}

impl FilesFactory {
    pub(crate) fn new(connector: &'static Connector, options: &ConnectorOptions) -> Self {
        Self {
            connector,
            table_schemas: options.table_schemas.clone(),
            csv: Arc::new(CsvTextFormatFactory::new(options.csv_limits.clone())),
        }
    }

    async fn table(&self, state: &dyn Session, cmd: &CreateExternalTable) -> Result<FilesTable> {
        let name = cmd.name.to_string();
        let options = TableOptions::parse(self.connector, &name, &cmd.options)?;
        let write = WriteOptions::new(&options)?;
        let (known, more) = (&self.table_schemas, cmd.schema.inner());
        let declared = declared::asked_for(known, options.get("table.create"), more)?;
        let mut located = vec![];
        for location in &cmd.locations {
            let is_new = declared.is_some();
            let found =
                Located::find(state, location, &options, self.connector.name, is_new).await?;
            located.push(found.with_table(&cmd.name));
        }
        let doing = || format!("opening {} table {name}", self.connector.name);
        let failed = |e: DataFusionError| Error::while_doing(doing(), e);
        let listing = self.listing(state, cmd, &options, &located);
        let listing = listing.map_err(failed)?;
        let listing = match declared.is_none() && cmd.schema.fields().is_empty() {
            true => schema::with_found_partitions(state, listing, &located).await,
            false => Ok(listing),
        };
        let listing = listing.map_err(failed)?;
        for place in &located {
            let checked = listing.validate_partitions(state, &place.url).await;
            checked.map_err(failed)?;
        }
        let partitions = listing.table_partition_cols.iter().map(|(name, _)| name);
        let partitions: Vec<&String> = partitions.collect();
        let schema = match (declared, cmd.schema.fields().is_empty()) {
            (Some(declared), _) => {
                schema::check_declared(self.connector.name, state, &listing, &located, &declared)
                    .await?;
                declared
            }
            (None, true) => {
                // The library checks that all files agree.
                let mut inferred = None;
                for place in &located {
                    let found = listing.infer_schema(state, &place.url).await;
                    let found = found.map_err(|e| place.nothing_found(e))?;
                    schema::agree(&mut inferred, found, &place.shown)?;
                }
                inferred.ok_or_else(|| Error::invalid(format!("table {name} has no LOCATION")))?
            }
            (None, false) => {
                let fields = cmd.schema.fields().iter();
                let own = fields.filter(|f| !partitions.contains(&f.name()));
                Arc::new(Schema::new(own.cloned().collect::<Vec<_>>()))
            }
        };
        let urls = located.iter().map(|l| l.url.clone()).collect();
        let config = ListingTableConfig::new_with_multi_paths(urls)
            .with_listing_options(listing)
            .with_schema(schema::with_views(&schema));
        // The statement holds credentials where options or a location name them.
        let clean = |location: &String| location::shown(location) == location.as_str();
        let clean = options.store.is_empty() && cmd.locations.iter().all(clean);
        let shown = clean.then(|| cmd.definition.clone());
        let inner = ListingTable::try_new(config)
            .map_err(failed)?
            .with_cache(state.runtime_env().cache_manager.get_file_statistic_cache())
            .with_definition(shown.flatten())
            .with_constraints(cmd.constraints.clone())
            .with_column_defaults(cmd.column_defaults.clone());
        FilesTable::try_new(inner, located, write)
    }

    fn listing(
        &self,
        state: &dyn Session,
        cmd: &CreateExternalTable,
        options: &TableOptions,
        located: &[Located],
    ) -> datafusion::error::Result<ListingOptions> {
        let session = state.as_any().downcast_ref::<SessionState>();
        let factory = match self.connector.name {
            "CSV" => Some(Arc::clone(&self.csv)),
            name => session.and_then(|s| s.get_file_format_factory(name)),
        };
        let (Some(session), Some(factory)) = (session, factory) else {
            let message = format!("the session has no file format {}", self.connector.name);
            return Err(Error::new(ErrorKind::Unsupported, message).into());
        };
        let mut passed: HashMap<String, String> = options.format.clone();
        for (key, value) in &options.own {
            if !WRITE_KEYS.contains(key) {
                passed.insert((*key).to_owned(), value.clone());
            }
        }
        let mut default = |key: &str, value: &str| {
            passed.entry(key.into()).or_insert_with(|| value.to_owned());
        };
        match self.connector.name {
            "PARQUET" => {
                // The library's parallel writer bounds rows only, and a row can be megabytes.
                default("format.max_row_group_bytes", ROW_GROUP_BYTES);
                default("format.allow_single_file_parallelism", "false");
                // Nanoseconds, which is what the library makes of INT96, end in the year 2262.
                let set = &state.config_options().execution.parquet.coerce_int96;
                if set.is_none() {
                    default("format.coerce_int96", "us");
                }
            }
            _ => {
                let compression = located.first().and_then(|l| l.compression);
                if let Some(compression) = compression {
                    default("format.compression", compression);
                }
            }
        }
        let declared = !cmd.schema.fields().is_empty() || options.get("table.create").is_some();
        let format = match factory.downcast_ref::<CsvTextFormatFactory>() {
            Some(ours) => ours.create_for_table(session, &passed, declared)?,
            None => factory.create(session, &passed)?,
        };
        let format = match self.connector.name {
            "PARQUET" => GuardedFormat::new(format, located.first().map(Located::base)),
            _ => format,
        };
        // Places that are files or globs name their files themselves.
        let extension = match located {
            [one] => one.extension.clone(),
            _ => String::new(),
        };
        let columns = cmd.table_partition_cols.iter().map(|name| {
            let declared = cmd.schema.inner().field_with_name(name);
            let kind = declared.map(|f| f.data_type().clone());
            (
                name.clone(),
                kind.unwrap_or_else(|_| schema::partition_type()),
            )
        });
        Ok(ListingOptions::new(format)
            .with_file_extension(extension)
            .with_file_sort_order(cmd.order_exprs.clone())
            .with_table_partition_cols(columns.collect()))
    }
}

#[async_trait]
impl TableProviderFactory for FilesFactory {
    async fn create(
        &self,
        state: &dyn Session,
        cmd: &CreateExternalTable,
    ) -> datafusion::error::Result<Arc<dyn TableProvider>> {
        Ok(Arc::new(self.table(state, cmd).await?))
    }
}
