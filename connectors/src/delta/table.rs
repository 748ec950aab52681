//! A Delta table as a TableProvider whose statements each see the latest version.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{ScalarValue, project_schema};
use datafusion::datasource::sink::DataSinkExec;
use datafusion::error::Result;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{Column, lit};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use deltalake::DeltaTable;

use super::sink::DeltaSink;
use super::source::DeltaSource;
use super::wanted::Wanted;
use super::{features, log, scan};
use crate::declared::check_input;
use crate::error::{Error, ErrorKind};
use crate::write::{self, WriteOptions};

/// A table by location; it holds no snapshot.
#[derive(Debug)]
pub(crate) struct DeltaProvider {
    source: DeltaSource,
    /// After an INSERT: a table may not be there yet, or lack columns that it takes.
    schema: SchemaRef,
    options: WriteOptions,
    wanted: Option<Wanted>,
    defaults: HashMap<String, Expr>,
}

impl DeltaProvider {
    /// The table behind `source`, whose columns are `schema`, or will be when an INSERT has made
    /// what is `wanted`.
    pub(crate) fn try_new(
        source: DeltaSource,
        schema: SchemaRef,
        options: WriteOptions,
        wanted: Option<Wanted>,
    ) -> Result<Self, Error> {
        options.check_key(&schema)?;
        Ok(Self {
            source,
            schema,
            options,
            wanted,
            defaults: HashMap::new(),
        })
    }

    /// With values for columns that an INSERT does not name.
    pub(super) fn with_defaults(self, defaults: HashMap<String, Expr>) -> Self {
        Self { defaults, ..self }
    }

    /// The table; None if it is not there yet, and an INSERT makes it.
    async fn open(&self) -> Result<Option<DeltaTable>, Error> {
        match self.source.open().await {
            Err(error)
                if error.kind() == ErrorKind::NotFound
                    && self.wanted.is_some()
                    && !self.source.is_pinned() =>
            {
                Ok(None)
            }
            opened => opened.map(Some),
        }
    }

    /// Columns that `found` lacks, and an INSERT adds at its end: how many it has itself.
    fn own_columns(&self, found: &SchemaRef) -> Result<usize, Error> {
        let (own, all) = (found.fields(), self.schema.fields());
        let evolves = self.wanted.as_ref().is_some_and(|wanted| wanted.evolve);
        match all.get(..own.len()) {
            Some(first) if first == &own[..] && (evolves || own.len() == all.len()) => {
                Ok(own.len())
            }
            _ => Err(Error::invalid(
                "the columns of this Delta table have changed since CREATE EXTERNAL TABLE; create \
                 it again to see the new ones",
            )),
        }
    }
}

#[async_trait]
impl TableProvider for DeltaProvider {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn get_column_default(&self, column: &str) -> Option<&Expr> {
        self.defaults.get(column)
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        // Files are skipped by their statistics; rows are filtered above.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let location = self.source.location();
        let Some(table) = self.open().await? else {
            let columns = project_schema(&self.schema, projection)?;
            return Ok(Arc::new(EmptyExec::new(columns)));
        };
        let found = scan::provider(&table, location)?.schema();
        let own = self.own_columns(&found)?;
        if own == self.schema.fields().len() {
            return scan::plan(&table, location, state, projection, filters, limit).await;
        }
        let lacks = |filter: &&Expr| {
            let columns = filter.column_refs();
            columns
                .iter()
                .all(|column| found.column_with_name(column.name()).is_some())
        };
        let filters: Vec<Expr> = filters.iter().filter(lacks).cloned().collect();
        let all: Vec<usize> = (0..self.schema.fields().len()).collect();
        let asked = projection.unwrap_or(&all);
        let there: Vec<usize> = asked.iter().copied().filter(|i| *i < own).collect();
        let rows = scan::plan(&table, location, state, Some(&there), &filters, limit).await?;
        with_nulls(rows, asked, own, &self.schema)
    }

    async fn insert_into(
        &self,
        _: &dyn Session,
        input: Arc<dyn ExecutionPlan>,
        insert_op: InsertOp,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if self.source.is_pinned() {
            return Err(Error::invalid(
                "this Delta table was opened at an old version, which cannot be written to; \
                 create it without delta.version and delta.timestamp",
            )
            .into());
        }
        if insert_op == InsertOp::Replace {
            return Err(write::no_replace("a Delta table").into());
        }
        check_input(&input, &self.schema)?;
        let overwrite = insert_op == InsertOp::Overwrite;
        let location = self.source.location();
        if let Some(table) = self.open().await? {
            let state = table.snapshot().map_err(|e| log::opening(location, e))?;
            features::check_write(state, location, overwrite)?;
        }
        let sink = DeltaSink::new(
            self.source.clone(),
            Arc::clone(&self.schema),
            self.options.clone(),
            overwrite,
            self.wanted.clone(),
        );
        Ok(Arc::new(DataSinkExec::new(input, Arc::new(sink), None)))
    }
}

/// `rows` with the columns `asked` for by their numbers in `schema`; those from `own` on, which the
/// rows do not have, are NULL.
fn with_nulls(
    rows: Arc<dyn ExecutionPlan>,
    asked: &[usize],
    own: usize,
    schema: &SchemaRef,
) -> Result<Arc<dyn ExecutionPlan>> {
    let mut next = 0;
    let mut columns = vec![];
    for &i in asked {
        let field = schema.field(i);
        let value: Arc<dyn PhysicalExpr> = match i < own {
            true => Arc::new(Column::new(field.name(), next)),
            false => lit(ScalarValue::try_from(field.data_type())?),
        };
        next += usize::from(i < own);
        columns.push(ProjectionExpr::new(value, field.name().clone()));
    }
    Ok(Arc::new(ProjectionExec::try_new(columns, rows)?))
}
