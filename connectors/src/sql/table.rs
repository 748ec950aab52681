//! A table of a SQL system as a TableProvider: what is sent to the system and what is left to
//! DataFusion.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::sink::DataSinkExec;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown as Pushdown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;

use super::exchange::{Query, Statement};
use super::pushdown::{classify, offered};
use super::scan::SqlScan;
use super::select::Select;
use super::sink::StagedSink;
use super::system::SqlSystem;
use super::target::{Asked, Opened, Target};
use crate::declared::check_input;
use crate::error::{Error, ErrorKind, Result};
use crate::write;

/// One table; every statement reads what is there when it runs.
#[derive(Debug)]
pub(crate) struct SqlTable(Arc<Target>);

impl SqlTable {
    /// The table that `system` reaches, as `asked` for.
    ///
    /// # Errors
    /// A table that is missing, or has other columns than declared, where INSERT may not mend that.
    pub(crate) async fn open(system: Arc<dyn SqlSystem>, asked: Asked) -> Result<Self> {
        Ok(Self(Arc::new(Target::open(system, asked).await?)))
    }
}

fn renamed(opened: &Opened, filters: &[&Expr]) -> Result<Vec<Expr>> {
    let columns = &opened.columns;
    filters.iter().map(|f| columns.renamed(f)).collect()
}

fn query(opened: &Opened, select: &Select<'_>) -> Result<Query> {
    let dialect = opened.described.dialect;
    let filters: Vec<&Expr> = select.filters.iter().collect();
    let judged = classify(dialect, select.schema, &filters);
    let whole = judged.iter().all(|p| *p == Pushdown::Exact);
    let (sql, texts) = match dialect.bound_texts {
        true => select.bound()?,
        false => (select.sql()?, vec![]),
    };
    Ok(Query {
        doing: format!("reading {}", opened.described.shown()),
        dialect,
        statement: Statement {
            texts,
            ..Statement::new(sql)
        },
        columns: opened.columns.project(select.projection),
        batch_rows: 0,
        // Also where the system's own form of LIMIT is not known.
        limit: select.limit.filter(|_| whole),
    })
}

#[async_trait]
impl TableProvider for SqlTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.0.opened().columns.schema())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> datafusion::error::Result<Vec<Pushdown>> {
        let opened = self.0.opened();
        let renamed = renamed(&opened, filters)?;
        let renamed: Vec<&Expr> = renamed.iter().collect();
        let dialect = opened.described.dialect;
        Ok(offered(dialect, opened.columns.remote(), &renamed))
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
        let opened = self.0.look().await?;
        if limit == Some(0) || !opened.is_there() {
            let schema = opened.columns.project(projection).schema().clone();
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let select = Select {
            dialect: opened.described.dialect,
            from: &opened.from(),
            schema: opened.columns.remote(),
            projection,
            filters: &renamed(&opened, &filters.iter().collect::<Vec<_>>())?,
            limit,
        };
        let query = query(&opened, &select)?;
        let system = Arc::clone(&self.0.system);
        let spool = self.0.asked.spool;
        Ok(Arc::new(SqlScan::new(
            system,
            &opened.described,
            query,
            spool,
        )))
    }

    async fn insert_into(
        &self,
        _: &dyn Session,
        input: Arc<dyn ExecutionPlan>,
        insert_op: InsertOp,
    ) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
        let opened = self.0.opened();
        let dialect = opened.described.dialect;
        if insert_op == InsertOp::Replace {
            let kind = format!("a {} table", dialect.name);
            return Err(write::no_replace(&kind).into());
        }
        let overwrite = insert_op == InsertOp::Overwrite;
        if overwrite && dialect.overwrite.is_none() && !dialect.transactions {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "INSERT OVERWRITE {}: {} cannot empty and fill a table in one transaction; \
                     empty it there and use INSERT INTO",
                    opened.described.shown(),
                    dialect.name
                ),
            )
            .into());
        }
        check_input(&input, opened.columns.schema())?;
        let sink = StagedSink::new(Arc::clone(&self.0), overwrite);
        Ok(Arc::new(DataSinkExec::new(input, Arc::new(sink), None)))
    }
}
