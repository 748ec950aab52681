//! Which keys are there already? 16 bytes each; no key is kept as text.

mod set;

use std::collections::HashSet;
use std::io;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use datafusion::arrow::compute::{cast, filter_record_batch};
use datafusion::arrow::datatypes::DataType;

use crate::error::{Error, ErrorKind, Result};
use crate::write::no_key;

/// Hashes of keys; many of them are kept on disk.
pub(crate) use set::HashesSet as Hashes;

/// The keys of a table, and those that an INSERT adds.
#[derive(Debug)]
pub(crate) struct Keys {
    column: String,
    /// Away while another thread looks at them.
    sets: Option<Box<Sets>>,
}

#[derive(Debug)]
struct Sets {
    there: Hashes,
    added: Hashes,
}

impl Keys {
    /// For `column`, of which `there` are in the table.
    pub(crate) fn new(column: &str, there: Hashes) -> Self {
        let added = Hashes::default();
        Self {
            column: column.to_owned(),
            sets: Some(Box::new(Sets { there, added })),
        }
    }

    /// The name of the column.
    pub(crate) fn column(&self) -> &str {
        &self.column
    }

    /// The rows of `batch` whose key was not seen before; they are now.
    pub(crate) async fn keep_new(&mut self, batch: &RecordBatch) -> Result<RecordBatch> {
        self.filtered(batch, Sets::keep_new).await
    }

    async fn filtered(
        &mut self,
        batch: &RecordBatch,
        which: impl FnOnce(&mut Sets, &[u128]) -> io::Result<Vec<bool>> + Send + 'static,
    ) -> Result<RecordBatch> {
        let key = &self.column;
        let column = batch
            .column_by_name(key)
            .ok_or_else(|| Error::invalid(format!("the rows to insert have no column {key}")))?;
        let hashes = hashes(column, key)?;
        let kept = self.look(move |sets| which(sets, &hashes)).await?;
        filter_record_batch(batch, &BooleanArray::from(kept))
            .map_err(|e| Error::while_doing(format!("comparing rows by {}", self.column), e))
    }

    /// The rows of `batch` whose key is not in the table, those that are added here among them.
    pub(crate) async fn not_there(&mut self, batch: &RecordBatch) -> Result<RecordBatch> {
        self.filtered(batch, |sets, hashes| {
            let there = sets.there.contains(hashes)?;
            Ok(there.into_iter().map(|there| !there).collect())
        })
        .await
    }

    /// Takes note of keys that another writer added; how many of them are added here, too.
    pub(crate) async fn meet(&mut self, others: Hashes) -> Result<usize> {
        self.look(move |sets| {
            let both = sets.added.count_common(&others)?;
            sets.there.absorb(&others)?;
            Ok(both)
        })
        .await
    }

    /// Runs `work` on a thread that may wait for the disk, where many keys are.
    async fn look<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Sets) -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let doing = || format!("comparing rows by {} with keys on disk", self.column);
        let Some(mut sets) = self.sets.take() else {
            return Err(Error::new(
                ErrorKind::Internal,
                format!("{}: an earlier comparison did not end", doing()),
            ));
        };
        let looked = tokio::task::spawn_blocking(move || {
            let result = work(&mut sets);
            (sets, result)
        });
        let (sets, result) = looked.await.map_err(|e| Error::while_doing(doing(), e))?;
        self.sets = Some(sets);
        result.map_err(|e| Error::while_doing(doing(), e))
    }
}

impl Sets {
    /// Which of `hashes` were not seen before; they are now.
    fn keep_new(&mut self, hashes: &[u128]) -> io::Result<Vec<bool>> {
        let there = self.there.contains(hashes)?;
        let added = self.added.contains(hashes)?;
        let mut of_batch = HashSet::new();
        let seen = there.into_iter().zip(added);
        let new = seen.zip(hashes);
        let new = new.map(|((there, added), hash)| !there && !added && of_batch.insert(*hash));
        let new: Vec<bool> = new.collect();
        self.added.extend(of_batch)?;
        Ok(new)
    }
}

/// The hashes of a column of keys.
///
/// # Errors
/// A row without a key.
fn hashes(column: &ArrayRef, key: &str) -> Result<Vec<u128>> {
    // Bytes need not be a text.
    let bytes = match column.data_type() {
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            Ok(ArrayRef::clone(column))
        }
        DataType::FixedSizeBinary(_) => cast(column, &DataType::Binary),
        _ => cast(column, &DataType::Utf8View),
    };
    let bytes = bytes.and_then(|bytes| cast(&bytes, &DataType::BinaryView));
    let bytes = bytes.map_err(|e| Error::while_doing(format!("reading {key} as text"), e))?;
    let bytes = bytes.as_binary_view();
    if bytes.null_count() > 0 {
        return Err(no_key(key));
    }
    Ok(bytes.iter().flatten().map(hash).collect())
}

