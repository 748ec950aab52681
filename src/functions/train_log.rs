//! `train_log('tuned')`: the optimiser steps of a LORA table's run, or of a run in a directory.

use std::sync::Arc;

use async_trait::async_trait;
use casebook_llm::lora::log;
use casebook_llm::lora::run::RUN;
use datafusion::arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{MemTable, Session, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::error::Result;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;

use super::lookup::adapter_directory;
use crate::context::Casebook;
use crate::context::Host;
use crate::error::{Error, ErrorKind};
use crate::schema;

/// Adds the function to `ctx`.
pub(crate) fn register(ctx: &SessionContext, _: &Arc<Casebook>) -> crate::Result<()> {
    ctx.register_udtf(
        "train_log",
        Arc::new(TrainLog {
            host: ctx.state_weak_ref(),
        }),
    );
    Ok(())
}

#[derive(Debug)]
struct TrainLog {
    host: Host,
}

impl TableFunctionImpl for TrainLog {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let name = match args.exprs() {
            [Expr::Literal(value, _)] => value.try_as_str().flatten().map(str::to_owned),
            [Expr::Column(column)] => Some(column.flat_name()),
            _ => None,
        };
        let Some(name) = name else {
            return Err(Error::invalid(
                "train_log takes one argument: the name of a LORA table or an adapter directory, \
                 for example train_log('tuned')",
            )
            .into());
        };
        Ok(Arc::new(LogTable {
            host: self.host.clone(),
            name,
        }))
    }
}

/// The log as a table; it is read when scanned.
#[derive(Debug)]
struct LogTable {
    host: Host,
    name: String,
}

#[async_trait]
impl TableProvider for LogTable {
    fn schema(&self) -> SchemaRef {
        schema::train_log()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let path = adapter_directory(&self.host, &self.name)
            .await?
            .join(RUN)
            .join(log::FILE);
        if !path.exists() {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!(
                    "train_log('{}'): there is no run log at {}; give the name of a LORA table \
                     that has been inserted into, or its directory",
                    self.name,
                    path.display()
                ),
            )
            .into());
        }
        let records = log::read(&path).map_err(Error::from)?;
        let float = |f: &dyn Fn(&log::StepRecord) -> f64| -> ArrayRef {
            Arc::new(Float64Array::from_iter_values(records.iter().map(f)))
        };
        let int = |f: &dyn Fn(&log::StepRecord) -> u64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(
                records.iter().map(|r| f(r) as i64),
            ))
        };
        let columns = vec![
            int(&|r| r.step),
            float(&|r| r.epoch),
            float(&|r| r.loss),
            float(&|r| r.learning_rate),
            float(&|r| r.grad_norm),
            int(&|r| r.tokens),
            int(&|r| r.supervised_tokens),
            float(&|r| r.tokens_per_second),
        ];
        let batch = RecordBatch::try_new(schema::train_log(), columns)?;
        let table = MemTable::try_new(schema::train_log(), vec![vec![batch]])?;
        table.scan(state, projection, filters, limit).await
    }
}
