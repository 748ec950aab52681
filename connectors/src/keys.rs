//! Which keys are there already? 16 bytes each; no key is kept as text.

use std::collections::HashSet;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use datafusion::arrow::compute::{cast, filter_record_batch};
use datafusion::arrow::datatypes::DataType;

use crate::error::{Error, Result};
use crate::write::no_key;

/// Hashes of keys: a hundred million fit in about 3 GB, and no key is kept as text.
pub(crate) type Hashes = HashSet<u128>;

/// The keys of a table, and those that an INSERT adds.
#[derive(Debug)]
pub(crate) struct Keys {
    column: String,
    there: Hashes,
    added: Hashes,
}

impl Keys {
    /// For `column`, of which `there` are in the table.
    pub(crate) fn new(column: &str, there: Hashes) -> Self {
        Self {
            column: column.to_owned(),
            there,
            added: Hashes::new(),
        }
    }

    /// The name of the column.
    pub(crate) fn column(&self) -> &str {
        &self.column
    }

    /// The rows of `batch` whose key was not seen before; they are now.
    pub(crate) fn keep_new(&mut self, batch: &RecordBatch) -> Result<RecordBatch> {
        let key = &self.column;
        let column = batch
            .column_by_name(key)
            .ok_or_else(|| Error::invalid(format!("the rows to insert have no column {key}")))?;
        let new: BooleanArray = hashes(column, key)?
            .into_iter()
            .map(|hash| Some(!self.there.contains(&hash) && self.added.insert(hash)))
            .collect();
        filter_record_batch(batch, &new)
            .map_err(|e| Error::while_doing(format!("comparing rows by {key}"), e))
    }

    /// Takes note of keys that another writer added; how many of them are added here, too.
    pub(crate) fn meet(&mut self, others: Hashes) -> usize {
        let both = self.added.intersection(&others).count();
        self.there.extend(others);
        both
    }
}

/// The hashes of a column of keys.
///
/// # Errors
/// A row without a key.
pub(crate) fn hashes(column: &ArrayRef, key: &str) -> Result<Vec<u128>> {
    let text = cast(column, &DataType::Utf8View)
        .map_err(|e| Error::while_doing(format!("reading {key} as text"), e))?;
    let text = text.as_string_view();
    if text.null_count() > 0 {
        return Err(no_key(key));
    }
    Ok(text.iter().flatten().map(hash).collect())
}

fn hash(key: &str) -> u128 {
    let hash = blake3::hash(key.as_bytes());
    hash.as_bytes()[..16]
        .iter()
        .fold(0, |n, byte| n << 8 | u128::from(*byte))
}
