//! The examples of a LORA table as rows, and INSERT as a plan.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{RecordBatch, StringViewArray};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{MemTable, Session, TableProvider};
use datafusion::datasource::sink::DataSinkExec;
use datafusion::error::Result;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;

use super::LoraOptions;
use super::sink::LoraSink;
use super::spool;
use crate::context::Casebook;
use crate::schema::lora_examples;

/// A LORA table.
#[derive(Debug)]
pub struct LoraTable {
    options: LoraOptions,
    casebook: Arc<Casebook>,
}

impl LoraTable {
    /// The table that `options` declare.
    pub fn new(options: LoraOptions, casebook: Arc<Casebook>) -> Self {
        Self { options, casebook }
    }

    /// What it was declared with.
    pub fn options(&self) -> &LoraOptions {
        &self.options
    }
}

#[async_trait]
impl TableProvider for LoraTable {
    fn schema(&self) -> SchemaRef {
        lora_examples()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let examples = spool::read(&self.options.directory)?;
        let column = |f: &dyn Fn(&casebook_llm::lora::Example) -> Option<String>| {
            Arc::new(examples.iter().map(f).collect::<StringViewArray>())
        };
        let batch = RecordBatch::try_new(
            lora_examples(),
            vec![
                column(&|e| e.doc_id.clone()),
                column(&|e| Some(e.question.clone())),
                column(&|e| Some(e.answer.clone())),
                column(&|e| e.document.clone()),
            ],
        )?;
        let table = MemTable::try_new(lora_examples(), vec![vec![batch]])?;
        table.scan(state, projection, filters, limit).await
    }

    async fn insert_into(
        &self,
        _: &dyn Session,
        input: Arc<dyn ExecutionPlan>,
        insert_op: InsertOp,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input = casebook_connectors::fitted(input, &lora_examples())?;
        let mut options = self.options.clone();
        if insert_op != InsertOp::Append {
            options.mode = casebook_llm::lora::RunMode::Overwrite;
        }
        let sink = LoraSink::new(options, Arc::clone(&self.casebook));
        Ok(Arc::new(DataSinkExec::new(input, Arc::new(sink), None)))
    }
}
