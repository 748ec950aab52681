//! Which keys are there already, and which does an INSERT bring twice? 16 bytes for each key and 16 for
//! its row; nothing is kept as text.
//!
//! A key that the table has is left as it is there. Of the rows that one INSERT brings, those with one
//! key are one row if they are equal in all columns; if not, nobody said which of them the key names,
//! and the INSERT is refused.

mod set;

use std::collections::HashMap;
use std::io;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BinaryViewArray, BooleanArray, RecordBatch,
};
use datafusion::arrow::compute::{cast, filter_record_batch};
use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::row::{RowConverter, SortField};

use crate::error::{Error, ErrorKind, Result};
use crate::write::no_key;

/// Hashes of keys; many of them are kept on disk.
pub(crate) use set::HashesSet as Hashes;

/// Rows that are laid out at once to be hashed: few, because their texts are long.
const ROWS_HASHED: usize = 256;
/// Characters of a key that an error shows.
const SHOWN: usize = 100;

/// The keys of a table, and those that an INSERT adds.
#[derive(Debug)]
pub(crate) struct Keys {
    column: String,
    /// As in "the table at 'x'".
    into: String,
    /// Lays rows out as bytes; made for the columns of the first.
    rows: Option<RowConverter>,
    /// Away while another thread looks at them.
    sets: Option<Box<Sets>>,
}

#[derive(Debug)]
struct Sets {
    there: Hashes,
    /// The keys of the rows that are added, and the rows.
    added: Hashes,
    rows: Hashes,
}

impl Keys {
    /// For `column` of the table `into`, as in "the table at 'x'", where `there` are.
    pub(crate) fn new(column: &str, into: impl Into<String>, there: Hashes) -> Self {
        Self {
            column: column.to_owned(),
            into: into.into(),
            rows: None,
            sets: Some(Box::new(Sets {
                added: there.smaller(),
                rows: there.smaller(),
                there,
            })),
        }
    }

    /// The name of the column.
    pub(crate) fn column(&self) -> &str {
        &self.column
    }

    /// The rows of `batch` whose key was not seen before; they are now.
    ///
    /// # Errors
    /// A row without a key, or one that differs from a row with its key that came before it.
    pub(crate) async fn keep_new(&mut self, batch: &RecordBatch) -> Result<RecordBatch> {
        let batch = self.not_there(batch).await?;
        let texts = self.texts(&batch)?;
        let keys = hashes(&texts);
        let rows = hashes_of_rows(&mut self.rows, &batch).map_err(|e| self.failed(e))?;
        match self.look(move |sets| sets.add(&keys, &rows)).await? {
            Added::New(new) => self.filtered(&batch, new),
            Added::Other(row) => Err(self.differs(texts.value(row))),
        }
    }

