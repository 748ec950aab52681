//! Finished rows and how they become Arrow batches.

use std::sync::Arc;

use casebook_qa::checks::{Reason, Status};
use datafusion::arrow::array::{
    ArrayRef, Float32Array, Int32Array, Int64Array, RecordBatch, StringViewArray, new_empty_array,
};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::filter::batch_filter;

use super::document::Document;

/// One row of `qa_pairs` without what all rows of a document or a query share.
#[derive(Debug, Clone)]
pub(super) struct QaRow {
    pub(super) qa_id: String,
    /// (number, start, end); absent when the document has no chunk.
    pub(super) chunk: Option<(i32, usize, usize)>,
    pub(super) question_no: Option<i32>,
    pub(super) question: Option<String>,
    pub(super) answer: Option<String>,
    pub(super) status: Status,
    pub(super) reason: Option<Reason>,
    pub(super) grounding: Option<f32>,
    pub(super) prompt_tokens: Option<i32>,
    pub(super) output_tokens: Option<i32>,
}

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
    projected: SchemaRef,
    projection: Option<Vec<usize>>,
    predicate: Option<Arc<dyn PhysicalExpr>>,
}

impl Output {
    pub(super) fn try_new(
        schema: SchemaRef,
        projection: Option<Vec<usize>>,
        predicate: Option<Arc<dyn PhysicalExpr>>,
    ) -> Result<Self> {
        let projected = match &projection {
            Some(indices) => Arc::new(schema.project(indices)?),
            None => Arc::clone(&schema),
        };
        Ok(Self {
            schema,
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
        let n = rows.len();
        let same = |value: &str| -> ArrayRef {
            Arc::new(StringViewArray::from_iter_values(std::iter::repeat_n(
                value, n,
            )))
        };
        let text = |f: &dyn Fn(&QaRow) -> Option<String>| -> ArrayRef {
            Arc::new(rows.iter().map(f).collect::<StringViewArray>())
        };
        let int32 = |f: &dyn Fn(&QaRow) -> Option<i32>| -> ArrayRef {
            Arc::new(rows.iter().map(f).collect::<Int32Array>())
        };
        let offset = |f: &dyn Fn((i32, usize, usize)) -> usize| -> ArrayRef {
            let value = |row: &QaRow| row.chunk.map(|c| f(c) as i64);
            Arc::new(rows.iter().map(value).collect::<Int64Array>())
        };
        let mut columns: Vec<ArrayRef> = vec![
            text(&|r| Some(r.qa_id.clone())),
            same(&document.id),
            int32(&|r| r.chunk.map(|c| c.0)),
            offset(&|c| c.1),
            offset(&|c| c.2),
            int32(&|r| r.question_no),
            text(&|r| r.question.clone()),
            text(&|r| r.answer.clone()),
            text(&|r| Some(r.status.as_str().to_owned())),
            text(&|r| r.reason.map(|reason| reason.as_str().to_owned())),
            Arc::new(rows.iter().map(|r| r.grounding).collect::<Float32Array>()),
            int32(&|r| r.prompt_tokens),
            int32(&|r| r.output_tokens),
            same(&labels.profile),
            same(&labels.model),
        ];
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
