//! Delta Lake tables: opened per statement, created on request, appended to or merged by key.
//!
//! The provider of the deltalake crate is a fixed snapshot; ours finds the latest version for each
//! statement, so that `INSERT INTO qa ...; SELECT ... FROM qa` in one session sees its own rows.

mod keys;
mod schema;
mod sink;
mod table;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider, TableProviderFactory};
use datafusion::logical_expr::CreateExternalTable;
use deltalake::operations::create::CreateBuilder;
use deltalake::{DeltaTable, DeltaTableBuilder, DeltaTableError, ensure_table_uri};
use url::Url;

use crate::connector::{CONNECTORS, Connector, ConnectorOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::options::{TableOptions, parse_value};
use crate::stores;

use table::DeltaProvider;

/// Opens or creates the table that a statement names.
#[derive(Debug)]
pub(crate) struct DeltaFactory {
    table_schemas: Vec<(&'static str, SchemaRef)>,
}

impl DeltaFactory {
    pub(crate) fn new(_: &Connector, options: &ConnectorOptions) -> Self {
        register_stores();
        Self {
            table_schemas: options.table_schemas.clone(),
        }
    }

    async fn provider(&self, cmd: &CreateExternalTable) -> Result<DeltaProvider> {
        let name = cmd.name.to_string();
        let connector = CONNECTORS
            .iter()
            .find(|c| c.name == "DELTA")
            .ok_or_else(|| Error::new(ErrorKind::Internal, "no connector DELTA"))?;
        let options = TableOptions::parse(connector, &name, &cmd.options)?;
        let [location] = &cmd.locations[..] else {
            return Err(Error::invalid(format!(
                "Delta table {name} needs exactly one LOCATION"
            )));
        };
        let declared = match options.get("table.create") {
            Some(contract) => Some(self.declared(contract, cmd)?),
            None => None,
        };
        let source = DeltaSource::new(location, &options, declared.is_none())?;
        let table = match source.open().await {
            Ok(table) => table,
            Err(error) if error.kind() == ErrorKind::NotFound => match &declared {
                Some(schema) => source.create(schema).await?,
                None => {
                    return Err(Error::new(
                        ErrorKind::NotFound,
                        format!(
                            "there is no Delta table at '{location}'; to create one, say OPTIONS \
                             ('table.create' 'qa_pairs')"
                        ),
                    ));
                }
            },
            Err(error) => return Err(error),
        };
        let provider = DeltaProvider::try_new(source, table).await?;
        if let Some(declared) = &declared {
            schema::check_same(declared, &provider.schema(), location)?;
        }
        match options.get("write.key") {
            Some(key) => provider.with_key(key),
            None => Ok(provider),
        }
    }

    /// The schema called `contract`, followed by the further columns that the statement declares.
    fn declared(&self, contract: &str, cmd: &CreateExternalTable) -> Result<SchemaRef> {
        let found = self
            .table_schemas
            .iter()
            .find(|(name, _)| *name == contract);
        let Some((_, schema)) = found else {
            let valid: Vec<&str> = self.table_schemas.iter().map(|(name, _)| *name).collect();
            return Err(Error::unknown("value of table.create", contract, &valid));
        };
        schema::with_columns(schema, cmd.schema.inner())
    }
}

#[async_trait]
impl TableProviderFactory for DeltaFactory {
    async fn create(
        &self,
        _: &dyn Session,
        cmd: &CreateExternalTable,
    ) -> datafusion::error::Result<Arc<dyn TableProvider>> {
        Ok(Arc::new(self.provider(cmd).await?))
    }
}

/// Makes deltalake's object stores known to it; safe to repeat.
fn register_stores() {
    #[cfg(feature = "s3")]
    deltalake::aws::register_handlers(None);
    #[cfg(feature = "azure")]
    deltalake::azure::register_handlers(None);
    #[cfg(feature = "gcs")]
    deltalake::gcp::register_handlers(None);
}

/// Where a table is and which version of it is meant.
#[derive(Clone)]
pub(crate) struct DeltaSource {
    location: String,
    url: Url,
    storage: HashMap<String, String>,
    version: Option<u64>,
    timestamp: Option<String>,
}

impl std::fmt::Debug for DeltaSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Storage options hold credentials.
        f.debug_struct("DeltaSource")
            .field("location", &self.location)
            .finish_non_exhaustive()
    }
}

impl DeltaSource {
    fn new(location: &str, options: &TableOptions, must_exist: bool) -> Result<Self> {
        let path = location.strip_prefix("file://").unwrap_or(location);
        if must_exist && stores::is_local(location) && !Path::new(path).exists() {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!(
                    "there is no directory '{path}'; to create a Delta table there, say OPTIONS \
                     ('table.create' 'qa_pairs')"
                ),
            ));
        }
        if stores::is_local(location) {
            std::fs::create_dir_all(path).map_err(|e| {
                Error::while_doing(format!("making the directory '{path}' of a Delta table"), e)
            })?;
        }
        let url = ensure_table_uri(location).map_err(|e| {
            Error::invalid(format!("location '{location}' of a Delta table: {e}")).with_source(e)
        })?;
        let version = options
            .get("delta.version")
            .map(|v| parse_value("delta.version", v, "a version number"))
            .transpose()?;
        let timestamp = options.get("delta.timestamp").map(str::to_owned);
        if version.is_some() && timestamp.is_some() {
            return Err(Error::invalid(
                "options delta.version and delta.timestamp are both given; keep one",
            ));
        }
        Ok(Self {
            location: location.to_owned(),
            url,
            storage: stores::plain_options(options),
            version,
            timestamp,
        })
    }

    /// The version meant, or the latest.
    pub(crate) async fn open(&self) -> Result<DeltaTable> {
        let doing = || format!("opening the Delta table at '{}'", self.location);
        let mut builder = self.builder()?;
        if let Some(version) = self.version {
            builder = builder.with_version(version);
        }
        if let Some(timestamp) = &self.timestamp {
            builder = builder.with_datestring(timestamp).map_err(|e| {
                Error::invalid(format!(
                    "option delta.timestamp is '{timestamp}': {e}; expected an RFC 3339 time such \
                     as 2026-01-31T00:00:00Z"
                ))
                .with_source(e)
            })?;
        }
        builder.load().await.map_err(|e| match e {
            DeltaTableError::NotATable(_) => Error::new(
                ErrorKind::NotFound,
                format!("there is no Delta table at '{}'", self.location),
            )
            .with_source(e),
            e => Error::while_doing(doing(), e),
        })
    }

    fn builder(&self) -> Result<DeltaTableBuilder> {
        let builder = DeltaTableBuilder::from_url(self.url.clone()).map_err(|e| {
            Error::while_doing(format!("opening the Delta table at '{}'", self.location), e)
        })?;
        Ok(builder
            .with_storage_options(self.storage.clone())
            .with_allow_http(true))
    }

    async fn create(&self, schema: &SchemaRef) -> Result<DeltaTable> {
        let doing = format!("creating a Delta table at '{}'", self.location);
        let fields = schema::delta_fields(schema)?;
        CreateBuilder::new()
            .with_location(self.url.as_str())
            .with_storage_options(self.storage.clone())
            .with_columns(fields)
            .await
            .map_err(|e| Error::while_doing(doing, e))
    }

    /// True if an old version is meant, which cannot be written to.
    pub(crate) fn is_pinned(&self) -> bool {
        self.version.is_some() || self.timestamp.is_some()
    }
}
