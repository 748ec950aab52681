//! One table of Unity Catalog, reached through a SQL warehouse, as [`crate::sql`] wants it.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use datafusion::error::DataFusionError;
use futures::{StreamExt, TryStreamExt, stream};

use super::catalog::{Catalog, ColumnInfo};
use super::encode::{Encoder, PARAMETER, Piece};
use super::name::TableName;
use super::read;
use super::settings::Version;
use super::statement::{ResultForm, Statement, Warehouse};
use super::types;
use crate::error::{Error, ErrorKind, Result};
use crate::guard::caught;
use crate::sql::dialect::DATABRICKS_BOUND;
use crate::sql::exchange::{self, Described, Query, Rows, Staged};
use crate::sql::staging::Staging;
use crate::sql::system::SqlSystem;

/// A table and the warehouse that reads and writes it.
#[derive(Debug, Clone)]
pub(super) struct WarehouseSystem {
    pub(super) warehouse: Warehouse,
    pub(super) catalog: Catalog,
    pub(super) name: TableName,
    /// What the catalog said when the table was opened; after that, it is asked.
    pub(super) known: Arc<Mutex<Option<Vec<ColumnInfo>>>>,
    pub(super) version: Option<Version>,
    /// Why the table is not reached as files: it ...
    pub(super) because: Arc<str>,
}

impl WarehouseSystem {
    /// Columns that the catalog does not tell, from the manifest of an empty result.
    async fn described(&self) -> Result<Vec<ColumnInfo>> {
        let statement = Statement {
            result: ResultForm::Links,
            ..Statement::command(format!("SELECT * FROM {} LIMIT 0", self.name.sql()))
        };
        let what = format!("describing {}", self.name);
        let finished = self.warehouse.run(&what, &statement).await?;
        let columns = finished.manifest.schema.and_then(|s| s.columns);
        columns.ok_or_else(|| {
            Error::new(
                ErrorKind::Corrupt,
                format!("{what}: the manifest of the result has no columns"),
            )
        })
    }

    async fn load(&self, staging: &Staging, encoder: &Encoder, json: String) -> Result<()> {
        let (name, names) = (staging.name(), staging.names());
        let sql = format!("INSERT INTO {name} ({}) {}", names, encoder.query());
        let mut statement = Statement::command(sql);
        statement.texts.push((PARAMETER.into(), json));
        let what = format!("writing rows for {}", self.name);
        self.warehouse.run(&what, &statement).await.map(drop)
    }
}

#[async_trait]
impl SqlSystem for WarehouseSystem {
    async fn describe(&self) -> Result<Described> {
        let known = self
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let known = match known {
            Some(known) => Ok(known),
            None => match self.catalog.table(&self.name).await {
                Ok(info) => Ok(info.columns.unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::NotFound => Err(Arc::new(error)),
                Err(error) => return Err(error),
            },
        };
        let known = match known {
            Ok(known) if known.is_empty() => Ok(self.described().await?),
            known => known,
        };
        let columns = known.map(|known| types::columns(&known));
        let table = self.name.sql();
        let table = match &self.version {
            None => table,
            Some(Version::Number(n)) => format!("{table} VERSION AS OF {n}"),
            // Checked when the options were read.
            Some(Version::Timestamp(time)) => format!("{table} TIMESTAMP AS OF '{time}'"),
        };
        let source = columns.as_ref().ok().and_then(|c| types::source(&table, c));
        let TableName {
            catalog,
            schema,
            table: own,
        } = &self.name;
        Ok(Described {
            way: "Warehouse",
            detail: format!(
                "table={}, warehouse={}, because it {}",
                self.name, self.warehouse.id, self.because
            ),
            dialect: &DATABRICKS_BOUND,
            name: vec![catalog.clone(), schema.clone(), own.clone()],
            from: source.or_else(|| self.version.is_some().then_some(table)),
            columns,
            stored_name: str::to_owned,
            // A statement whose answer got lost is sent again.
            resends: true,
        })
    }

    fn rows(&self, query: Query) -> Rows {
        let statement = Statement {
            sql: query.statement.sql,
            texts: query.statement.texts,
            result: ResultForm::Links,
            once: false,
        };
        let (warehouse, doing) = (self.warehouse.clone(), query.doing);
        let schema = Arc::clone(query.columns.schema());
        let started = async move {
            let finished = warehouse.run(&doing, &statement).await?;
            let mut before = 0;
            let table = doing.trim_start_matches("reading ").to_owned();
            let rows = read::stream(warehouse, doing.clone(), finished);
            Ok::<_, DataFusionError>(rows.map(move |batch| {
                let batch = batch?;
                let batch = caught(&table, || types::convert(&batch, &schema, &doing, before))??;
                before += batch.num_rows() as u64;
                Ok::<_, DataFusionError>(batch)
            }))
        };
        stream::once(started).try_flatten().boxed()
    }

    async fn session(&self) -> Result<Arc<dyn SqlSystem>> {
        // Statements of a warehouse share nothing but its tables.
        let mut system = self.clone();
        system.warehouse.client = Arc::new(system.warehouse.client.patient());
        Ok(Arc::new(system))
    }

    /// The rows that fit one statement need no staging table.
    async fn stage(&self, staging: &Staging, mut rows: Rows) -> datafusion::error::Result<Staged> {
        let encoder = Encoder::new(staging)?;
        let mut piece = Piece::default();
        let (mut made, mut sent) = (false, 0);
        while let Some(batch) = rows.next().await.transpose()? {
            let texts = encoder.texts(&batch)?;
            for at in 0..batch.num_rows() {
                let row = encoder.row(&texts, at)?;
                if !piece.takes(&row) {
                    if !std::mem::replace(&mut made, true) {
                        let what = format!("creating a staging table for {}", self.name);
                        let create = Statement::command(staging.create());
                        self.warehouse.run(&what, &create).await?;
                    }
                    self.load(staging, &encoder, piece.take()).await?;
                }
                piece.add(row);
                sent += 1;
            }
        }
        if made && !piece.is_empty() {
            self.load(staging, &encoder, piece.take()).await?;
        }
        let texts = vec![(PARAMETER.to_owned(), piece.take())];
        Ok(Staged {
            rows: sent,
            instead: (!made).then(|| (format!("({})", encoder.query()), texts)),
        })
    }

    async fn tables(&self, prefix: &str) -> Result<Vec<String>> {
        let names = self.catalog.tables_beside(&self.name).await?;
        Ok(names
            .into_iter()
            .filter(|n| n.starts_with(prefix))
            .collect())
    }

    async fn publish(
        &self,
        doing: &str,
        statements: &[exchange::Statement],
    ) -> Result<Option<u64>> {
        let mut changed = None;
        // There are no transactions over several statements, and none are asked for.
        for statement in statements {
            let statement = Statement {
                sql: statement.sql.clone(),
                texts: statement.texts.clone(),
                result: ResultForm::Inline,
                once: statement.once,
            };
            let done = self.warehouse.run(doing, &statement).await?;
            let counted = done
                .value("num_inserted_rows")
                .or(done.value("num_affected_rows"));
            changed = counted.and_then(|n| n.parse().ok());
        }
        Ok(changed)
    }
}
