//! Any system that has an ODBC driver; links unixODBC, so the feature `odbc` is off unless asked
//! for.
//!
//! Beside what the user says, psqlODBC is told `UseDeclareFetch=1;Fetch=32;BoolsAsChar=0`, the
//! drivers of MySQL and MariaDB not to hold results (which could not be tried), and the
//! SQLite driver `StepAPI=1`: by themselves they hold a whole result, and psqlODBC shows a boolean
//! as a text. What the user sets stays. PostgreSQL is read through a cursor on the server, whose
//! blocks grow and shrink with the texts. A timestamp with a time zone arrives in the zone of the
//! database session; times of day, intervals, identifiers and JSON arrive as text, as does a
//! PostgreSQL `numeric` without a precision, whose digits no other type holds. Where a driver brings
//! other values than are stored, columns are selected as text and read here (`types::read_by`).
//!
//! Texts of any length are read whole, whatever width the driver reports ([`read`]). Every call of
//! a driver blocks, so connections live on threads of their own ([`connection`]).

mod arrays;
mod builders;
mod calendar;
mod check;
mod connection;
mod connection_string;
mod encode;
mod errors;
mod long_values;
mod name;
mod options;
mod read;
mod running;
mod server_cursor;
mod session;
mod settings;
mod system;
mod types;

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider, TableProviderFactory};
use datafusion::logical_expr::CreateExternalTable;

use crate::connector::{Connector, ConnectorOptions};
use crate::declared;
use crate::error::Result;
use crate::options::TableOptions;
use crate::sql::spool::SpoolLimits;
use crate::sql::table::SqlTable;
use crate::sql::target::Asked;
use crate::write::{self, WriteOptions};

use settings::Settings;
use system::OdbcSystem;

/// `STORED AS ODBC`.
pub(crate) static CONNECTOR: Connector = Connector {
    check: |c, request, steps| Box::pin(check::check(c, request, steps)),
    is_table: |table| table.is::<SqlTable>(),
    factory: |c, o| Arc::new(OdbcFactory::new(c, o)),
    ..options::ABOUT
};

/// Opens or creates the table that a statement names.
#[derive(Debug)]
struct OdbcFactory {
    connector: &'static Connector,
    table_schemas: Vec<(&'static str, SchemaRef)>,
}

impl OdbcFactory {
    fn new(connector: &'static Connector, options: &ConnectorOptions) -> Self {
        Self {
            connector,
            table_schemas: options.table_schemas.clone(),
        }
    }

    async fn provider(&self, cmd: &CreateExternalTable) -> Result<SqlTable> {
        let options = TableOptions::parse(self.connector, &cmd.name.to_string(), &cmd.options)?;
        let (known, listed) = (&self.table_schemas, cmd.schema.inner());
        let asked = Asked {
            contract: declared::asked_for(known, options.get(write::CREATE.key), listed)?,
            listed: Arc::clone(listed),
            write: WriteOptions::parse(&options)?,
            spool: SpoolLimits::parse(self.connector, &options)?,
        };
        let name = name::table_name(write::one_location(cmd)?)?;
        let system = OdbcSystem::new(Settings::resolve(options).await?, name);
        SqlTable::open(Arc::new(system), asked).await
    }
}

#[async_trait]
impl TableProviderFactory for OdbcFactory {
    async fn create(
        &self,
        _: &dyn Session,
        cmd: &CreateExternalTable,
    ) -> datafusion::error::Result<Arc<dyn TableProvider>> {
        Ok(Arc::new(self.provider(cmd).await?))
    }
}