    /// The rows of `batch` whose key is not in the table, those that are added here among them.
    pub(crate) async fn not_there(&mut self, batch: &RecordBatch) -> Result<RecordBatch> {
        let keys = hashes(&self.texts(batch)?);
        let there = self.look(move |sets| sets.there.contains(&keys)).await?;
        self.filtered(batch, there.into_iter().map(|there| !there).collect())
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

    fn keys(&self, batch: &RecordBatch) -> Result<BinaryViewArray> {
        let key = &self.column;
        let column = batch
            .column_by_name(key)
            .ok_or_else(|| Error::invalid(format!("the rows to insert have no column {key}")))?;
        keys(column, key)
    }

    fn filtered(&self, batch: &RecordBatch, kept: Vec<bool>) -> Result<RecordBatch> {
        filter_record_batch(batch, &BooleanArray::from(kept)).map_err(|e| self.failed(e))
    }

    fn failed(&self, error: ArrowError) -> Error {
        Error::while_doing(format!("comparing rows by {}", self.column), error)
    }

    /// That two rows with the key `bytes` are not one.
    fn differs(&self, bytes: &[u8]) -> Error {
        let Self { column, into, .. } = self;
        let text = String::from_utf8_lossy(bytes);
        let mut shown: String = text.chars().take(SHOWN).collect();
        if shown.len() < text.len() {
            shown.push_str("...");
        }
        Error::invalid(format!(
            "two rows for {into} have the same {column}, '{shown}', and differ in other columns; \
             {column} is the table's write.key, by which a row is there once, and which of the two \
             it is to be is not for the INSERT to choose: nothing was written; select one row for \
             each {column} (DISTINCT ON, GROUP BY) or choose another key"
        ))
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

/// What came of adding rows.
enum Added {
    /// Which of them are new; the others came before.
    New(Vec<bool>),
    /// This one differs from a row with its key.
    Other(usize),
}

impl Sets {
    fn is_on_disk(&self) -> bool {
        let mut sets = [&self.there, &self.added, &self.rows].into_iter();
        sets.any(|set| set.is_on_disk())
    }

    /// Adds rows by the hashes of their `keys`, none of which is in the table, and of all their columns.
    fn add(&mut self, keys: &[u128], rows: &[u128]) -> io::Result<Added> {
        let key_before = self.added.contains(keys)?;
        let row_before = self.rows.contains(rows)?;
        let mut of_batch = HashMap::new();
        let mut new = Vec::with_capacity(keys.len());
        for (at, (key, row)) in keys.iter().zip(rows).enumerate() {
            let equal = match key_before[at] {
                true => Some(row_before[at]),
                false => of_batch.insert(*key, *row).map(|before| before == *row),
            };
            match equal {
                Some(false) => return Ok(Added::Other(at)),
                equal => new.push(equal.is_none()),
            }
        }
        self.added.extend(of_batch.keys().copied())?;
        self.rows.extend(of_batch.into_values())?;
        Ok(Added::New(new))
    }
}

/// A column of keys as texts.
///
/// # Errors
/// A row without a key.
fn keys(column: &ArrayRef, key: &str) -> Result<BinaryViewArray> {
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
    Ok(bytes.clone())
}

fn hashes(keys: &BinaryViewArray) -> Vec<u128> {
    keys.iter().flatten().map(hash).collect()
}

/// A hash of all columns of each row of `batch`; `converter` is made for the first.
fn hashes_of_rows(
    converter: &mut Option<RowConverter>,
    batch: &RecordBatch,
) -> std::result::Result<Vec<u128>, ArrowError> {
    let converter = match converter {
        Some(converter) => converter,
        none => {
            let schema = batch.schema();
            let types = schema.fields().iter().map(|field| field.data_type());
            none.insert(RowConverter::new(
                types.cloned().map(SortField::new).collect(),
            )?)
        }
    };
    let mut out = Vec::with_capacity(batch.num_rows());
    for start in (0..batch.num_rows()).step_by(ROWS_HASHED) {
        let piece = batch.slice(start, ROWS_HASHED.min(batch.num_rows() - start));
        let rows = converter.convert_columns(piece.columns())?;
        out.extend(rows.iter().map(|row| hash(row.as_ref())));
    }
    Ok(out)
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
        let more = self::hashes(&keys(&rows, &name)?);
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
    use datafusion::arrow::array::{BinaryArray, FixedSizeBinaryArray, Float64Array, StringArray};
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
            let mut keys = Keys::new("id", "t", there);
            let rows = column(&[5, 100, 101, 100, 99]);
            let batch = RecordBatch::try_from_iter([("id", rows)]).unwrap();
            let new = keys.keep_new(&batch).await.unwrap();
            // What an INSERT adds has half the room.
            assert_eq!(keys.sets.as_ref().unwrap().added.is_on_disk(), bound == 3);
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
        let mut keys = Keys::new("id", "t", Hashes::with_bound(3));
        let here = std::thread::current().id();
        let there = keys.look(|_| Ok(std::thread::current().id())).await;
        assert_ne!(there.unwrap(), here);
    }

    #[test]
    fn keys_are_told_apart_by_their_bytes() {
        let values: [&[u8]; 3] = [b"\xff", b"\xfe", b"ab"];
        let bytes: ArrayRef = Arc::new(BinaryArray::from_vec(values.to_vec()));
        let found = hashes(&keys(&bytes, "id").unwrap());
        let text: ArrayRef = Arc::new(StringArray::from(vec!["ab"]));
        assert_eq!(hashes(&keys(&text, "id").unwrap()), [found[2]]);
        assert!(found[0] != found[1]);
        let fixed = FixedSizeBinaryArray::try_from_iter([[0xff], [0xfe]].into_iter()).unwrap();
        let fixed: ArrayRef = Arc::new(fixed);
        assert_eq!(hashes(&keys(&fixed, "id").unwrap()), found[..2]);
        let missing: ArrayRef = Arc::new(BinaryArray::from(vec![None, Some(&b"x"[..])]));
        let error = keys(&missing, "id").unwrap_err().to_string();
        assert!(error.contains("a row has no id"), "{error}");
    }

    #[tokio::test]
    async fn rows_with_one_key_are_one_row_or_refused() {
        // Key, text, number: of all pairs of rows, within a batch and in two, in memory and on disk.
        type Row = (&'static str, Option<&'static str>, Option<f64>);
        let batch = |rows: &[Row]| {
            let keys: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.0)));
            let texts: ArrayRef = Arc::new(rows.iter().map(|r| r.1).collect::<StringArray>());
            let numbers: ArrayRef = Arc::new(rows.iter().map(|r| r.2).collect::<Float64Array>());
            let columns = [("id", keys), ("text", texts), ("number", numbers)];
            RecordBatch::try_from_iter_with_nullable(columns.map(|(n, c)| (n, c, true))).unwrap()
        };
        let rows: [Row; 8] = [
            ("a", Some("x"), Some(1.0)),
            ("a", Some("x"), None),
            ("a", None, Some(1.0)),
            ("a", Some(""), Some(1.0)),
            ("a", None, None),
            ("a", Some("x"), Some(f64::NAN)),
            ("b", Some("x"), Some(1.0)),
            ("there", Some("other"), None),
        ];
        let keys_with = |bound: usize| {
            let mut there = Hashes::with_bound(bound);
            let column: ArrayRef = Arc::new(StringArray::from(vec!["there", "x", "y"]));
            collect(&mut there, &column, "id").unwrap();
            Keys::new("id", "the table at 't'", there)
        };
        for bound in [2, 1000] {
            for (i, first) in rows.iter().enumerate() {
                for (j, second) in rows.iter().enumerate() {
                    let is_there = |row: &Row| row.0 == "there";
                    let new = |row: &Row| usize::from(!is_there(row));
                    let expected = match first.0 == second.0 && !is_there(first) {
                        true if i == j => Some(1),
                        true => None,
                        false if i == j => Some(new(first)),
                        false => Some(new(first) + new(second)),
                    };
                    let mut keys = keys_with(bound);
                    let together = keys.keep_new(&batch(&[*first, *second])).await;
                    let mut keys = keys_with(bound);
                    let before = keys.keep_new(&batch(&[*first])).await.unwrap().num_rows();
                    let apart = keys.keep_new(&batch(&[*second])).await;
                    for found in [
                        together.map(|b| b.num_rows()),
                        apart.map(|b| before + b.num_rows()),
                    ] {
                        match (found, expected) {
                            (Ok(found), expected) => assert_eq!(Some(found), expected, "{i} {j}"),
                            (Err(error), None) => {
                                let error = error.to_string();
                                for part in ["the table at 't'", "the same id, 'a'", "write.key"] {
                                    assert!(error.contains(part), "{error}");
                                }
                            }
                            (Err(error), Some(_)) => panic!("{i} {j}: {error}"),
                        }
                    }
                }
            }
        }
    }

    #[tokio::test]
    async fn a_long_key_is_shown_in_part() {
        let long = "ž".repeat(200);
        let column: ArrayRef = Arc::new(StringArray::from(vec![long.as_str(); 2]));
        let other: ArrayRef = Arc::new(StringArray::from(vec!["1", "2"]));
        let batch = RecordBatch::try_from_iter([("id", column), ("n", other)]).unwrap();
        let mut keys = Keys::new("id", "t", Hashes::default());
        let error = keys.keep_new(&batch).await.unwrap_err().to_string();
        let shown = format!("'{}...'", "ž".repeat(100));
        assert!(error.contains(&shown), "{error}");
    }
}
