//! The directory that an INSERT adds files to, and its hidden folder, in which they wait. What it does
//! not do: make them visible ([`super::commit`]).

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use datafusion::datasource::listing::ListingTableUrl;
use datafusion::execution::object_store::ObjectStoreUrl;
use futures::{StreamExt, TryStreamExt};
use object_store::path::{Path, PathPart};
use object_store::{ObjectStore, ObjectStoreExt};

use super::listing::HIDDEN;
use crate::error::{Error, ErrorKind, Result};

/// Age of a file in the hidden folder after which its writer is taken for dead: longer than any
/// pause between two blocks of a live one.
const LEFTOVER_AGE: Duration = Duration::from_secs(7 * 24 * 3600);
/// A directory that files are added to.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) store: Arc<dyn ObjectStore>,
    /// What the session knows the store by.
    pub(super) url: ObjectStoreUrl,
    pub(super) directory: Path,
    /// The directory on this machine, if it is one.
    pub(super) local: Option<PathBuf>,
    /// As the statement names it.
    pub(super) shown: String,
    /// Ending of the files.
    pub(super) extension: String,
    /// An INSERT writes a folder of files, not one.
    pub(super) partitioned: bool,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A store may show its credentials.
        f.debug_tuple("Target").field(&self.shown).finish()
    }
}

impl Target {
    /// A new file in the hidden folder, or a new folder for the files of a partitioned table.
    pub(super) fn hidden(&self) -> Result<ListingTableUrl> {
        let ending = if self.partitioned { "" } else { ".tmp" };
        let name = format!("{HIDDEN}/tmp/{}{ending}", uuid::Uuid::new_v4().simple());
        let doing = || format!("writing below '{}'", self.shown);
        let mut url =
            url::Url::parse(self.url.as_str()).map_err(|e| Error::while_doing(doing(), e))?;
        if let Ok(mut segments) = url.path_segments_mut() {
            segments
                .pop_if_empty()
                .extend(self.path(&name).parts().map(|p| p.as_ref().to_owned()));
        }
        ListingTableUrl::try_new(url, None).map_err(|e| Error::while_doing(doing(), e))
    }

    pub(super) fn path(&self, name: &str) -> Path {
        let parts = self.directory.parts();
        Path::from_iter(parts.chain(name.split('/').map(PathPart::from)))
    }

    /// Makes the directory on this machine, so that a missing right shows before any row is made.
    /// What is written stays below it: nobody must be able to lead it elsewhere.
    pub(super) async fn make(&self) -> Result<()> {
        let Some(directory) = self.local.clone() else {
            return Ok(());
        };
        let make = move || {
            let hidden = directory.join(HIDDEN);
            let folders = ["tmp", "writes", "lists"].map(|name| hidden.join(name));
            for folder in folders.iter().chain([&hidden]) {
                if std::fs::symlink_metadata(folder).is_ok_and(|found| found.is_symlink()) {
                    return Err(Error::invalid(format!(
                        "'{}' is a symbolic link, through which nothing is written; remove it",
                        folder.display()
                    )));
                }
            }
            let doing = || format!("making the directory '{}' of a table", directory.display());
            std::fs::create_dir_all(hidden.join("tmp"))
                .map_err(|e| Error::while_doing(doing(), e))?;
            // Of an existing directory, only a write shows whether it may be written to.
            let probe = hidden.join(format!("tmp/{}.tmp", uuid::Uuid::new_v4().simple()));
            std::fs::File::create_new(&probe)
                .and_then(|_| std::fs::remove_file(&probe))
                .map_err(|e| Error::while_doing(doing(), e))
        };
        let made = tokio::task::spawn_blocking(make).await;
        made.map_err(|e| self.failed("making the directory", e))?
    }

    /// The names of all files, hidden ones too.
    pub(super) async fn names(&self) -> Result<Vec<String>> {
        let mut names = vec![];
        let mut files = self.store.list(Some(&self.directory));
        while let Some(file) = files.next().await {
            match file {
                Ok(file) => names.extend(file.location.filename().map(str::to_owned)),
                Err(object_store::Error::NotFound { .. }) => break,
                Err(e) => return Err(self.failed("listing the files", e)),
            }
        }
        Ok(names)
    }

