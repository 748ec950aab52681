//! One Snowflake table as [`crate::sql`] wants it.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::error::DataFusionError;
use futures::{StreamExt, stream};

use super::errors;
use super::load::load;
use super::messages::QueryData;
use super::name::{TableName, quoted};
use super::read::Reader;
use super::session::{Session, WhenLost};
use super::statement::Statement;
use super::types;
use crate::error::{Error, ErrorKind, Result};
use crate::sql::columns::Columns;
use crate::sql::dialect::SNOWFLAKE;
use crate::sql::exchange::{self, Described, Query, Rows, Staged};
use crate::sql::staging::Staging;
use crate::sql::system::SqlSystem;

/// A table by its name, and the session in which it is asked for.
#[derive(Debug, Clone)]
pub(super) struct SnowflakeSystem {
    pub(super) session: Arc<Session>,
    pub(super) name: TableName,
}

impl SnowflakeSystem {
    /// The columns of a table; no row is read and no warehouse is needed.
    async fn columns(&self, parts: &[String]) -> Result<Columns> {
        let table = quoted(parts);
        let doing = format!("looking at the columns of {table}");
        let sql = format!("SELECT * FROM {table}");
        let statement = Statement {
            describe_only: true,
            ..Statement::new(&doing, &sql)
        };
        let data = statement.run(&self.session).await?;
        let rowtype = data.rowtype.filter(|columns| !columns.is_empty());
        let rowtype = rowtype.ok_or_else(|| {
            let what = format!("{doing}: Snowflake names none");
            Error::new(ErrorKind::Corrupt, what)
        })?;
        Ok(types::columns(&rowtype, self.session.settings.fold_names))
    }
}

#[async_trait]
impl SqlSystem for SnowflakeSystem {
    async fn describe(&self) -> Result<Described> {
        let mut name = self.name.folded();
        let mut columns = Err(Arc::new(errors::missing(
            &self.session.settings,
            &self.name,
        )));
        for parts in self.name.candidates() {
            match self.columns(&parts).await {
                Ok(found) => {
                    (name, columns) = (parts, Ok(found));
                    break;
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Described {
            way: "Snowflake",
            detail: String::new(),
            dialect: &SNOWFLAKE,
            name,
            from: None,
            columns,
            stored_name: match self.session.settings.fold_names {
                true => types::unfolded,
                false => str::to_owned,
            },
            // What is sent twice has the same request id, and rows are counted.
            resends: false,
        })
    }

    fn rows(&self, query: Query) -> Rows {
        let session = Arc::clone(&self.session);
        let state = (session, query, None);
        let rows = stream::try_unfold(state, async |(session, query, reader)| {
            let mut reader: Reader = match reader {
                Some(reader) => reader,
                None => {
                    let statement = Statement::new(&query.doing, &query.statement.sql);
                    let data = statement.run(&session).await?;
                    let schema = query.columns.schema();
                    Reader::open(&session, data, schema, query.batch_rows, &query.doing)?
                }
            };
            let batch = reader.next().await?;
            Ok::<_, DataFusionError>(batch.map(|batch| (batch, (session, query, Some(reader)))))
        });
        rows.boxed()
    }

    async fn session(&self) -> Result<Arc<dyn SqlSystem>> {
        Ok(Arc::new(Self {
            session: Session::new(self.session.settings.clone(), WhenLost::Fail)?,
            name: self.name.clone(),
        }))
    }

    async fn stage(&self, staging: &Staging, rows: Rows) -> datafusion::error::Result<Staged> {
        load(&self.session, staging, rows).await
    }

    async fn tables(&self, _: &str) -> Result<Vec<String>> {
        // Its staging tables end with their session.
        Ok(vec![])
    }

    async fn publish(
        &self,
        doing: &str,
        statements: &[exchange::Statement],
    ) -> Result<Option<u64>> {
        let mut changed = None;
        // Each is a transaction of its own: there is never more than one that changes the target.
        for statement in statements {
            let data = Statement::new(doing, &statement.sql)
                .run(&self.session)
                .await?;
            changed = affected(&data);
        }
        Ok(changed)
    }
}

/// The number of rows that a statement says it changed.
fn affected(data: &QueryData) -> Option<u64> {
    let first = data.rowset.as_ref()?.first()?.first()?;
    match first.as_str() {
        Some(text) => text.parse().ok(),
        None => first.as_u64(),
    }
}
