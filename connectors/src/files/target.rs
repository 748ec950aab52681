//! The directory that an INSERT adds files to, and its hidden folder, in which they wait. What it does
//! not do: make them visible ([`super::commit`]).

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use datafusion::datasource::listing::ListingTableUrl;
use datafusion::execution::object_store::ObjectStoreUrl;
use futures::{StreamExt, TryStreamExt};
use object_store::path::{Path, PathPart};
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};

use super::durable;
use super::listing::HIDDEN;
use crate::error::{Error, ErrorKind, Result};

/// Age of a file in the hidden folder after which its writer is taken for dead: longer than any
/// pause between two blocks of a live one.
const LEFTOVER_AGE: Duration = Duration::from_secs(7 * 24 * 3600);
/// What names begin with that no write looks for again.
pub(super) const UNIQUE: &str = "part-";
/// Bytes of a file on S3, which copies at most 5 GiB at once, and the library waits 30 s for an answer.
/// Few in tests, so that this happens there.
const S3_FILE_BYTES: u64 = if cfg!(test) { 1 << 20 } else { 1 << 30 };
/// How long a copy is waited for that a store has promised, but not made.
const COPY_WAITS: u32 = 600;
/// Pause before it is looked at again.
const COPY_WAIT: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 1000 });

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
    /// A file may have about so many bytes, because the store copies no larger ones.
    pub(super) file_bytes: Option<u64>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A store may show its credentials.
        f.debug_tuple("Target").field(&self.shown).finish()
    }
}

impl Target {
    /// How large a file may be in the store `url`.
    pub(super) fn file_bytes(url: &ObjectStoreUrl) -> Option<u64> {
        url.as_str().starts_with("s3").then_some(S3_FILE_BYTES)
    }

    /// True if an INSERT may write several files: what makes them visible is a list of them.
    pub(super) fn lists(&self) -> bool {
        self.partitioned || self.file_bytes.is_some()
    }

    /// A new file in the hidden folder, or a new folder for several files.
    pub(super) fn hidden(&self) -> Path {
        let ending = if self.lists() { "" } else { &self.extension };
        self.path(&format!(
            "{HIDDEN}/tmp/{}{ending}",
            uuid::Uuid::new_v4().simple()
        ))
    }