    /// Why written rows are not visible.
    pub(super) fn not_published(&self, error: object_store::Error) -> Error {
        use object_store::Error::{NotImplemented, NotSupported};
        match error {
            NotSupported { .. } | NotImplemented { .. } => {
                let message = format!(
                    "the store of '{}' cannot add a file unless it exists: {error}; on an \
                     S3-compatible store set aws.copy_if_not_exists as its documentation says",
                    self.shown
                );
                Error::new(ErrorKind::Unsupported, message).with_source(error)
            }
            error => self.failed("making written rows visible", error),
        }
    }

    /// That others added files all the time.
    pub(super) fn overtaken(&self) -> Error {
        Error::new(
            ErrorKind::Unavailable,
            format!(
                "other writers add rows to the table at '{}' faster than this one can; nothing was \
                 written: run the INSERT again",
                self.shown
            ),
        )
    }

    pub(super) async fn is_there(&self, path: &Path) -> Result<bool> {
        match self.store.head(path).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(e) => Err(self.failed("looking for an earlier write", e)),
        }
    }

    /// On the local disk: makes the file `name`, or the directory itself if that is empty, survive a
    /// power cut. Object stores have answered when a file does.
    pub(super) async fn sync(&self, name: &str) -> Result<()> {
        let (true, Some(directory)) = (cfg!(unix), &self.local) else {
            return Ok(());
        };
        let path = directory.join(name);
        let sync = move || std::fs::File::open(path)?.sync_all();
        let synced = tokio::task::spawn_blocking(sync).await;
        let doing = || format!("writing the table at '{}' to disk", self.shown);
        synced
            .map_err(|e| Error::while_doing(doing(), e))?
            .map_err(|e| Error::while_doing(doing(), e))
    }

    /// Removes what dead writers left. It would only take space, so errors are left be.
    pub(super) async fn remove_leftovers(&self) {
        let folder = self.path(&format!("{HIDDEN}/tmp"));
        if let Some(local) = &self.local {
            // The library does not list the unfinished files of its own.
            let path = local.join(HIDDEN).join("tmp");
            let remove = move || remove_old(&path);
            tokio::task::spawn_blocking(remove).await.ok();
            return;
        }
        let old: Vec<_> = self
            .store
            .list(Some(&folder))
            .try_filter(|file| {
                let age = std::time::SystemTime::from(file.last_modified).elapsed();
                futures::future::ready(age.is_ok_and(|age| age > LEFTOVER_AGE))
            })
            .try_collect()
            .await
            .unwrap_or_default();
        for file in old {
            self.store.delete(&file.location).await.ok();
        }
    }

    pub(super) fn failed(
        &self,
        doing: &str,
        error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        Error::while_doing(format!("{doing} of the table at '{}'", self.shown), error)
    }
}

fn remove_old(folder: &std::path::Path) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries {
        let changed = entry.metadata().and_then(|m| m.modified());
        let age = changed.ok().and_then(|changed| changed.elapsed().ok());
        if age.is_some_and(|age| age > LEFTOVER_AGE) {
            // The files of a partitioned table are in a folder of their own.
            match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                true => std::fs::remove_dir_all(entry.path()).ok(),
                false => std::fs::remove_file(entry.path()).ok(),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dead_writer_left_goes_and_what_a_live_one_writes_stays() {
        let dir = tempfile::tempdir().unwrap();
        let old = std::time::SystemTime::now() - LEFTOVER_AGE - Duration::from_secs(60);
        for age in ["old", "new"] {
            let folder = dir.path().join(format!("{age}-folder"));
            std::fs::create_dir_all(folder.join("court=ca1")).unwrap();
            std::fs::write(folder.join("court=ca1/a.parquet#1"), "x").unwrap();
            let mut made = vec![folder];
            // The second as the library calls what is not complete.
            for name in ["a.tmp", "b.tmp#1"] {
                let path = dir.path().join(format!("{age}-{name}"));
                std::fs::write(&path, "x").unwrap();
                made.push(path);
            }
            for path in made.iter().filter(|_| age == "old") {
                std::fs::File::open(path)
                    .unwrap()
                    .set_modified(old)
                    .unwrap();
            }
        }
        remove_old(dir.path());
        let left = std::fs::read_dir(dir.path()).unwrap();
        let mut left: Vec<String> = left
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["new-a.tmp", "new-b.tmp#1", "new-folder"]);
    }
}
