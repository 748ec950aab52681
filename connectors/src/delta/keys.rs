//! The keys that a table already holds, 16 bytes each.

use std::collections::HashSet;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use datafusion::arrow::compute::{cast, filter_record_batch};
use datafusion::arrow::datatypes::DataType;
use datafusion::prelude::SessionContext;
use deltalake::DeltaTable;
use futures::TryStreamExt;

use super::table::snapshot_provider;
use crate::error::{Error, Result};

/// Hashes of the keys seen: a hundred million fit in about 3 GB, and no key is kept as text.
#[derive(Debug, Default)]
pub(super) struct Keys {
    seen: HashSet<u128>,
}

impl Keys {
    /// The keys in column `key` of `table`; only that column is read.
    pub(super) async fn read(table: &DeltaTable, key: &str) -> Result<Self> {
        let doing = || format!("reading column {key} of a Delta table");
        let provider = snapshot_provider(table).await?;
        let ctx = SessionContext::new();
        let frame = ctx
            .read_table(provider)
            .and_then(|frame| frame.select_columns(&[key]))
            .map_err(|e| Error::while_doing(doing(), e))?;
        let mut stream = frame
            .execute_stream()
            .await
            .map_err(|e| Error::while_doing(doing(), e))?;
        let mut out = Self::default();
        while let Some(batch) = stream
            .try_next()
            .await
            .map_err(|e| Error::while_doing(doing(), e))?
        {
            for hash in hashes(batch.column(0), key)? {
                out.seen.insert(hash);
            }
        }
        Ok(out)
    }

    /// The rows of `batch` whose key was not seen before; they are now.
    pub(super) fn keep_new(&mut self, batch: &RecordBatch, key: &str) -> Result<RecordBatch> {
        let column = batch
            .column_by_name(key)
            .ok_or_else(|| Error::invalid(format!("the rows to insert have no column {key}")))?;
        let new: BooleanArray = hashes(column, key)?
            .into_iter()
            .map(|hash| Some(self.seen.insert(hash)))
            .collect();
        filter_record_batch(batch, &new)
            .map_err(|e| Error::while_doing(format!("comparing rows by {key}"), e))
    }
}

fn hashes(column: &ArrayRef, key: &str) -> Result<Vec<u128>> {
    let text = cast(column, &DataType::Utf8View)
        .map_err(|e| Error::while_doing(format!("reading {key} as text"), e))?;
    let text = text.as_string_view();
    if text.null_count() > 0 {
        return Err(Error::invalid(format!(
            "a row has no {key}, which write.key needs; filter such rows out or choose another key"
        )));
    }
    Ok(text.iter().flatten().map(hash).collect())
}

fn hash(key: &str) -> u128 {
    let hash = blake3::hash(key.as_bytes());
    hash.as_bytes()[..16]
        .iter()
        .fold(0, |n, byte| n << 8 | u128::from(*byte))
}
