//! INSERT INTO through a warehouse: rows into a staging table, then one statement that adds them.
//!
//! With a key the last statement is a MERGE that adds only rows whose key is not there yet, so an
//! INSERT that was killed anywhere can be run again. The rows that fit one statement need no
//! staging table. Rows are numbered: a piece that was sent twice, because its answer got lost, is
//! added once.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::Array;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::datasource::sink::DataSink;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType};
use futures::StreamExt;
use tokio::runtime::Handle;
use uuid::Uuid;

use super::name::TableName;
use super::rows::{Columns, PARAMETER, Piece, ROW};
use super::statement::{ResultForm, Statement, Warehouse};
use crate::error::{Error, Result};
use crate::sql::dialect::DATABRICKS;

/// Start of the names of staging tables.
const STAGING: &str = "casebook_staging_";

/// The target of one INSERT statement.
#[derive(Debug)]
pub(super) struct WarehouseSink {
    pub(super) warehouse: Warehouse,
    pub(super) name: TableName,
    pub(super) schema: SchemaRef,
    pub(super) columns: Columns,
    pub(super) key: Option<String>,
    pub(super) overwrite: bool,
}

impl WarehouseSink {
    /// Returns the number of rows added.
    async fn write(&self, mut rows: SendableRecordBatchStream) -> datafusion::error::Result<u64> {
        let mut staging: Option<Staging> = None;
        let mut piece = Piece::default();
        let mut number = 0;
        while let Some(batch) = rows.next().await.transpose()? {
            let texts = self.columns.texts(&batch)?;
            if let Some(key) = &self.key {
                let at = self.schema.index_of(key)?;
                if texts[at].null_count() > 0 {
                    return Err(Error::invalid(format!(
                        "a row has no {key}, which write.key needs; filter such rows out or \
                         choose another key"
                    ))
                    .into());
                }
            }
            for at in 0..batch.num_rows() {
                piece.add(number, &texts, at)?;
                number += 1;
                if piece.is_full() {
                    if staging.is_none() {
                        staging = Some(self.stage().await?);
                    }
                    if let Some(staging) = &staging {
                        self.load(staging, piece.take()).await?;
                    }
                }
            }
        }
        if number == 0 && !self.overwrite {
            return Ok(0);
        }
        let added = match staging {
            None => {
                let source = format!("({})", self.columns.query());
                self.add(&source, Some(piece.take()), number).await?
            }
            Some(staging) => {
                if !piece.is_empty() {
                    self.load(&staging, piece.take()).await?;
                }
                let added = self.add(&staging.name.sql(), None, number).await?;
                staging.remove().await;
                added
            }
        };
        Ok(added)
    }

    /// A new staging table with the target's types and none of its features.
    async fn stage(&self) -> Result<Staging> {
        let name = self
            .name
            .sibling(format!("{STAGING}{}", Uuid::new_v4().simple()));
        let sql = format!(
            "CREATE TABLE IF NOT EXISTS {} ({ROW} BIGINT, {})",
            name.sql(),
            self.columns.declared()
        );
        // Before it exists, so that it is removed whatever happens.
        let staging = Staging {
            warehouse: self.warehouse.clone(),
            name,
            runtime: Handle::current(),
            removed: false,
        };
        let what = format!("creating a staging table for {}", self.name);
        self.warehouse.run(&what, &Statement::command(sql)).await?;
        Ok(staging)
    }

    async fn load(&self, staging: &Staging, json: String) -> Result<()> {
        let sql = format!(
            "INSERT INTO {} ({ROW}, {}) {}",
            staging.name.sql(),
            self.columns.names(""),
            self.columns.query()
        );
        let mut statement = Statement::command(sql);
        statement.texts.push((PARAMETER.into(), json));
        let what = format!("writing rows for {}", self.name);
        self.warehouse.run(&what, &statement).await.map(drop)
    }

    /// Adds the rows of `source` to the target; how many of the `sent` were new.
    async fn add(&self, source: &str, json: Option<String>, sent: u64) -> Result<u64> {
        let mut statement = Statement {
            once: self.key.is_none() && !self.overwrite,
            result: ResultForm::Inline,
            ..Statement::command(self.adding(source))
        };
        statement
            .texts
            .extend(json.map(|json| (PARAMETER.into(), json)));
        let what = format!("adding rows to {}", self.name);
        let done = self.warehouse.run(&what, &statement).await?;
        let counted = done
            .value("num_inserted_rows")
            .or(done.value("num_affected_rows"));
        Ok(counted.and_then(|n| n.parse().ok()).unwrap_or(sent))
    }

    fn adding(&self, source: &str) -> String {
        let target = self.name.sql();
        let names = self.columns.names("");
        let key = self.key.as_ref().map(|key| DATABRICKS.quoted(key));
        let unique = key.as_deref().unwrap_or(ROW);
        let rows = format!(
            "SELECT {names} FROM {source} QUALIFY row_number() OVER (PARTITION BY {unique} ORDER \
             BY {ROW}) = 1"
        );
        match &key {
            _ if self.overwrite => format!("INSERT OVERWRITE {target} ({names}) {rows}"),
            None => format!("INSERT INTO {target} ({names}) {rows}"),
            Some(key) => format!(
                "MERGE INTO {target} AS t USING ({rows}) AS s ON t.{key} = s.{key} WHEN NOT \
                 MATCHED THEN INSERT ({names}) VALUES ({})",
                self.columns.names("s.")
            ),
        }
    }
}

/// A staging table, removed also when the INSERT fails or is given up.
#[derive(Debug)]
struct Staging {
    warehouse: Warehouse,
    name: TableName,
    runtime: Handle,
    removed: bool,
}

impl Staging {
    async fn remove(mut self) {
        self.removed = true;
        remove(&self.warehouse, &self.name).await;
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.removed {
            return;
        }
        let (warehouse, name) = (self.warehouse.clone(), self.name.clone());
        self.runtime
            .spawn(async move { remove(&warehouse, &name).await });
    }
}

/// The rows are in the target, or an error is on its way; a table that stays takes only space.
async fn remove(warehouse: &Warehouse, name: &TableName) {
    let statement = Statement::command(format!("DROP TABLE IF EXISTS {}", name.sql()));
    warehouse
        .run("removing a staging table", &statement)
        .await
        .ok();
}

impl DisplayAs for WarehouseSink {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "WarehouseSink: table={}, warehouse={}",
            self.name, self.warehouse.id
        )?;
        match &self.key {
            Some(key) => write!(f, ", write.key={key}"),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl DataSink for WarehouseSink {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    async fn write_all(
        &self,
        data: SendableRecordBatchStream,
        _: &Arc<TaskContext>,
    ) -> datafusion::error::Result<u64> {
        self.write(data).await
    }
}
