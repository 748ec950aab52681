//! How a written file becomes part of a table: whole or not at all, and once.
//!
//! A write goes into a file below the hidden folder, which no listing shows. When it is complete,
//! it is given its final name unless that name is taken: a hard link on disk, a conditional copy on
//! object stores. The name decides what "once" means:
//!
//! - (application, version): the name is made of them, so the same write has the same name. A
//!   record is left beside the files, for the time when someone rewrites them under other names.
//! - key: the name is the next number. Of two writers that compared their keys with the same files
//!   one finds the name taken, and has written nothing.
//! - otherwise a name of its own.
//!
//! The files of a partitioned table wait in a folder below it, and are given their names one after
//! the other: that takes moments, but a writer that is killed meanwhile leaves some of them.
//!
//! A writer that is killed leaves a file in the hidden folder at most; later writers remove it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use datafusion::datasource::listing::ListingTableUrl;
use datafusion::execution::object_store::ObjectStoreUrl;
use futures::{StreamExt, TryStreamExt};
use object_store::path::{Path, PathPart};
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload};

use super::listing::HIDDEN;
use crate::error::{Error, ErrorKind, Result};
use crate::write::{Recorded, WriteOptions};

/// Age of a file in the hidden folder after which its writer is taken for dead: longer than any
/// pause between two blocks of a live one.
const LEFTOVER_AGE: Duration = Duration::from_secs(7 * 24 * 3600);
/// What the name of a file with keys begins with.
const KEYED: &str = "keyed-";

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
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A store may show its credentials.
        f.debug_tuple("Target").field(&self.shown).finish()
    }
}

/// A write under way.
#[derive(Debug)]
pub(super) struct Commit {
    target: Target,
    hidden: Path,
    visible: Path,
    recorded: Option<Recorded>,
    keyed: bool,
}

/// What came of making a file visible.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Published {
    /// Its rows are in the table now.
    Added,
    /// The same write was there already.
    AlreadyThere,
}

