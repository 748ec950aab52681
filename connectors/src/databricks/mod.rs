//! STORED AS DATABRICKS: tables of Unity Catalog.
//!
//! ```sql
//! CREATE EXTERNAL TABLE cases STORED AS DATABRICKS LOCATION 'main.legal.cases'
//!   OPTIONS ('databricks.host' '...', 'databricks.token' '...', 'databricks.warehouse_id' '...')
//! ```
//!
//! Where it can, a table is read and written as the Delta files it consists of, with temporary
//! credentials that the catalog lends ([`vended`], [`delta::stores`]). Where something stands in the way
//! ([`features`]), the SQL Statement Execution API of a warehouse takes over ([`statement`],
//! [`chunks`], [`sink`]).

#[cfg_attr(
    not(all(feature = "s3", feature = "azure", feature = "gcs")),
    allow(dead_code) // keys of storages that this build leaves out
)]
mod catalog;
mod check;
mod chunks;
mod client;
mod expiring;
mod features;
mod listing;
mod messages;
mod name;
mod open;
mod options;
mod rows;
mod scan;
mod settings;
mod sink;
mod statement;
mod storage;
mod table;
mod types;
mod vended;

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider, TableProviderFactory};
use datafusion::logical_expr::CreateExternalTable;

use crate::connector::{Connector, ConnectorOptions, Maturity};
use crate::declared;
use crate::delta::{self, DeltaFactory};
use crate::error::{Error, Result};

use name::TableName;
use open::Workspace;
use settings::Settings;
use table::DatabricksTable;

use options::OPTIONS;

/// `STORED AS DATABRICKS`.
pub(crate) static CONNECTOR: Connector = Connector {
    name: "DATABRICKS",
    summary: "tables of Unity Catalog, as files or through a SQL warehouse",
    reads: true,
    writes: true,
    pushdown: "projection, filters, LIMIT",
    authentication: "access token; OAuth client (machine to machine)",
    maturity: Maturity::Preview,
    options: OPTIONS,
    check: |c, request| Box::pin(check::check(c, request)),
    factory: |c, o| Arc::new(DatabricksFactory::new(c, o)),
};

/// Opens or creates the table that a statement names.
#[derive(Debug)]
pub(crate) struct DatabricksFactory {
    connector: &'static Connector,
    table_schemas: Vec<(&'static str, SchemaRef)>,
    delta: DeltaFactory,
}

impl DatabricksFactory {
    pub(crate) fn new(connector: &'static Connector, options: &ConnectorOptions) -> Self {
        Self {
            connector,
            table_schemas: options.table_schemas.clone(),
            delta: DeltaFactory::new(&delta::CONNECTOR, options),
        }
    }

    async fn provider(
        &self,
        state: &dyn Session,
        cmd: &CreateExternalTable,
    ) -> Result<DatabricksTable> {
        let settings = Settings::parse(self.connector, &cmd.name.to_string(), &cmd.options)?;
        let [location] = &cmd.locations[..] else {
            return Err(Error::invalid(format!(
                "DATABRICKS table {} needs exactly one LOCATION",
                cmd.name
            )));
        };
        let name = TableName::parse(location)?;
        let (known, more) = (&self.table_schemas, cmd.schema.inner());
        let declared = declared::asked_for(known, settings.create.as_deref(), more)?;
        let workspace = Workspace::new(settings)?;
        workspace
            .open(state, cmd, &self.delta, name, declared)
            .await
    }
}

#[async_trait]
impl TableProviderFactory for DatabricksFactory {
    async fn create(
        &self,
        state: &dyn Session,
        cmd: &CreateExternalTable,
    ) -> datafusion::error::Result<Arc<dyn TableProvider>> {
        Ok(Arc::new(self.provider(state, cmd).await?))
    }
}
