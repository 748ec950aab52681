//! A Delta table as a TableProvider whose statements each see the latest version.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::sink::DataSinkExec;
use datafusion::error::Result;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::expressions::{CastExpr, Column};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::ProjectionExec;
use deltalake::DeltaTable;

use super::DeltaSource;
use super::sink::DeltaSink;
use crate::error::{Error, ErrorKind};

/// A table by location; it holds no snapshot.
#[derive(Debug)]
pub(super) struct DeltaProvider {
    source: DeltaSource,
    schema: SchemaRef,
    key: Option<String>,
}

impl DeltaProvider {
    /// The table behind `source`, of which `table` was just opened.
    pub(super) async fn try_new(source: DeltaSource, table: DeltaTable) -> Result<Self, Error> {
        let schema = snapshot_provider(&table).await?.schema();
        Ok(Self {
            source,
            schema,
            key: None,
        })
    }

    /// Makes INSERT add only rows whose `key` is not there yet.
    pub(super) fn with_key(mut self, key: &str) -> Result<Self, Error> {
        let names: Vec<&str> = self
            .schema
            .fields()
            .iter()
            .map(|f| f.name().as_str())
            .collect();
        if !names.contains(&key) {
            return Err(Error::unknown("column in write.key", key, &names));
        }
        self.key = Some(key.to_owned());
        Ok(self)
    }
}

/// The library's provider for the version that `table` was opened at.
pub(super) async fn snapshot_provider(table: &DeltaTable) -> Result<Arc<dyn TableProvider>, Error> {
    table
        .table_provider()
        .await
        .map_err(|e| Error::while_doing("reading the log of a Delta table", e))
}

#[async_trait]
impl TableProvider for DeltaProvider {
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
        let provider = snapshot_provider(&self.source.open().await?).await?;
        if provider.schema().fields() != self.schema.fields() {
            return Err(Error::invalid(
                "the columns of this Delta table have changed since CREATE EXTERNAL TABLE; create \
                 it again to see the new ones",
            )
            .into());
        }
        provider.scan(state, projection, filters, limit).await
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
            return Err(Error::new(
                ErrorKind::Unsupported,
                "REPLACE INTO a Delta table is not supported; with the option write.key, INSERT \
                 leaves rows whose key is already there as they are",
            )
            .into());
        }
        check_column_order(&input, &self.schema)?;
        let overwrite = insert_op == InsertOp::Overwrite;
        let sink = DeltaSink::new(
            self.source.clone(),
            Arc::clone(&self.schema),
            self.key.clone(),
            overwrite,
        );
        Ok(Arc::new(DataSinkExec::new(input, Arc::new(sink), None)))
    }
}

/// INSERT goes by position. A column of the query that has the name of another column of the
/// table than the one it would land in is almost certainly a mistake.
fn check_column_order(input: &Arc<dyn ExecutionPlan>, schema: &SchemaRef) -> Result<()> {
    let Some(projection) = input.downcast_ref::<ProjectionExec>() else {
        return Ok(());
    };
    let mut swapped = vec![];
    for (i, projected) in projection.expr().iter().enumerate() {
        let mut expr = &projected.expr;
        while let Some(cast) = expr.downcast_ref::<CastExpr>() {
            expr = cast.expr();
        }
        let Some(column) = expr.downcast_ref::<Column>() else {
            continue;
        };
        let target = schema.field(i).name();
        if column.name() != target && schema.column_with_name(column.name()).is_some() {
            swapped.push(format!("{} would go into {target}", column.name()));
        }
    }
    match swapped.is_empty() {
        true => Ok(()),
        false => {
            let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
            Err(Error::invalid(format!(
                "INSERT goes by position, and {}; select the columns in the table's order: {}",
                swapped.join(", "),
                names.join(", ")
            ))
            .into())
        }
    }
}
