//! An ODBC table as a TableProvider: what is sent to the system and what is left to DataFusion.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::{Session as PlanSession, TableProvider};
use datafusion::datasource::sink::DataSinkExec;
use datafusion::error::Result;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown as Pushdown, TableType};
use datafusion::physical_plan::ExecutionPlan;

use super::columns::Columns;
use super::reader::Query;
use super::scan::OdbcExec;
use super::settings::Settings;
use super::sink::OdbcSink;
use crate::declared::check_column_order;
use crate::error::{Error, ErrorKind};
use crate::sql::dialect::{POSTGRESQL, SQLITE, SqlDialect};
use crate::sql::pushdown::{Select, classify};

/// One table of an ODBC source; it holds no connection.
#[derive(Debug, Clone)]
pub(super) struct OdbcTable {
    pub(super) settings: Settings,
    pub(super) dialect: &'static SqlDialect,
    /// The parts of its name.
    pub(super) name: Vec<String>,
    pub(super) columns: Columns,
    /// INSERT adds only rows whose value of this column is not there yet.
    pub(super) key: Option<String>,
}

impl OdbcTable {
    /// The name as SQL of the system.
    pub(super) fn quoted(&self) -> String {
        self.dialect.table(&self.name)
    }

    /// True if the driver's narrow texts are UTF-8 whatever the locale; seen with these. UTF-16 is
    /// always that, at twice the bytes.
    pub(super) fn utf8(&self) -> bool {
        std::ptr::eq(self.dialect, &POSTGRESQL) || std::ptr::eq(self.dialect, &SQLITE)
    }

    fn query(&self, select: &Select<'_>) -> Result<Query, Error> {
        let chosen: Vec<usize> = match select.projection {
            Some(columns) => columns.clone(),
            None => (0..self.columns.fetch.len()).collect(),
        };
        let project = |schema: &Schema| {
            let fields = chosen.iter().map(|i| schema.field(*i).clone());
            Arc::new(Schema::new(fields.collect::<Vec<_>>()))
        };
        let whole = select
            .filters
            .iter()
            .all(|f| classify(self.dialect, &self.columns.comparable, &[f])[0] == Pushdown::Exact);
        Ok(Query {
            settings: self.settings.clone(),
            table: self.quoted(),
            sql: select.sql()?,
            columns: Columns {
                schema: project(&self.columns.schema),
                comparable: project(&self.columns.comparable),
                fetch: chosen.iter().map(|i| self.columns.fetch[*i]).collect(),
            },
            utf8: self.utf8(),
            server_cursor: std::ptr::eq(self.dialect, &POSTGRESQL),
            batch_rows: 0,
            // Also where the system's own form of LIMIT is not known.
            limit: select.limit.filter(|_| whole),
        })
    }
}

#[async_trait]
impl TableProvider for OdbcTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.columns.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<Pushdown>> {
        Ok(classify(self.dialect, &self.columns.comparable, filters))
    }

    async fn scan(
        &self,
        _: &dyn PlanSession,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let select = Select {
            dialect: self.dialect,
            from: &self.quoted(),
            schema: &self.columns.comparable,
            projection,
            filters,
            limit,
        };
        let query = self.query(&select)?;
        Ok(Arc::new(OdbcExec::new(query, self.dialect.name)))
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
                "REPLACE INTO an ODBC table is not supported; with the option write.key, INSERT \
                 leaves rows whose key is already there as they are",
            )
            .into());
        }
        check_column_order(&input, &self.columns.schema)?;
        let sink = OdbcSink::new(self.clone(), insert_op == InsertOp::Overwrite);
        Ok(Arc::new(DataSinkExec::new(input, Arc::new(sink), None)))
    }
}