/// `hashes` and those of `column`. Beyond what memory holds they are written to disk, so the work is
/// done on a thread that may wait for that.
///
/// # Errors
/// A row without a key.
pub(crate) async fn collect(mut hashes: Hashes, column: &ArrayRef, key: &str) -> Result<Hashes> {
    let doing = || format!("keeping the keys of {key} on disk");
    let (rows, name) = (ArrayRef::clone(column), key.to_owned());
    let collected = tokio::task::spawn_blocking(move || {
        let more = self::hashes(&rows, &name)?;
        let added = hashes.extend(more);
        Ok::<_, Error>(added.map(|()| hashes))
    });
    let collected = collected
        .await
        .map_err(|e| Error::while_doing(doing(), e))?;
    collected?.map_err(|e| Error::while_doing(doing(), e))
}

fn hash(key: &[u8]) -> u128 {
    let mut first = [0; 16];
    let mut hasher = blake3::Hasher::new();
    hasher.update(key);
    hasher.finalize_xof().fill(&mut first);
    u128::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::{BinaryArray, FixedSizeBinaryArray, StringArray};
    use std::sync::Arc;

    #[tokio::test]
    async fn keys_on_disk_are_found_as_those_in_memory() {
        let column = |ids: &[u32]| -> ArrayRef {
            let texts = ids.iter().map(|id| format!("case {id}"));
            Arc::new(StringArray::from_iter_values(texts))
        };
        for bound in [3, 1000] {
            let ids: Vec<u32> = (0..100).collect();
            let ids = column(&ids);
            let there = collect(Hashes::with_bound(bound), &ids, "id").await;
            let there = there.unwrap();
            assert_eq!(there.is_on_disk(), bound == 3);
            let mut keys = Keys::new("id", there);
            let rows = column(&[5, 100, 101, 100, 99]);
            let batch = RecordBatch::try_from_iter([("id", rows)]).unwrap();
            let new = keys.keep_new(&batch).await.unwrap();
            assert_eq!(new.column(0), &column(&[100, 101]));
            assert_eq!(keys.keep_new(&batch).await.unwrap().num_rows(), 0);
            let theirs = column(&[101, 200, 201]);
            let theirs = collect(Hashes::with_bound(bound), &theirs, "id").await;
            assert_eq!(keys.meet(theirs.unwrap()).await.unwrap(), 1);
            let mine = RecordBatch::try_from_iter([("id", column(&[100, 101]))]).unwrap();
            let left = keys.not_there(&mine).await.unwrap();
            assert_eq!(left.column(0), &column(&[100]));
            let batch = RecordBatch::try_from_iter([("id", column(&[200, 300]))]).unwrap();
            assert_eq!(keys.keep_new(&batch).await.unwrap().num_rows(), 1);
        }
    }

    #[tokio::test]
    async fn work_that_may_wait_for_the_disk_leaves_the_thread() {
        // The first file is written while all keys are still in memory.
        let mut keys = Keys::new("id", Hashes::with_bound(3));
        let here = std::thread::current().id();
        let there = keys.look(|_| Ok(std::thread::current().id())).await;
        assert_ne!(there.unwrap(), here);
    }

    #[test]
    fn keys_are_told_apart_by_their_bytes() {
        let values: [&[u8]; 3] = [b"\xff", b"\xfe", b"ab"];
        let bytes: ArrayRef = Arc::new(BinaryArray::from_vec(values.to_vec()));
        let found = hashes(&bytes, "id").unwrap();
        let text: ArrayRef = Arc::new(StringArray::from(vec!["ab"]));
        assert_eq!(hashes(&text, "id").unwrap(), [found[2]]);
        assert!(found[0] != found[1]);
        let fixed = FixedSizeBinaryArray::try_from_iter([[0xff], [0xfe]].into_iter()).unwrap();
        let fixed: ArrayRef = Arc::new(fixed);
        assert_eq!(hashes(&fixed, "id").unwrap(), found[..2]);
        let missing: ArrayRef = Arc::new(BinaryArray::from(vec![None, Some(&b"x"[..])]));
        let error = hashes(&missing, "id").unwrap_err().to_string();
        assert!(error.contains("a row has no id"), "{error}");
    }
}