    /// What the library's writer is told to write of `hidden`: the file, a new file in the folder, or
    /// the folder, in which it makes folders.
    pub(super) fn destination(&self, hidden: &Path) -> Result<ListingTableUrl> {
        let doing = || format!("writing below '{}'", self.shown);
        let mut parts: Vec<String> = hidden.parts().map(|p| p.as_ref().to_owned()).collect();
        if self.lists() && !self.partitioned {
            let name = uuid::Uuid::new_v4().simple();
            parts.push(format!("{UNIQUE}{name}{}", self.extension));
        }
        let mut url =
            url::Url::parse(self.url.as_str()).map_err(|e| Error::while_doing(doing(), e))?;
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(parts);
        }
        ListingTableUrl::try_new(url, None).map_err(|e| Error::while_doing(doing(), e))
    }

    pub(super) fn path(&self, name: &str) -> Path {
        let parts = self.directory.parts();
        Path::from_iter(parts.chain(name.split('/').map(PathPart::from)))
    }

    /// `path` as it is called below the directory.
    pub(super) fn below(&self, path: &Path) -> String {
        let below = path.prefix_match(&self.directory).into_iter().flatten();
        Path::from_iter(below).to_string()
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
            durable::make(&hidden.join("tmp")).map_err(|e| Error::while_doing(doing(), e))?;
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

    /// Why an INSERT that stands failed.
    pub(super) fn stands(&self, error: Error, but: &str) -> Error {
        let message = format!(
            "{error}; the INSERT into the table at '{}' stands, {but}",
            self.shown
        );
        Error::new(error.kind(), message).with_source(error)
    }

    /// Why complete rows are not in the table, and where they are: at `hidden`.
    pub(super) fn waiting(&self, error: Error, hidden: &Path) -> Error {
        let border = if self.lists() { "/" } else { "" };
        let days = LEFTOVER_AGE.as_secs() / (24 * 3600);
        let message = format!(
            "{error}; all rows wait in '{}/{HIDDEN}/tmp/{}{border}', for {days} days: run the INSERT \
             again, or if its rows are dear make a table of that location and insert from it",
            self.shown.trim_end_matches('/'),
            hidden.filename().unwrap_or_default()
        );
        Error::new(error.kind(), message).with_source(error)
    }

    /// That others added files all the time.
    pub(super) fn overtaken(&self) -> Error {
        Error::new(
            ErrorKind::Unavailable,
            format!(
                "other writers add rows to the table at '{}' faster than this one can",
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

    /// On this machine: makes `files` of the directory and their names survive a power cut. Object stores
    /// have answered when a file does.
    pub(super) async fn sync(&self, files: Vec<String>) -> Result<()> {
        let names = durable::above(&files).into_iter().map(str::to_owned);
        let names: Vec<String> = names.collect();
        self.sync_each([files, names].concat()).await
    }

    /// The same for their names alone.
    pub(super) async fn sync_names(&self, files: &[String]) -> Result<()> {
        let names = durable::above(files).into_iter().map(str::to_owned);
        self.sync_each(names.collect()).await
    }

    async fn sync_each(&self, names: Vec<String>) -> Result<()> {
        let Some(directory) = self.local.clone() else {
            return Ok(());
        };
        let synced = tokio::task::spawn_blocking(move || durable::sync(&directory, &names)).await;
        let doing = || format!("writing the table at '{}' to disk", self.shown);
        synced
            .map_err(|e| Error::while_doing(doing(), e))?
            .map_err(|e| Error::while_doing(doing(), e))
    }

    async fn size(&self, path: &Path) -> Result<Option<u64>> {
        match self.store.head(path).await {
            Ok(found) => Ok(Some(found.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(self.failed("looking at a copied file", e)),
        }
    }

    /// Gives the complete file `hidden` the name `visible`; false if that is taken.
    pub(super) async fn give_name(&self, hidden: &Path, visible: &Path) -> Result<bool> {
        match self.store.copy_if_not_exists(hidden, visible).await {
            Ok(()) => {
                self.remove_copied(hidden, visible).await?;
                Ok(true)
            }
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            // An answer that was lost, unless somebody else was faster.
            Err(_) if self.is_there(visible).await.unwrap_or(false) => Ok(false),
            Err(e) => Err(self.not_published(e)),
        }
    }

    /// Removes `hidden`, of which `visible` is a copy. A store may promise a copy that it makes later,
    /// for which it needs the original (Azure, between accounts).
    pub(super) async fn remove_copied(&self, hidden: &Path, visible: &Path) -> Result<()> {
        // On this machine both are names of one file.
        if self.local.is_none() {
            let mut waits = 0;
            loop {
                match (self.size(hidden).await?, self.size(visible).await?) {
                    (Some(whole), Some(size)) if whole == size => break,
                    // Somebody was faster with the one, or has taken the other away.
                    (None, _) | (_, None) => return Ok(()),
                    (Some(whole), _) if waits == COPY_WAITS => {
                        return Err(Error::new(
                            ErrorKind::Unavailable,
                            format!(
                                "the store of '{}' has not made '{visible}', of {whole} bytes, of \
                                 '{hidden}' within {waits} s",
                                self.shown
                            ),
                        ));
                    }
                    _ => {}
                }
                waits += 1;
                tokio::time::sleep(COPY_WAIT).await;
            }
        }
        // It would only take space.
        self.store.delete(hidden).await.ok();
        Ok(())
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
        let left: Vec<ObjectMeta> = self
            .store
            .list(Some(&folder))
            .try_collect()
            .await
            .unwrap_or_default();
        // The files of one INSERT are in a folder of their own; the last of them says if it lives.
        let of = |file: &ObjectMeta| {
            let below = file.location.prefix_match(&folder);
            below.and_then(|mut below| Some(below.next()?.as_ref().to_owned()))
        };
        let mut changed = HashMap::new();
        for file in &left {
            let last = changed.entry(of(file)).or_insert(file.last_modified);
            *last = file.last_modified.max(*last);
        }
        for file in &left {
            let last = changed.get(&of(file)).copied().map(SystemTime::from);
            if last.is_some_and(is_old) {
                self.store.delete(&file.location).await.ok();
            }
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

/// True for the time of the last change of what a dead writer left.
fn is_old(changed: SystemTime) -> bool {
    changed.elapsed().is_ok_and(|age| age > LEFTOVER_AGE)
}

fn remove_old(folder: &std::path::Path) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries {
        if last_change(&entry).is_some_and(is_old) {
            // The files of a partitioned table are in a folder of their own.
            match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                true => std::fs::remove_dir_all(entry.path()).ok(),
                false => std::fs::remove_file(entry.path()).ok(),
            };
        }
    }
}

/// When something at or below `entry` was changed last: a folder does not change with its files.
fn last_change(entry: &std::fs::DirEntry) -> Option<SystemTime> {
    let own = entry.metadata().and_then(|m| m.modified()).ok();
    let below = match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
        true => std::fs::read_dir(entry.path())
            .into_iter()
            .flatten()
            .flatten(),
        false => return own,
    };
    below.map(|entry| last_change(&entry)).fold(own, Ord::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_as_old_as_its_latest_file() {
        let dir = tempfile::tempdir().unwrap();
        let old = SystemTime::now() - 2 * LEFTOVER_AGE;
        for (name, dead) in [("live", false), ("dead", true)] {
            let folder = dir.path().join(name).join("court=x");
            std::fs::create_dir_all(&folder).unwrap();
            let file = std::fs::File::create(folder.join("a.csv#1")).unwrap();
            let other = std::fs::File::create(folder.join("b.csv")).unwrap();
            other.set_modified(old).unwrap();
            if dead {
                file.set_modified(old).unwrap();
            }
            for folder in [&folder, &dir.path().join(name)] {
                std::fs::File::open(folder)
                    .unwrap()
                    .set_modified(old)
                    .unwrap();
            }
        }
        for name in ["old.csv", "new.csv"] {
            let file = std::fs::File::create(dir.path().join(name)).unwrap();
            if name == "old.csv" {
                file.set_modified(old).unwrap();
            }
        }
        remove_old(dir.path());
        let left = ["live/court=x/a.csv#1", "live/court=x/b.csv", "new.csv"];
        assert!(left.iter().all(|name| dir.path().join(name).exists()));
        assert!(!dir.path().join("dead").exists() && !dir.path().join("old.csv").exists());
    }
}
