//! A Delta table as a TableProvider whose statements each see the latest version.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::sink::DataSinkExec;
use datafusion::error::Result;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;

use super::options::WriteOptions;
use super::sink::DeltaSink;
use super::source::DeltaSource;
use super::{features, scan};
use crate::declared::fitted;
use crate::error::{Error, ErrorKind};

/// A table by location; it holds no snapshot.
#[derive(Debug)]
pub(crate) struct DeltaProvider {
    source: DeltaSource,
    schema: SchemaRef,
    options: WriteOptions,
}

impl DeltaProvider {
    /// The table behind `source`, whose columns are `schema`.
    pub(crate) fn try_new(
        source: DeltaSource,
        schema: SchemaRef,
        options: WriteOptions,
    ) -> Result<Self, Error> {
        let fields = schema.fields().iter();
        let names: Vec<&str> = fields.map(|f| f.name().as_str()).collect();
        if let Some(key) = &options.key
            && !names.contains(&key.as_str())
        {
            return Err(Error::unknown("column in write.key", key, &names));
        }
        Ok(Self {
            source,
            schema,
            options,
        })
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
        let table = self.source.open().await?;
        let location = self.source.location();
        if scan::provider(&table, location)?.schema().fields() != self.schema.fields() {
            return Err(Error::invalid(
                "the columns of this Delta table have changed since CREATE EXTERNAL TABLE; create \
                 it again to see the new ones",
            )
            .into());
        }
        let session = scan::session(&table, state);
        scan::plan(&table, location, &session, projection, filters, limit).await
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
        let input = fitted(input, &self.schema)?;
        let overwrite = insert_op == InsertOp::Overwrite;
        let location = self.source.location();
        let table = self.source.open().await?;
        let state = table.snapshot().map_err(|e| {
            Error::while_doing(format!("opening the Delta table at '{location}'"), e)
        })?;
        features::check_write(state, location, overwrite)?;
        let sink = DeltaSink::new(
            self.source.clone(),
            Arc::clone(&self.schema),
            self.options.clone(),
            overwrite,
        );
        Ok(Arc::new(DataSinkExec::new(input, Arc::new(sink), None)))
    }
}
