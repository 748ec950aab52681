//! STORED AS DATABRICKS: tables of Unity Catalog.
//!
//! ```sql
//! CREATE EXTERNAL TABLE cases STORED AS DATABRICKS LOCATION 'main.legal.cases'
//!   OPTIONS ('databricks.host' '...', 'databricks.token' '...', 'databricks.warehouse_id' '...')
//! ```
//!
//! Where it can, a table is read and written as the Delta files it consists of, with temporary
//! credentials that the catalog lends ([`vended`], [`delta::stores`]). Where something stands in the
//! way ([`features`]), the SQL Statement Execution API of a warehouse takes over ([`system`]).

#[cfg_attr(
    not(all(feature = "s3", feature = "azure", feature = "gcs")),
    allow(dead_code) // keys of storages that this build leaves out
)]
mod catalog;
mod check;
mod encode;
mod errors;
mod features;
mod listing;
mod messages;
mod name;
mod open;
mod options;
mod read;
mod session;
mod settings;
mod statement;
mod storage;
mod system;
mod table;
mod types;
mod vended;
mod vending;

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider, TableProviderFactory};
use datafusion::logical_expr::CreateExternalTable;

use crate::connector::{Connector, ConnectorOptions};
use crate::declared;
use crate::delta::{self, DeltaFactory};
use crate::error::Result;
use crate::sql::target::Asked;
use crate::write;

use name::TableName;
use open::Workspace;
use settings::Settings;
use table::DatabricksTable;

/// `STORED AS DATABRICKS`.
pub(crate) static CONNECTOR: Connector = Connector {
    check: |c, request, steps| Box::pin(check::check(c, request, steps)),
    is_table: |table| table.is::<DatabricksTable>(),
    factory: |c, o| Arc::new(DatabricksFactory::new(c, o)),
    ..options::ABOUT
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
        let name = TableName::parse(write::one_location(cmd)?)?;
        let (known, listed) = (&self.table_schemas, cmd.schema.inner());
        let asked = Asked {
            contract: declared::asked_for(known, settings.create.as_deref(), listed)?,
            listed: Arc::clone(listed),
            write: settings.write.clone(),
            spool: settings.spool,
        };
        let workspace = Workspace::new(settings)?;
        workspace.open(state, cmd, &self.delta, name, asked).await
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
