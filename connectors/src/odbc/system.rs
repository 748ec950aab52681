//! One table of a system with an ODBC driver, as [`crate::sql`] wants it.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::{Float64Type, SchemaRef};
use datafusion::error::DataFusionError;
use futures::StreamExt;

use super::connection::Connection;
use super::encode::pieces;
use super::read;
use super::session::Session;
use super::settings::Settings;
use super::types;
use crate::cast;
use crate::error::{Error, ErrorKind, Result};
use crate::sql::dialect::SqlDialect;
use crate::sql::exchange::{Described, Query, Rows, Staged, Statement};
use crate::sql::staging::Staging;
use crate::sql::system::SqlSystem;

/// A table by the parts of its name.
#[derive(Debug)]
pub(super) struct OdbcSystem {
    settings: Settings,
    name: Vec<String>,
    /// That of one INSERT; other work connects for itself.
    connection: Option<Connection>,
}

impl OdbcSystem {
    pub(super) fn new(settings: Settings, name: Vec<String>) -> Self {
        Self {
            settings,
            name,
            connection: None,
        }
    }

    /// Does `work` in the INSERT's session, or in one for the purpose.
    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Session<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        match &self.connection {
            Some(connection) => connection.call(work).await,
            None => {
                let connection = Connection::open(self.settings.clone()).await?;
                connection.call(work).await
            }
        }
    }
}

#[async_trait]
impl SqlSystem for OdbcSystem {
    async fn describe(&self) -> Result<Described> {
        let name = self.name.clone();
        let work = move |session: &Session<'_>| {
            let dialect = session.dialect()?;
            let columns = match types::describe(session, dialect, &name) {
                Err(error) if error.kind() == ErrorKind::NotFound => Err(Arc::new(error)),
                columns => Ok(columns?),
            };
            Ok(Described {
                way: "Odbc",
                detail: format!("system={}", dialect.name),
                dialect,
                name,
                from: None,
                columns,
                stored_name: str::to_owned,
                resends: false,
            })
        };
        self.call(work).await
    }

    fn rows(&self, query: Query) -> Rows {
        read::rows(self.settings.clone(), query)
    }

    async fn session(&self) -> Result<Arc<dyn SqlSystem>> {
        Ok(Arc::new(Self {
            settings: self.settings.clone(),
            name: self.name.clone(),
            connection: Some(Connection::open(self.settings.clone()).await?),
        }))
    }

    async fn stage(&self, staging: &Staging, mut rows: Rows) -> datafusion::error::Result<Staged> {
        let doing: Arc<str> = format!("writing to {}", staging.target.join(".")).into();
        let (create, at) = (staging.create(), Arc::clone(&doing));
        self.call(move |session| in_transaction(session, &at, |s| s.run(&at, &create)))
            .await?;
        let (name, names) = (staging.name(), staging.names());
        let marks = vec!["?"; staging.columns().fields().len()].join(", ");
        let insert: Arc<str> = format!("INSERT INTO {name} ({names}) VALUES ({marks})").into();
        let mut sent = 0;
        let mut next = rows.next().await.transpose()?;
        while let Some(batch) = next {
            let batch = own_types(&doing, staging, &batch, sent)?;
            sent += batch.num_rows() as u64;
            let (insert, at) = (Arc::clone(&insert), Arc::clone(&doing));
            let load = self.call(move |session| load(session, &at, &insert, &batch));
            // The next rows are made while these are sent, and not at all if that fails.
            let load = async { Ok::<_, DataFusionError>(load.await?) };
            let more = async { rows.next().await.transpose() };
            next = futures::future::try_join(load, more).await?.1;
        }
        Ok(Staged {
            rows: sent,
            instead: None,
        })
    }

    async fn tables(&self, prefix: &str) -> Result<Vec<String>> {
        let (name, prefix) = (self.name.clone(), prefix.to_owned());
        self.call(move |session| session.tables(&name, &prefix))
            .await
    }

    async fn publish(&self, doing: &str, statements: &[Statement]) -> Result<Option<u64>> {
        let (doing, statements) = (doing.to_owned(), statements.to_vec());
        let work = move |session: &Session<'_>| {
            in_transaction(session, &doing, |session| {
                let mut changed = None;
                for statement in &statements {
                    changed = session.run(&doing, &statement.sql)?;
                }
                Ok(changed)
            })
        };
        self.call(work).await
    }
}

/// The staged rows in the types that the driver takes, under the table's names.
fn own_types(
    doing: &str,
    staging: &Staging,
    batch: &RecordBatch,
    before: u64,
) -> Result<RecordBatch> {
    let columns = staging.target_columns().iter().zip(batch.columns());
    let columns = columns.map(|(column, values)| {
        let (name, to) = (column.field.name(), column.own.data_type());
        let values = cast::strictly(doing, name, values, to, before)?;
        Ok((name.as_str(), values, true))
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    RecordBatch::try_from_iter_with_nullable(columns).map_err(|e| Error::while_doing(doing, e))
}

/// Puts rows into the staging table.
fn load(session: &Session<'_>, doing: &str, insert: &str, batch: &RecordBatch) -> Result<()> {
    let failed = |e| session.failed(doing, e);
    let dialect = session.dialect()?;
    refuse_unwritable(dialect, batch)?;
    in_transaction(session, doing, |session| {
        let mut prepared = session.connection.prepare(insert).map_err(failed)?;
        for piece in pieces(batch, dialect.utf8) {
            let descriptions = piece.descriptions(batch, dialect.utf8)?;
            let mut inserter = prepared
                .column_inserter(piece.rows.len(), descriptions)
                .map_err(failed)?;
            piece.fill(batch, &mut inserter)?;
            inserter.execute().map_err(failed)?;
        }
        Ok(())
    })
}

/// Does `work` in one transaction, where the system has such; after it, none is open.
fn in_transaction<T>(
    session: &Session<'_>,
    doing: &str,
    work: impl FnOnce(&Session<'_>) -> Result<T>,
) -> Result<T> {
    if !session.dialect()?.transactions {
        return work(session);
    }
    let connection = &session.connection;
    let failed = |e| session.failed(doing, e);
    connection.set_autocommit(false).map_err(failed)?;
    let done = work(session).and_then(|done| {
        connection.commit().map_err(failed)?;
        Ok(done)
    });
    if done.is_err() {
        // The first error is the one that tells.
        connection.rollback().ok();
    }
    done
}

/// Refuses values of which `dialect` would keep others.
fn refuse_unwritable(dialect: &SqlDialect, batch: &RecordBatch) -> Result<()> {
    let schema: SchemaRef = batch.schema();
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        let bytes = column.as_binary_view_opt().filter(|_| !dialect.empty_bytes);
        let floats = column.as_primitive_opt::<Float64Type>();
        let floats = floats.filter(|_| !dialect.nan);
        let what = match (bytes, floats) {
            (Some(bytes), _) if bytes.iter().flatten().any(<[u8]>::is_empty) => {
                "an empty value of bytes"
            }
            (_, Some(floats)) if floats.iter().flatten().any(f64::is_nan) => "NaN",
            _ => continue,
        };
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "column {}: {what} cannot be written to {} over ODBC; write null instead",
                field.name(),
                dialect.name
            ),
        ));
    }
    Ok(())
}
