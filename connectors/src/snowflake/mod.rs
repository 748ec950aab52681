//! Snowflake tables: read as Arrow streams, created on request, written once only.
//!
//! `LOCATION 'database.schema.table'`; see [`name`] for how names are found and [`columns`] for how
//! columns are called. The transport is snowflake-api's; its session, its messages and its reading
//! of results are not used: they refuse answers with unknown fields, hold whole results in memory
//! and put the first rows last.

mod arrays;
mod bind;
mod check;
mod chunks;
mod columns;
mod decode;
mod edge;
mod key_pair;
mod login;
mod messages;
mod moments;
mod name;
mod options;
mod refusals;
mod rows;
mod scan;
mod session;
mod settings;
mod sink;
mod stage;
mod statement;
mod table;
mod types;
mod upload;

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session as PlanSession, TableProvider, TableProviderFactory};
use datafusion::logical_expr::CreateExternalTable;

use crate::connector::{Connector, ConnectorOptions, Maturity};
use crate::declared;
use crate::error::{Error, ErrorKind, Result};
use crate::options::TableOptions;
use crate::sql::ddl;
use crate::sql::dialect::SNOWFLAKE;

use columns::Columns;
use name::{TableName, quoted};
use session::{Session, WhenLost};
use settings::Settings;
use statement::Statement;
use table::SnowflakeTable;

use options::OPTIONS;

/// `STORED AS SNOWFLAKE`.
pub(crate) static CONNECTOR: Connector = Connector {
    name: "SNOWFLAKE",
    summary: "Snowflake tables, streamed as Arrow, created and merged by key if asked",
    reads: true,
    writes: true,
    pushdown: "projection, filters, LIMIT",
    authentication: "password, key pair, OAuth, access token",
    maturity: Maturity::Beta,
    options: OPTIONS,
    check: |c, request| Box::pin(check::check(c, request)),
    factory: |c, o| Arc::new(SnowflakeFactory::new(c, o)),
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

    async fn provider(&self, cmd: &CreateExternalTable) -> Result<SnowflakeTable> {
        let table = cmd.name.to_string();
        let options = TableOptions::parse(self.connector, &table, &cmd.options)?;
        let settings = Settings::resolve(&options)?;
        let [location] = &cmd.locations[..] else {
            return Err(Error::invalid(format!(
                "Snowflake table {table} needs exactly one LOCATION"
            )));
        };
        let name = TableName::parse(location, &settings)?;
        let key = options.get("write.key");
        let (known, listed) = (&self.table_schemas, cmd.schema.inner());
        let contract = declared::asked_for(known, options.get("table.create"), listed)?;
        let session = Session::new(settings, WhenLost::SignInAgain)?;
        let (parts, found) = match (find(&session, &name).await?, &contract) {
            (Some(found), _) => found,
            (None, Some(schema)) => create(&session, &name, schema, key).await?,
            (None, None) => return Err(missing(&session, &name)),
        };
        let shown = quoted(&parts);
        let columns = match &contract {
            Some(schema) => {
                declared::check_same(schema, found.schema(), &shown)?;
                found.declared_as(schema, &shown)?
            }
            None if listed.fields().is_empty() => found,
            None => found.declared_as(listed, &shown)?,
        };
        SnowflakeTable::new(session, parts, columns, key)
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

/// The name under which the table exists, and its columns; None if it does not.
async fn find(session: &Arc<Session>, name: &TableName) -> Result<Option<(Vec<String>, Columns)>> {
    for parts in name.candidates() {
        match describe(session, &parts).await {
            Ok(columns) => return Ok(Some((parts, columns))),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// The columns of a table; no row is read and no warehouse is needed.
async fn describe(session: &Arc<Session>, parts: &[String]) -> Result<Columns> {
    let table = quoted(parts);
    let doing = format!("looking at the columns of {table}");
    let sql = format!("SELECT * FROM {table}");
    let statement = Statement {
        describe_only: true,
        ..Statement::new(&doing, &sql)
    };
    let data = statement.run(session).await?;
    let rowtype = data.rowtype.filter(|columns| !columns.is_empty());
    let rowtype = rowtype.ok_or_else(|| {
        let what = format!("{doing}: Snowflake names none");
        Error::new(ErrorKind::Corrupt, what)
    })?;
    Ok(Columns::from_rowtype(&rowtype, session.settings.fold_names))
}

/// Creates the table and looks at what it is now; another session may have made it meanwhile.
async fn create(
    session: &Arc<Session>,
    name: &TableName,
    schema: &SchemaRef,
    key: Option<&str>,
) -> Result<(Vec<String>, Columns)> {
    let parts = name.folded();
    let table = quoted(&parts);
    let doing = format!("creating {table}");
    let stored = columns::unfolded(schema, session.settings.fold_names);
    let position = key.and_then(|key| schema.index_of(key).ok());
    let key = position.map(|i| stored.field(i).name().as_str());
    let sql = ddl::create_table(&SNOWFLAKE, &table, &stored, key)?;
    let reply = Statement::new(&doing, &sql).reply(session).await?;
    if !reply.success && reply.code() != refusals::EXISTS {
        return Err(refusals::statement(&doing, &session.settings, &reply));
    }
    let columns = describe(session, &parts).await?;
    Ok((parts, columns))
}

fn missing(session: &Arc<Session>, name: &TableName) -> Error {
    let names: Vec<String> = name.candidates().iter().map(|p| quoted(p)).collect();
    let role = session.settings.role.as_deref();
    let role = role.map_or("the user's role".into(), |r| format!("role {r}"));
    Error::new(
        ErrorKind::NotFound,
        format!(
            "there is no table {} in Snowflake, or {role} may not see it; check the name and the \
             role, or, to create it, say OPTIONS ('table.create' 'qa_pairs')",
            names.join(" and no ")
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Settings of an account at `host`.
    pub(super) fn settings(host: &str) -> Settings {
        let given = [
            ("snowflake.account", "acct"),
            ("snowflake.host", host),
            ("snowflake.user", "me"),
            ("snowflake.password", "hunter2"),
            ("snowflake.database", "\"DB1\""),
        ];
        let given = given.iter().map(|(k, v)| ((*k).into(), (*v).into()));
        let options = TableOptions::parse(&CONNECTOR, "t", &given.collect()).unwrap();
        Settings::resolve(&options).unwrap()
    }
}
