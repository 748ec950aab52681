//! CSV, PARQUET and JSON: tables of files, reached through our options and stores.
//!
//! Encoding and the reading of Parquet stay the library's. Ours are which files a LOCATION means
//! ([`locate`], [`pattern`], [`listing`]), the columns of folders ([`partitions`]), the declared
//! schemas, and how an INSERT becomes visible ([`sink`], [`commit`]): whole, and once.

mod batches;
pub(crate) mod check;
mod commit;
mod cut;
mod durable;
mod ending;
mod keys;
mod listing;
mod lists;
mod locate;
mod options;
mod partitions;
mod pattern;
mod scan;
mod schema;
mod sink;
mod table;
mod target;
#[cfg(test)]
mod test_published;
mod web;
mod writer;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider, TableProviderFactory};
use datafusion::datasource::file_format::{FileFormat, FileFormatFactory};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::CreateExternalTable;

use crate::connector::{Connector, ConnectorOptions, FILES, Maturity};
use crate::csv::{CsvTextFormatFactory, Known};
use crate::declared;
use crate::error::{Error, Result};
use crate::guard::ParquetFactory;
use crate::json;
use crate::location;
use crate::options::TableOptions;
use crate::write::WriteOptions;

use ending::Ending;
use locate::Located;
use options::{CSV_OPTIONS, JSON_OPTIONS, PARQUET_OPTIONS, TABLE_KEYS};
use partitions::Partitions;
use scan::Reading;
use table::FilesTable;
use table::Notices;

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
    check: |c, request, steps| Box::pin(check::check(c, request, steps)),
    is_table: |table| table.is::<FilesTable>(),
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
    options: PARQUET_OPTIONS,
    check: |c, request, steps| Box::pin(check::check(c, request, steps)),
    is_table: |table| table.is::<FilesTable>(),
    factory: |c, o| Arc::new(FilesFactory::new(c, o)),
};

/// `STORED AS JSON`.
pub(crate) static JSON: Connector = Connector {
    name: "JSON",
    summary: "JSON, one object per line or an array of them, gzip, zstd",
    reads: true,
    writes: true,
    pushdown: "projection, LIMIT",
    authentication: FILES,
    maturity: Maturity::Stable,
    options: JSON_OPTIONS,
    check: |c, request, steps| Box::pin(check::check(c, request, steps)),
    is_table: |table| table.is::<FilesTable>(),
    factory: |c, o| Arc::new(FilesFactory::new(c, o)),
};

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
        let format_name = self.connector.name;
        let options = TableOptions::parse(self.connector, &name, &cmd.options)?;
        let write = WriteOptions::parse(&options)?;
        let (known, more) = (&self.table_schemas, cmd.schema.inner());
        let contract = declared::asked_for(known, options.get("table.create"), more)?;
        let is_declared = contract.is_some() || !cmd.schema.fields().is_empty();
        let mut places = vec![];
        for location in &cmd.locations {
            places.push(Located::find(state, location, &options, contract.is_some()).await?);
        }
        schema::check_one_store(&places)?;
        let notices = Notices::default();
        let there = schema::There::look(state, format_name, &places, &notices).await?;
        if contract.is_some() {
            there.check_new()?;
        }
        let says_compression = schema::said_compression(&options).is_some();
        let ending = there.ending(format_name, &options)?;
        let doing = || format!("opening {format_name} table {name}");
        let failed = |e: DataFusionError| Error::while_doing(doing(), e);
        let known = Known {
            declared: is_declared,
            may_lack: write.evolve,
        };
        let format = self.format(state, &options, &places, &ending, known);
        let format = format.map_err(failed)?;
        let asked = state
            .config_options()
            .execution
            .listing_table_factory_infer_partitions;
        let mut partitions: Partitions = match &cmd.table_partition_cols[..] {
            [] if !is_declared && asked => there.partitions()?,
            names => {
                let columns = contract.as_ref().unwrap_or(cmd.schema.inner());
                schema::declared_partitions(names, columns)
            }
        };
        if !cmd.table_partition_cols.is_empty() {
            schema::check_listed(&partitions)?;
            there.check_partitions(&partitions)?;
        }
        let file_schema = match contract {
            Some(declared) => {
                let own = schema::without(&declared, &partitions);
                let evolve = write.evolve;
                there.check_declared(state, &format, &own, evolve).await?;
                own
            }
            None if is_declared => {
                let declared = schema::without(cmd.schema.inner(), &partitions);
                there
                    .check_missing(state, &format, &declared, &name, &options)
                    .await?;
                declared
            }
            None => {
                let found = there.infer(state, &format).await?;
                schema::partitions_win(format_name, &found, &mut partitions)?
            }
        };
        // The statement holds credentials where options or a location name them.
        let clean = |location: &String| location::shown(location) == location.as_str();
        let clean = options.store.is_empty() && cmd.locations.iter().all(clean);
        let definition = clean.then(|| cmd.definition.clone());
        let reading = Reading {
            table: cmd.name.clone(),
            format,
            file_schema: schema::with_views(&file_schema),
            partitions,
            order: cmd.order_exprs.clone(),
            constraints: cmd.constraints.clone(),
        };
        let table = FilesTable {
            format_name,
            schema: Arc::clone(reading.table_schema().table_schema()),
            reading,
            places,
            ending,
            says_compression,
            write,
            definition: definition.flatten(),
            defaults: cmd.column_defaults.clone(),
            notices,
        };
        table.check_key()?;
        schema::warn_of_case(&table.schema, &name);
        Ok(table)
    }

    /// The reader and writer of the files.
    fn format(
        &self,
        state: &dyn Session,
        options: &TableOptions,
        places: &[Located],
        ending: &Ending,
        known: Known,
    ) -> datafusion::error::Result<Arc<dyn FileFormat>> {
        let factory: Arc<dyn FileFormatFactory> = match self.connector.name {
            "CSV" => Arc::clone(&self.csv),
            "JSON" => Arc::new(json::JsonTextFormatFactory),
            _ => Arc::new(ParquetFactory {
                base: places.first().map(|place| place.store.clone()),
            }),
        };
        let mut passed: HashMap<String, String> = options.format.clone();
        for (key, value) in &options.own {
            if !TABLE_KEYS.contains(key) {
                passed.insert((*key).to_owned(), value.clone());
            }
        }
        let mut default = |key: &str, value: &str| {
            passed.entry(key.into()).or_insert_with(|| value.to_owned());
        };
        if self.connector.name != "PARQUET"
            && let Some(compression) = ending.compression()
        {
            default("format.compression", compression);
        }
        if self.connector.name == "JSON" && known.declared {
            default(json::UNKNOWN_KEYS, "ignore");
        }
        match factory.downcast_ref::<CsvTextFormatFactory>() {
            Some(ours) => ours.create_for_table(state, &passed, known),
            None => factory.create(state, &passed),
        }
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