impl Target {
    /// A new file in the hidden folder, or a new folder for the files of a partitioned table.
    pub(super) fn hidden(&self, is_folder: bool) -> Result<ListingTableUrl> {
        let ending = if is_folder { "" } else { ".tmp" };
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

    fn path(&self, name: &str) -> Path {
        let parts = self.directory.parts();
        Path::from_iter(parts.chain(name.split('/').map(PathPart::from)))
    }

    /// Makes the directory on this machine, so that a missing right shows before any row is made.
    /// What is written stays below it: nobody must be able to lead it elsewhere.
    async fn make(&self) -> Result<()> {
        let Some(directory) = self.local.clone() else {
            return Ok(());
        };
        let make = move || {
            let hidden = directory.join(HIDDEN);
            for folder in [hidden.clone(), hidden.join("tmp"), hidden.join("writes")] {
                if std::fs::symlink_metadata(&folder).is_ok_and(|found| found.is_symlink()) {
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

    /// Starts a write into `hidden`; none if it was done before.
    pub(super) async fn begin(&self, hidden: Path, write: &WriteOptions) -> Result<Option<Commit>> {
        self.make().await?;
        self.remove_leftovers().await;
        if let Some(recorded) = &write.recorded
            && recorded.is_done(self.latest(recorded).await?, &self.shown)?
        {
            if !self.is_there(&self.path(&record_name(recorded))).await? {
                // Killed between the file and its record.
                let file = format!("{}{}", name(recorded), self.extension);
                self.record(recorded, &file).await?;
            }
            return Ok(None);
        }
        let file = match (&write.key, &write.recorded) {
            (Some(_), _) => format!("{KEYED}{:08}", self.next_number().await?),
            (None, Some(recorded)) => name(recorded),
            (None, None) => format!("part-{}", uuid::Uuid::new_v4().simple()),
        };
        Ok(Some(Commit {
            target: self.clone(),
            hidden,
            visible: self.path(&format!("{file}{}", self.extension)),
            recorded: write.recorded.clone(),
            keyed: write.key.is_some(),
        }))
    }

    /// The highest version that the application has written: of its records, and of the files that
    /// are named after it.
    async fn latest(&self, recorded: &Recorded) -> Result<Option<i64>> {
        let own = application(recorded);
        let names = self.names().await?;
        let numbers = names.iter().filter_map(|name| {
            let number = name.strip_prefix(&own)?.split('.').next()?;
            number.parse::<i64>().ok()
        });
        Ok(numbers.max())
    }

    /// The names of all files, hidden ones too.
    async fn names(&self) -> Result<Vec<String>> {
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

    /// Leaves the record of a write whose rows are in `file`.
    async fn record(&self, recorded: &Recorded, file: &str) -> Result<()> {
        let path = self.path(&record_name(recorded));
        let content = serde_json::json!({
            "app_id": recorded.app_id,
            "version": recorded.version,
            "file": file,
        });
        let payload = PutPayload::from(content.to_string());
        let put = self
            .store
            .put_opts(&path, payload, PutMode::Create.into())
            .await;
        match put {
            Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => Ok(()),
            Err(e) => Err(self.failed("recording a write", e)),
        }
    }

    async fn is_there(&self, path: &Path) -> Result<bool> {
        match self.store.head(path).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(e) => Err(self.failed("looking for an earlier write", e)),
        }
    }

    /// On the local disk: makes the file `name`, or the directory itself if that is empty, survive a
    /// power cut. Object stores have answered when a file does.
    async fn sync(&self, name: &str) -> Result<()> {
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

    /// The number after the last one of a file with keys.
    async fn next_number(&self) -> Result<u64> {
        let names = self.names().await?;
        let numbers = names.iter().filter_map(|name| {
            let number = name.strip_prefix(KEYED)?.get(..8)?;
            number.parse::<u64>().ok()
        });
        Ok(numbers.max().unwrap_or(0) + 1)
    }

    /// Removes what dead writers left. It would only take space, so errors are left be.
    async fn remove_leftovers(&self) {
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

    fn failed(
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

/// What the names of an application's files begin with; its own name may hold anything.
fn application(recorded: &Recorded) -> String {
    let hash = blake3::hash(recorded.app_id.as_bytes()).to_hex();
    format!("write-{}-", &hash[..16])
}

/// The name of a write's file: the same for the same write.
fn name(recorded: &Recorded) -> String {
    format!("{}{:012}", application(recorded), recorded.version)
}

fn record_name(recorded: &Recorded) -> String {
    format!("{HIDDEN}/writes/{}.commit", name(recorded))
}

impl Commit {
    /// Makes the complete file visible.
    pub(super) async fn publish(self, rows: u64) -> Result<Published> {
        let hidden = self.hidden.filename().unwrap_or_default();
        let synced = self.target.sync(&format!("{HIDDEN}/tmp/{hidden}")).await;
        if let Err(e) = synced {
            self.abandon().await;
            return Err(e);
        }
        let store = &self.target.store;
        let published = store
            .rename_if_not_exists(&self.hidden, &self.visible)
            .await;
        match published {
            Ok(()) => {
                self.target.sync("").await?;
                self.record().await?;
                Ok(Published::Added)
            }
            Err(object_store::Error::AlreadyExists { source, .. }) => {
                self.abandon().await;
                match self.keyed {
                    false => Ok(Published::AlreadyThere),
                    true => Err(Error::new(
                        ErrorKind::Unavailable,
                        format!(
                            "another writer added rows to the table at '{}' meanwhile; nothing \
                             was written: run the INSERT again",
                            self.target.shown
                        ),
                    )
                    .with_source(source)),
                }
            }
            Err(e) => {
                self.abandon().await;
                let unsupported = matches!(
                    e,
                    object_store::Error::NotSupported { .. }
                        | object_store::Error::NotImplemented { .. }
                );
                if unsupported {
                    let message = format!(
                        "the store of '{}' cannot add a file unless it exists: {e}; on an \
                         S3-compatible store set aws.copy_if_not_exists as its documentation says",
                        self.target.shown
                    );
                    return Err(Error::new(ErrorKind::Unsupported, message).with_source(e));
                }
                let doing = format!("making {rows} written rows visible");
                Err(self.target.failed(&doing, e))
            }
        }
    }

    /// Makes the complete files of a partitioned table visible, one after the other.
    pub(super) async fn publish_folder(self) -> Result<()> {
        let store = &self.target.store;
        let failed = |e: object_store::Error| self.target.failed("making written rows visible", e);
        let mut files: Vec<Path> = store
            .list(Some(&self.hidden))
            .map_ok(|file| file.location)
            .try_collect()
            .await
            .map_err(failed)?;
        files.sort();
        for file in files {
            let below = file.prefix_match(&self.hidden).into_iter().flatten();
            let visible = Path::from_iter(self.target.directory.parts().chain(below));
            store
                .rename_if_not_exists(&file, &visible)
                .await
                .map_err(failed)?;
        }
        self.remove_folders().await;
        Ok(())
    }

    /// Removes what a partitioned write that failed has left.
    pub(super) async fn abandon_folder(&self) {
        let store = &self.target.store;
        let files: Vec<_> = store
            .list(Some(&self.hidden))
            .try_collect()
            .await
            .unwrap_or_default();
        for file in files {
            store.delete(&file.location).await.ok();
        }
        self.remove_folders().await;
    }

    /// On this machine folders are there without files.
    async fn remove_folders(&self) {
        if let (Some(local), Some(name)) = (&self.target.local, self.hidden.filename()) {
            let folder = local.join(HIDDEN).join("tmp").join(name);
            tokio::task::spawn_blocking(|| std::fs::remove_dir_all(folder))
                .await
                .ok();
        }
    }

    /// Notes that the write had no rows to add.
    pub(super) async fn publish_nothing(self) -> Result<()> {
        self.abandon().await;
        self.record().await
    }

    /// Removes the hidden file. It would only take space, so errors are left be.
    pub(super) async fn abandon(&self) {
        self.target.store.delete(&self.hidden).await.ok();
    }

    /// Leaves the record of an (application, version).
    async fn record(&self) -> Result<()> {
        match &self.recorded {
            Some(recorded) => {
                let file = self.visible.filename().unwrap_or_default();
                self.target.record(recorded, file).await
            }
            None => Ok(()),
        }
    }
}
