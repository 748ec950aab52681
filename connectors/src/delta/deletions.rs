//! Deletion vectors before the library reads them: how large they are, and how far they reach.
//!
//! The library makes of each a list with a flag for every row up to the last deleted one, and holds
//! the lists of a scan together. What is in a file decides how long: a vector of 40 bytes can delete
//! row 2^40. See
//! <https://github.com/delta-io/delta/blob/master/PROTOCOL.md#deletion-vector-format>.

use deltalake::DeltaTable;
use deltalake::kernel::{DeletionVectorDescriptor, StorageType};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use roaring::RoaringTreemap;
use url::Url;

use super::listed::Listed;
use crate::error::{Error, ErrorKind, Result};

/// Bytes of one vector. One that deletes every other row of 250 million has as many.
const VECTOR_BYTES: u64 = 32 << 20;
/// Bytes of a file of vectors, which the library reads as a whole; writers make them of 2 MB.
const FILE_BYTES: u64 = 256 << 20;
/// Flags of all lists of a scan, a byte each.
const FLAGS: u64 = 2 << 30;
/// Vectors that are read at the same time.
const READ_AT_ONCE: usize = 8;
/// What the bytes of a vector begin with.
const MAGIC: u32 = 1_681_511_377;

/// An error if the vectors of `files`, which are those of `table` at `location`, are none, or need
/// more memory than a scan may take.
pub(super) async fn check(table: &DeltaTable, files: &[Listed], location: &str) -> Result<()> {
    let store = table.object_store();
    let log_store = table.log_store();
    let (store, root) = (&store, log_store.root_url());
    let with_vectors = files
        .iter()
        .filter_map(|file| Some((file, file.deletes.as_ref()?)));
    let with_vectors: Vec<_> = with_vectors.collect();
    let mut rows = futures::stream::iter(with_vectors)
        .map(|(file, vector)| async move {
            let rows = reach(store.as_ref(), root, vector).await;
            rows.map_err(|e| {
                let doing = format!(
                    "reading the deletion vector of '{}' of the Delta table at '{location}'",
                    file.path
                );
                Error::while_doing(doing, e)
            })
        })
        .boxed() // or the compiler takes the lifetimes for too short
        .buffer_unordered(READ_AT_ONCE);
    let mut flags = 0_u64;
    while let Some(rows) = rows.try_next().await? {
        flags = flags.saturating_add(rows);
        if flags > FLAGS {
            return Err(Error::new(
                ErrorKind::Exhausted,
                format!(
                    "the deletion vectors of the Delta table at '{location}' reach over more than \
                     {FLAGS} rows, which are more than are held in memory; rewrite its files \
                     without deleted rows (REORG TABLE ... APPLY (PURGE), or OPTIMIZE)"
                ),
            ));
        }
    }
    Ok(())
}

/// The number of rows up to the last one that `vector` deletes.
async fn reach(
    store: &dyn ObjectStore,
    root: &Url,
    vector: &DeletionVectorDescriptor,
) -> Result<u64> {
    let damaged = |why: &str| Error::new(ErrorKind::Corrupt, format!("it is damaged: {why}"));
    let size = u64::try_from(vector.size_in_bytes).unwrap_or_default();
    let too_large = |what: &str, bytes: u64, most: u64| {
        let message = format!("{what} has {bytes} bytes, and at most {most} are read");
        Err(Error::new(ErrorKind::Exhausted, message))
    };
    if size > VECTOR_BYTES {
        return too_large("it", size, VECTOR_BYTES);
    }
    let bytes = match file(root, vector) {
        None if vector.storage_type == StorageType::Inline => {
            let decoded = z85::decode(&vector.path_or_inline_dv);
            decoded.map_err(|_| damaged("it is not in base 85"))?.into()
        }
        None => return Err(damaged("it names no file")),
        Some(path) => {
            let whole = store.head(&path).await;
            let whole = whole.map_err(|e| Error::while_doing(format!("opening '{path}'"), e))?;
            if whole.size > FILE_BYTES {
                return too_large("its file", whole.size, FILE_BYTES);
            }
            // Four bytes of its size come first.
            let start = u64::try_from(vector.offset.unwrap_or(1)).unwrap_or_default() + 4;
            if start + size > whole.size {
                return Err(damaged("its file ends before it"));
            }
            let read = store.get_range(&path, start..start + size).await;
            read.map_err(|e| Error::while_doing(format!("reading '{path}'"), e))?
        }
    };
    let Some((magic, bitmap)) = bytes.split_first_chunk() else {
        return Err(damaged("it is too short"));
    };
    if u32::from_le_bytes(*magic) != MAGIC {
        return Err(damaged("it is of an unknown format"));
    }
    let rows = RoaringTreemap::deserialize_from(bitmap);
    let rows = rows.map_err(|e| damaged(&e.to_string()))?;
    Ok(rows.max().map_or(0, |last| last.saturating_add(1)))
}

