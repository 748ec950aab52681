//! The files that a table's log lists: each must be the table's own, and make sense.
//!
//! A log may name any file: `../../other/secret.parquet`, an absolute path, a URL. The library
//! reads it with the table's credentials. What is checked here is what the log says; the store that
//! a table is opened with refuses whatever a reader asks for beyond the table's directory, and
//! `stores_of` is the only one that a scan has.

use std::sync::Arc;

use datafusion::error::DataFusionError;
use datafusion::execution::object_store::ObjectStoreRegistry;
use deltalake::DeltaTable;
use deltalake::delta_datafusion::engine::AsObjectStoreUrl;
use deltalake::kernel::{DeletionVectorDescriptor, LogicalFileView, StorageType};
use futures::TryStreamExt;
use object_store::ObjectStore;
use url::Url;

use crate::error::{Error, ErrorKind, Result};
use crate::guard::{caught, outside};

/// One file of a table.
pub(super) struct Listed {
    /// Decoded, as the log has it.
    pub(super) path: String,
    pub(super) bytes: i64,
    /// Which rows of it were deleted.
    pub(super) deletes: Option<DeletionVectorDescriptor>,
    /// Columns, as files call them, whose value in its folder is the empty text.
    pub(super) blank: Vec<String>,
}

/// The files of the version that `table`, at `location`, was opened at.
///
/// # Errors
/// A file that is not the table's, or whose entry makes no sense.
pub(super) async fn files(table: &DeltaTable, location: &str) -> Result<Vec<Listed>> {
    let owner = format!("the Delta table at '{location}'");
    let failed = |e| Error::while_doing(format!("listing the files of {owner}"), e);
    let state = table.snapshot().map_err(failed)?;
    let log_store = table.log_store();
    let root = log_store.root_url();
    let mut views = state.snapshot().file_views(log_store.as_ref(), None);
    let mut files = vec![];
    while let Some(view) = views.try_next().await.map_err(failed)? {
        let path = caught(&format!("the log of {owner}"), || view.path().into_owned())?;
        files.push(listed(&view, path, root, &owner)?);
    }
    Ok(files)
}

fn listed(view: &LogicalFileView, path: String, root: &Url, owner: &str) -> Result<Listed> {
    let damaged = |why: String| {
        Error::new(
            ErrorKind::Corrupt,
            format!("{owner} cannot be read: the entry of its file '{path}' in the log {why}"),
        )
    };
    if !is_within(&path, root) {
        return Err(outside(owner, &path));
    }
    let bytes = view.size();
    if bytes < 0 {
        return Err(damaged(format!("says that it has {bytes} bytes")));
    }
    // The library panics at a kind of deletion vector that it does not know.
    let deletes = caught("it", || view.deletion_vector_descriptor())
        .map_err(|_| damaged("has a deletion vector of an unknown kind".into()))?;
    if let Some(deletes) = &deletes {
        let negative = deletes.size_in_bytes < 0 || deletes.cardinality < 0;
        if negative || deletes.offset.is_some_and(|offset| offset < 0) {
            return Err(damaged("has a deletion vector of negative size".into()));
        }
        if !is_own(deletes, root) {
            return Err(outside(owner, &deletes.path_or_inline_dv));
        }
    }
    let values = view.partition_values_map().into_iter();
    let blank = values.filter(|(_, value)| value.as_deref() == Some(""));
    Ok(Listed {
        blank: blank.map(|(name, _)| name).collect(),
        deletes,
        path,
        bytes,
    })
}

/// True if `path`, which is relative to `root` or a URL, is below it.
fn is_within(path: &str, root: &Url) -> bool {
    let url = match Url::parse(path) {
        Ok(url) => Ok(url),
        Err(_) => root.join(path),
    };
    let Ok(url) = url else { return false };
    let same_store = url[..url::Position::BeforePath] == root[..url::Position::BeforePath];
    let mut directory = root.path().to_owned();
    if !directory.ends_with('/') {
        directory.push('/');
    }
    let climbs = path.split(['/', '\\']).any(|part| part == "..");
    same_store && url.path().starts_with(&directory) && !climbs
}

/// True if the file of `deletes` is below `root`, or is the log itself.
fn is_own(deletes: &DeletionVectorDescriptor, root: &Url) -> bool {
    let file = &deletes.path_or_inline_dv;
    match deletes.storage_type {
        StorageType::Inline => true,
        StorageType::AbsolutePath => is_within(file, root) && Url::parse(file).is_ok(),
        // A prefix, which is a directory, and the 20 characters of a number.
        StorageType::UuidRelativePath => {
            let prefix = file.len().checked_sub(20).and_then(|n| file.get(..n));
            prefix.is_some_and(|prefix| !prefix.contains(['/', '\\', '.', '%', ':']))
        }
    }
}

/// What a scan of `table`, at `location`, finds its files in: the store that it was opened with.
pub(super) fn stores_of(table: &DeltaTable, location: &str) -> Arc<dyn ObjectStoreRegistry> {
    let log_store = table.log_store();
    let base = log_store.root_url().as_object_store_url();
    let base: &Url = base.as_ref();
    Arc::new(OwnStore {
        base: base.clone(),
        store: log_store.root_object_store(None),
        owner: format!("the Delta table at '{location}'").into(),
    })
}

/// The one store of a table.
#[derive(Debug)]
struct OwnStore {
    base: Url,
    store: Arc<dyn ObjectStore>,
    owner: Arc<str>,
}

impl ObjectStoreRegistry for OwnStore {
    fn register_store(&self, _: &Url, _: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        None
    }

    fn get_store(&self, url: &Url) -> datafusion::error::Result<Arc<dyn ObjectStore>> {
        match url[..url::Position::BeforePath] == self.base[..url::Position::BeforePath] {
            true => Ok(Arc::clone(&self.store)),
            false => Err(DataFusionError::from(outside(&self.owner, url.as_str()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_below_its_table_or_refused() {
        let root = Url::parse("file:///data/t/").unwrap();
        for own in [
            "a.parquet",
            "x=1/a b.parquet",
            "file:///data/t/a.parquet",
            "/data/t/a",
            "a..b",
            "%2e%2e/a",
        ] {
            // Percent signs are those of a file name: the log's own encoding is gone here. A URL
            // reads them as its own, so such a name is refused as well.
            assert_eq!(is_within(own, &root), !own.contains('%'), "{own}");
        }
        for other in [
            "../u/a.parquet",
            "x/../../a.parquet",
            "x/../a.parquet",
            "..\\a",
            "/etc/passwd",
            "//host/a",
            "file:///data/tt/a",
            "file:///data/t/../u/a",
            "s3://bucket/data/t/a",
            "http://host/data/t/a",
            "",
            ".",
            "..",
        ] {
            assert!(
                !is_within(other, &root) || other.is_empty() || other == ".",
                "{other}"
            );
        }
    }
}
