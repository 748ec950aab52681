//! Snowflake tables: read as Arrow streams, created on request, written once only.
//!
//! `LOCATION 'database.schema.table'`; see [`name`] for how names are found and [`types`] for how
//! columns are called. The transport is snowflake-api's; its session, its messages and its reading
//! of results are not used: they refuse answers with unknown fields, hold whole results in memory
//! and put the first rows last.

mod arrays;
mod check;
mod chunks;
mod decode;
mod edge;
mod encode;
mod errors;
mod key_pair;
mod load;
mod login;
mod messages;
mod moments;
mod name;
mod options;
mod plain;
mod read;
mod session;
mod settings;
mod stage;
mod statement;
mod system;
mod types;
mod upload;

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session as PlanSession, TableProvider, TableProviderFactory};
use datafusion::logical_expr::CreateExternalTable;

use crate::connector::{Connector, ConnectorOptions};
use crate::declared;
use crate::error::Result;
use crate::options::TableOptions;
use crate::sql::spool::SpoolLimits;
use crate::sql::table::SqlTable;
use crate::sql::target::Asked;
use crate::write::{self, WriteOptions};

use name::TableName;
use session::{Session, WhenLost};
use settings::Settings;
use system::SnowflakeSystem;

/// `STORED AS SNOWFLAKE`.
pub(crate) static CONNECTOR: Connector = Connector {
    check: |c, request, steps| Box::pin(check::check(c, request, steps)),
    is_table: |table| table.is::<SqlTable>(),
    factory: |c, o| Arc::new(SnowflakeFactory::new(c, o)),
    ..options::ABOUT
};

/// Finds or creates the table that a statement names.
#[derive(Debug)]
pub(crate) struct SnowflakeFactory {
    connector: &'static Connector,
    table_schemas: Vec<(&'static str, SchemaRef)>,
}

impl SnowflakeFactory {
    pub(crate) fn new(connector: &'static Connector, options: &ConnectorOptions) -> Self {
        Self {
            connector,
            table_schemas: options.table_schemas.clone(),
        }
    }

    async fn provider(&self, cmd: &CreateExternalTable) -> Result<SqlTable> {
        let options = TableOptions::parse(self.connector, &cmd.name.to_string(), &cmd.options)?;
        let settings = Settings::resolve(&options)?;
        let name = TableName::parse(write::one_location(cmd)?, &settings)?;
        let (known, listed) = (&self.table_schemas, cmd.schema.inner());
        let asked = Asked {
            contract: declared::asked_for(known, options.get(write::CREATE.key), listed)?,
            listed: Arc::clone(listed),
            write: WriteOptions::parse(&options)?,
            spool: SpoolLimits::parse(self.connector, &options)?,
        };
        let session = Session::new(settings, WhenLost::SignInAgain)?;
        SqlTable::open(Arc::new(SnowflakeSystem::new(session, name)), asked).await
    }
}

#[async_trait]
impl TableProviderFactory for SnowflakeFactory {
    async fn create(
        &self,
        _: &dyn PlanSession,
        cmd: &CreateExternalTable,
    ) -> datafusion::error::Result<Arc<dyn TableProvider>> {
        Ok(Arc::new(self.provider(cmd).await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Settings of an account at `host`.
    pub(super) fn settings(host: &str) -> Settings {
        let given = [
            ("snowflake.account", "acct"),
            ("snowflake.host", host),
            ("snowflake.allow_http", "true"),
            ("snowflake.user", "me"),
            ("snowflake.password", "hunter2"),
            ("snowflake.database", "\"DB1\""),
        ];
        let given = given.iter().map(|(k, v)| ((*k).into(), (*v).into()));
        let options = TableOptions::parse(&CONNECTOR, "t", &given.collect()).unwrap();
        Settings::resolve(&options).unwrap()
    }
}