/// The file of `vector`, relative to `root`; none if it has none.
fn file(root: &Url, vector: &DeletionVectorDescriptor) -> Option<Path> {
    let name = &vector.path_or_inline_dv;
    match vector.storage_type {
        StorageType::Inline => None,
        StorageType::AbsolutePath => {
            let url = Url::parse(name).ok()?;
            Path::from_url_path(url.path().strip_prefix(root.path())?).ok()
        }
        StorageType::UuidRelativePath => {
            let (folder, number) = name.split_at_checked(name.len().checked_sub(20)?)?;
            let number = uuid::Uuid::from_slice(&z85::decode(number).ok()?).ok()?;
            let file = format!("deletion_vector_{number}.bin");
            Some(match folder {
                "" => Path::from(file),
                folder => Path::from(format!("{folder}/{file}")),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use object_store::PutPayload;
    use object_store::memory::InMemory;

    use super::*;

    fn vector(kind: StorageType, text: &str, size: i32) -> DeletionVectorDescriptor {
        DeletionVectorDescriptor {
            offset: (kind != StorageType::Inline).then_some(1),
            storage_type: kind,
            path_or_inline_dv: text.to_owned(),
            size_in_bytes: size,
            cardinality: 1,
        }
    }

    /// The bytes of a vector that deletes `rows`.
    fn bytes(rows: &[u64]) -> Vec<u8> {
        let mut bytes = MAGIC.to_le_bytes().to_vec();
        let rows: RoaringTreemap = rows.iter().collect();
        rows.serialize_into(&mut bytes).unwrap();
        bytes
    }

    #[tokio::test]
    async fn how_far_a_vector_reaches_is_known_before_it_is_opened() {
        let store = InMemory::new();
        let root = Url::parse("file:///data/t/").unwrap();
        let uuid = "vBn[lx{q8@P<9BNH/isA";
        let name = "deletion_vector_61d16c75-6994-46b7-a15b-8b538852e50e.bin";
        let own = bytes(&[3, 9]);
        let mut file = vec![1, 0, 0, 0, 0];
        file.extend(&own);
        for path in [name.to_owned(), format!("ab/{name}")] {
            let content = PutPayload::from(file.clone());
            store.put(&Path::from(path), content).await.unwrap();
        }
        let size = own.len() as i32;
        let absolute = format!("file:///data/t/{name}");
        let prefixed = format!("ab{uuid}");
        for (kind, text) in [
            (StorageType::UuidRelativePath, uuid),
            (StorageType::UuidRelativePath, &prefixed),
            (StorageType::AbsolutePath, &absolute),
        ] {
            let found = reach(&store, &root, &vector(kind, text, size)).await;
            assert_eq!(found.unwrap(), 10, "{text}");
        }
        for (rows, reaches) in [(&[][..], 0), (&[0], 1), (&[1 << 40], (1 << 40) + 1)] {
            let mut own = bytes(rows);
            own.resize(own.len().next_multiple_of(4), 0);
            let inline = vector(StorageType::Inline, &z85::encode(own), 40);
            assert_eq!(reach(&store, &root, &inline).await.unwrap(), reaches);
        }
        for (bad, part) in [
            (vector(StorageType::Inline, "abc", 40), "base 85"),
            (vector(StorageType::Inline, "", 40), "too short"),
            (vector(StorageType::Inline, "00000", 40), "unknown format"),
            (
                vector(StorageType::Inline, &z85::encode(MAGIC.to_le_bytes()), 4),
                "damaged",
            ),
            (
                vector(StorageType::UuidRelativePath, uuid, i32::MAX),
                "at most",
            ),
            (
                vector(StorageType::UuidRelativePath, uuid, 1 << 20),
                "ends before",
            ),
            (vector(StorageType::UuidRelativePath, "é", 4), "no file"),
            (
                vector(StorageType::UuidRelativePath, &format!("c{uuid}"), 4),
                "opening",
            ),
        ] {
            let error = reach(&store, &root, &bad).await.unwrap_err().to_string();
            assert!(error.contains(part), "{bad:?}: {error}");
        }
    }
}
