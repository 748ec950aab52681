//! A table of Unity Catalog as a TableProvider: read as files or through a warehouse, written
//! likewise, whichever is possible.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::sink::DataSinkExec;
use datafusion::error::Result;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;

use super::catalog::ColumnInfo;
use super::name::TableName;
use super::rows::Columns;
use super::scan::WarehouseScan;
use super::settings::Version;
use super::sink::WarehouseSink;
use super::statement::{ResultForm, Statement, Warehouse};
use super::types;
use super::vended::VendedStore;
use crate::declared::check_column_order;
use crate::error::{Error, ErrorKind};
use crate::sql::dialect::DATABRICKS_BOUND;
use crate::sql::pushdown::{self, Select};

/// A table and the ways to it.
#[derive(Debug)]
pub(super) struct DatabricksTable {
    pub(super) name: TableName,
    pub(super) schema: SchemaRef,
    pub(super) columns: Vec<ColumnInfo>,
    pub(super) read: Way,
    pub(super) write: Way,
    pub(super) warehouse: Option<Warehouse>,
    pub(super) key: Option<String>,
    pub(super) version: Option<Version>,
}

/// How rows come and go.
#[derive(Debug)]
pub(super) enum Way {
    /// As the files of a Delta table.
    Files {
        delta: Arc<dyn TableProvider>,
        /// Found by deltalake through its URL as long as it is held here.
        store: Arc<VendedStore>,
    },
    /// Through the warehouse, because the table ...
    Warehouse { because: Arc<str> },
}

impl DatabricksTable {
    fn warehouse(&self, doing: &str, because: &str) -> Result<&Warehouse, Error> {
        self.warehouse.as_ref().ok_or_else(|| {
            Error::new(
                ErrorKind::Unsupported,
                format!(
                    "{} cannot be {doing} as files, because it {because}; set \
                     databricks.warehouse_id to do it through a SQL warehouse",
                    self.name
                ),
            )
        })
    }

    /// What the warehouse selects from.
    fn source(&self) -> String {
        let table = self.name.sql();
        let table = match &self.version {
            None => table,
            Some(Version::Number(n)) => format!("{table} VERSION AS OF {n}"),
            // Checked when the options were read.
            Some(Version::Timestamp(time)) => format!("{table} TIMESTAMP AS OF '{time}'"),
        };
        types::source(&table, &self.columns)
    }
}

#[async_trait]
impl TableProvider for DatabricksTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        match &self.read {
            Way::Files { delta, .. } => delta.supports_filters_pushdown(filters),
            Way::Warehouse { .. } => {
                Ok(pushdown::classify(&DATABRICKS_BOUND, &self.schema, filters))
            }
        }
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let because = match &self.read {
            Way::Files { delta, .. } => return delta.scan(state, projection, filters, limit).await,
            Way::Warehouse { because } => because,
        };
        let warehouse = self.warehouse("read", because)?;
        let schema = match projection {
            None => Arc::clone(&self.schema),
            Some(columns) => Arc::new(self.schema.project(columns)?),
        };
        if limit == Some(0) {
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let select = Select {
            dialect: &DATABRICKS_BOUND,
            from: &self.source(),
            schema: &self.schema,
            projection,
            filters,
            limit,
        };
        let (sql, texts) = select.bound()?;
        let statement = Statement {
            sql,
            texts,
            result: ResultForm::Links,
            once: false,
        };
        Ok(Arc::new(WarehouseScan::new(
            warehouse.clone(),
            self.name.to_string(),
            statement,
            Arc::clone(because),
            schema,
        )))
    }

    async fn insert_into(
        &self,
        state: &dyn Session,
        input: Arc<dyn ExecutionPlan>,
        insert_op: InsertOp,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let because = match &self.write {
            Way::Files { delta, .. } => return delta.insert_into(state, input, insert_op).await,
            Way::Warehouse { because } => because,
        };
        let warehouse = self.warehouse("written", because)?;
        if self.version.is_some() {
            return Err(Error::invalid(format!(
                "{} was opened at an old version, which cannot be written to; create it without \
                 delta.version and delta.timestamp",
                self.name
            ))
            .into());
        }
        if insert_op == InsertOp::Replace {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "REPLACE INTO a Databricks table is not supported; with the option write.key, \
                 INSERT leaves rows whose key is already there as they are",
            )
            .into());
        }
        check_column_order(&input, &self.schema)?;
        let sink = WarehouseSink {
            warehouse: warehouse.clone(),
            name: self.name.clone(),
            schema: Arc::clone(&self.schema),
            columns: Columns::new(&self.schema, &self.columns, &self.name.to_string())?,
            key: self.key.clone(),
            overwrite: insert_op == InsertOp::Overwrite,
        };
        Ok(Arc::new(DataSinkExec::new(input, Arc::new(sink), None)))
    }
}
