//! A table of a SQL system as a TableProvider: what is sent to the system and what is left to
//! DataFusion.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::sink::DataSinkExec;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown as Pushdown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;

use super::columns::Columns;
use super::ddl;
use super::exchange::{Described, Query, Statement};
use super::pushdown::{Select, classify};
use super::scan::SqlScan;
use super::sink::StagedSink;
use super::system::SqlSystem;
use crate::declared::{self, check_column_order};
use crate::error::{Error, ErrorKind, Result};
use crate::write::{self, WriteOptions};

/// One table; every statement reads what is there when it runs.
#[derive(Debug)]
pub(crate) struct SqlTable {
    system: Arc<dyn SqlSystem>,
    described: Described,
    columns: Columns,
    write: WriteOptions,
}

/// What CREATE EXTERNAL TABLE says of a table.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    /// The schema of `table.create`.
    pub(crate) contract: Option<SchemaRef>,
    /// The list of columns; may be empty.
    pub(crate) listed: Arc<Schema>,
    /// What INSERT obeys.
    pub(crate) write: WriteOptions,
}

impl SqlTable {
    /// The table that `system` reaches; created, if it is missing and was `asked` for so.
    ///
    /// # Errors
    /// A table that is missing, or has other columns than declared.
    pub(crate) async fn open(system: Arc<dyn SqlSystem>, asked: Asked) -> Result<Self> {
        let mut described = system.describe().await?;
        if let (Err(missing), Some(contract)) = (&described.columns, &asked.contract)
            && missing.kind() == ErrorKind::NotFound
        {
            create(&*system, &described, contract, asked.write.key.as_deref()).await?;
            described = system.describe().await?;
        }
        let shown = described.shown();
        let found = described.found()?;
        let columns = match &asked.contract {
            Some(contract) => {
                declared::check_same(contract, found.schema(), &shown)?;
                found.declared_as(contract, &shown)?
            }
            None if asked.listed.fields().is_empty() => found.clone(),
            None => found.declared_as(&asked.listed, &shown)?,
        };
        asked.write.check_key(columns.schema())?;
        Ok(Self {
            system,
            described,
            columns,
            write: asked.write,
        })
    }

    fn renamed(&self, filters: &[&Expr]) -> Result<Vec<Expr>> {
        filters.iter().map(|f| self.columns.renamed(f)).collect()
    }

    fn query(&self, select: &Select<'_>) -> Result<Query> {
        let Described { dialect, .. } = &self.described;
        let judged = classify(
            dialect,
            select.schema,
            &select.filters.iter().collect::<Vec<_>>(),
        );
        let whole = judged.iter().all(|p| *p == Pushdown::Exact);
        let (sql, texts) = match dialect.bound_texts {
            true => select.bound()?,
            false => (select.sql()?, vec![]),
        };
        Ok(Query {
            doing: format!("reading {}", self.described.shown()),
            dialect,
            statement: Statement {
                texts,
                ..Statement::new(sql)
            },
            columns: self.columns.project(select.projection),
            batch_rows: 0,
            // Also where the system's own form of LIMIT is not known.
            limit: select.limit.filter(|_| whole),
        })
    }
}

/// Makes the table with the columns of `contract`; another session may have made it meanwhile.
async fn create(
    system: &dyn SqlSystem,
    described: &Described,
    contract: &Schema,
    key: Option<&str>,
) -> Result<()> {
    let stored = described.stored_name;
    let fields = contract.fields().iter();
    let fields = fields.map(|f| f.as_ref().clone().with_name(stored(f.name())));
    let schema = Schema::new(fields.collect::<Vec<_>>());
    let key = key.map(stored);
    let table = described.table();
    let sql = ddl::create_table(described.dialect, &table, &schema, key.as_deref())?;
    let doing = format!("creating {}", described.shown());
    let created = system.publish(&doing, &[Statement::new(sql)]);
    created.await.map(drop)
}

#[async_trait]
impl TableProvider for SqlTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.columns.schema())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> datafusion::error::Result<Vec<Pushdown>> {
        let renamed = self.renamed(filters)?;
        let renamed: Vec<&Expr> = renamed.iter().collect();
        let dialect = self.described.dialect;
        Ok(classify(dialect, self.columns.remote(), &renamed))
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
        if limit == Some(0) {
            let schema = self.columns.project(projection).schema().clone();
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let table = self.described.table();
        let select = Select {
            dialect: self.described.dialect,
            from: self.described.from.as_deref().unwrap_or(&table),
            schema: self.columns.remote(),
            projection,
            filters: &self.renamed(&filters.iter().collect::<Vec<_>>())?,
            limit,
        };
        let query = self.query(&select)?;
        let system = Arc::clone(&self.system);
        Ok(Arc::new(SqlScan::new(system, &self.described, query)))
    }

    async fn insert_into(
        &self,
        _: &dyn Session,
        input: Arc<dyn ExecutionPlan>,
        insert_op: InsertOp,
    ) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
        let dialect = self.described.dialect;
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
                    self.described.shown(),
                    dialect.name
                ),
            )
            .into());
        }
        check_column_order(&input, self.columns.schema())?;
        let sink = StagedSink {
            system: Arc::clone(&self.system),
            described: self.described.clone(),
            columns: self.columns.clone(),
            write: self.write.clone(),
            overwrite,
        };
        Ok(Arc::new(DataSinkExec::new(input, Arc::new(sink), None)))
    }
}
