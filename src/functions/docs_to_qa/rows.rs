//! Finished rows and how they become Arrow batches.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, new_empty_array};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::filter::batch_filter;

use super::document::Document;
use crate::schema::{QaLabels, QaRow, qa_columns};

/// Names that every row of a query carries.
#[derive(Debug, Clone)]
pub(super) struct Labels {
    pub(super) profile: String,
    pub(super) model: String,
}

/// The declared schema with what the query does to each row.
#[derive(Debug)]
pub(super) struct Output {
    schema: SchemaRef,
    /// The declared schema has the column `document`.
    with_document: bool,
    projected: SchemaRef,
    projection: Option<Vec<usize>>,
    predicate: Option<Arc<dyn PhysicalExpr>>,
}

impl Output {
    pub(super) fn try_new(
        schema: SchemaRef,
        with_document: bool,
        projection: Option<Vec<usize>>,
        predicate: Option<Arc<dyn PhysicalExpr>>,
    ) -> Result<Self> {
        let projected = match &projection {
            Some(indices) => Arc::new(schema.project(indices)?),
            None => Arc::clone(&schema),
        };
        Ok(Self {
            schema,
            with_document,
            projected,
            projection,
            predicate,
        })
    }

    /// The schema after projection.
    pub(super) fn schema(&self) -> SchemaRef {
        Arc::clone(&self.projected)
    }

    pub(super) fn predicate(&self) -> Option<&Arc<dyn PhysicalExpr>> {
        self.predicate.as_ref()
    }

    /// The rows of `document` that pass the predicate, projected.
    pub(super) fn batch(
        &self,
        document: &Document,
        rows: &[QaRow],
        labels: &Labels,
    ) -> Result<RecordBatch> {
        let mut batch = self.full(document, rows, labels)?;
        if let Some(predicate) = &self.predicate {
            batch = batch_filter(&batch, predicate)?;
        }
        match &self.projection {
            Some(indices) => Ok(batch.project(indices)?),
            None => Ok(batch),
        }
    }

    fn full(&self, document: &Document, rows: &[QaRow], labels: &Labels) -> Result<RecordBatch> {
        let shared = QaLabels {
            doc_id: &document.id,
            profile: &labels.profile,
            model: &labels.model,
        };
        let mut columns: Vec<ArrayRef> = qa_columns(self.with_document)
            .map(|column| column.array(rows, &shared))
            .collect();
        let n = rows.len();
        for (value, field) in document
            .keep
            .iter()
            .zip(&self.schema.fields()[columns.len()..])
        {
            columns.push(match n {
                0 => new_empty_array(field.data_type()),
                _ => ScalarValue::to_array_of_size(value, n)?,
            });
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}
