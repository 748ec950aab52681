//! The input as documents, one by one.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::error::Result;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;

use super::document::{Document, InputColumns};

/// Documents of the input, one by one. Safe to drop between rows: state lives here.
pub(super) struct Documents {
    input: SendableRecordBatchStream,
    layout: InputColumns,
    batch: Option<RecordBatch>,
    row: usize,
    /// Texts seen that have no id of their own, by hash: 32 bytes each.
    hashed: HashSet<Arc<str>>,
}

impl Documents {
    pub(super) fn new(input: SendableRecordBatchStream, layout: InputColumns) -> Self {
        Self {
            input,
            layout,
            batch: None,
            row: 0,
            hashed: HashSet::new(),
        }
    }

    /// The next document, and whether it is the first with its text.
    pub(super) async fn next(&mut self) -> Result<Option<(Document, bool)>> {
        loop {
            if let Some(batch) = &self.batch
                && self.row < batch.num_rows()
            {
                let document = self.layout.document(batch, self.row)?;
                self.row += 1;
                let first = !document.id_is_hash || self.hashed.insert(Arc::clone(&document.id));
                return Ok(Some((document, first)));
            }
            self.batch = None;
            match self.input.next().await.transpose()? {
                Some(batch) => (self.batch, self.row) = (Some(batch), 0),
                None => return Ok(None),
            }
        }
    }
}
