//! A Snowflake table as a TableProvider: every statement reads what is there when it runs.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session as PlanSession, TableProvider};
use datafusion::datasource::sink::DataSinkExec;
use datafusion::error::Result;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;

use super::columns::Columns;
use super::name::quoted;
use super::scan::SnowflakeScan;
use super::session::Session;
use super::sink::SnowflakeSink;
use crate::declared::check_column_order;
use crate::error::{self, Error, ErrorKind};
use crate::sql::dialect::SNOWFLAKE;
use crate::sql::pushdown::{Select, classify};

/// A table by its name.
#[derive(Debug)]
pub(super) struct SnowflakeTable {
    session: Arc<Session>,
    name: Vec<String>,
    columns: Columns,
    /// Position of the column in `write.key`.
    key: Option<usize>,
}

impl SnowflakeTable {
    /// # Errors
    /// A key that is no column.
    pub(super) fn new(
        session: Arc<Session>,
        name: Vec<String>,
        columns: Columns,
        key: Option<&str>,
    ) -> error::Result<Self> {
        let fields = columns.schema().fields();
        let names: Vec<&str> = fields.iter().map(|f| f.name().as_str()).collect();
        let key = match key {
            None => None,
            Some(key) => Some(
                names
                    .iter()
                    .position(|n| *n == key)
                    .ok_or_else(|| Error::unknown("column in write.key", key, &names))?,
            ),
        };
        Ok(Self {
            session,
            name,
            columns,
            key,
        })
    }

    fn renamed(&self, filters: &[&Expr]) -> error::Result<Vec<Expr>> {
        filters.iter().map(|f| self.columns.renamed(f)).collect()
    }
}

#[async_trait]
impl TableProvider for SnowflakeTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.columns.schema())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        let renamed = self.renamed(filters)?;
        let renamed: Vec<&Expr> = renamed.iter().collect();
        Ok(classify(&SNOWFLAKE, self.columns.remote(), &renamed))
    }

    async fn scan(
        &self,
        _: &dyn PlanSession,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let table = quoted(&self.name);
        let select = Select {
            dialect: &SNOWFLAKE,
            from: &table,
            schema: self.columns.remote(),
            projection,
            filters: &self.renamed(&filters.iter().collect::<Vec<_>>())?,
            limit,
        };
        let sql = select.sql()?;
        let schema = match projection {
            Some(columns) => Arc::new(self.columns.schema().project(columns)?),
            None => self.schema(),
        };
        let session = Arc::clone(&self.session);
        Ok(Arc::new(SnowflakeScan::new(session, &table, sql, schema)))
    }

    async fn insert_into(
        &self,
        _: &dyn PlanSession,
        input: Arc<dyn ExecutionPlan>,
        insert_op: InsertOp,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if insert_op == InsertOp::Replace {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "REPLACE INTO a Snowflake table is not supported; with the option write.key, \
                 INSERT leaves rows whose key is already there as they are",
            )
            .into());
        }
        check_column_order(&input, self.columns.schema())?;
        let sink = SnowflakeSink::new(
            self.session.settings.clone(),
            self.name.clone(),
            self.columns.clone(),
            self.key,
            insert_op == InsertOp::Overwrite,
        )?;
        Ok(Arc::new(DataSinkExec::new(input, Arc::new(sink), None)))
    }
}
