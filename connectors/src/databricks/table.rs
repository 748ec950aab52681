//! A table of Unity Catalog as a TableProvider: each statement takes the way that is open to it, as
//! files or through a warehouse.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::Result;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;

use super::name::TableName;
use super::vended::VendedStore;
use crate::error::{Error, ErrorKind};
use crate::sql::table::SqlTable;

/// A table and the ways to it.
#[derive(Debug)]
pub(crate) struct DatabricksTable {
    pub(super) name: TableName,
    pub(super) read: Way,
    pub(super) write: Way,
    /// It was opened at an old version.
    pub(super) pinned: bool,
}

/// How rows come and go.
#[derive(Debug, Clone)]
pub(super) enum Way {
    /// As the files of a Delta table.
    Files {
        delta: Arc<dyn TableProvider>,
        /// Found by deltalake through its URL as long as it is held here.
        store: Arc<VendedStore>,
    },
    /// Through the warehouse, if there is one, because the table ...
    Warehouse {
        because: Arc<str>,
        table: Option<Arc<SqlTable>>,
    },
}

impl Way {
    fn table(&self, name: &TableName, done: &str) -> Result<&dyn TableProvider, Error> {
        match self {
            Self::Files { delta, .. } => Ok(&**delta),
            Self::Warehouse {
                table: Some(table), ..
            } => Ok(&**table),
            Self::Warehouse {
                because,
                table: None,
            } => Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "{name} cannot be {done} as files, because it {because}; set \
                     databricks.warehouse_id to do it through a SQL warehouse"
                ),
            )),
        }
    }
}

#[async_trait]
impl TableProvider for DatabricksTable {
    fn schema(&self) -> SchemaRef {
        match self.read.table(&self.name, "read") {
            Ok(table) => table.schema(),
            Err(_) => Arc::new(Schema::empty()),
        }
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        let table = self.read.table(&self.name, "read")?;
        table.supports_filters_pushdown(filters)
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let table = self.read.table(&self.name, "read")?;
        table.scan(state, projection, filters, limit).await
    }

    async fn insert_into(
        &self,
        state: &dyn Session,
        input: Arc<dyn ExecutionPlan>,
        insert_op: InsertOp,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if self.pinned {
            return Err(Error::invalid(format!(
                "{} was opened at an old version, which cannot be written to; create it without \
                 delta.version and delta.timestamp",
                self.name
            ))
            .into());
        }
        let table = self.write.table(&self.name, "written")?;
        table.insert_into(state, input, insert_op).await
    }
}
