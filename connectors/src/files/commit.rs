//! How a written file becomes part of a table: whole or not at all, and once.
//!
//! A write goes into a file below the hidden folder, which no listing shows. When it is complete,
//! it is given its final name unless that name is taken: a hard link on disk, a conditional copy on
//! object stores. The name decides what "once" means:
//!
//! - (application, version): the name is made of them, so the same write has the same name. A
//!   record is left beside the files, for the time when someone rewrites them under other names.
//! - key: the name is the next number. Of two writers that compared their keys with the same files
//!   one finds the name taken, compares the rows that it has written once more, and tries again.
//! - otherwise a name of its own.
//!
//! The files of a partitioned table wait in a folder, and what gets the name is a list of them
//! ([`super::lists`]).
//!
//! A writer that is killed leaves a file in the hidden folder at most; later writers remove it.

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt, PutMode, PutPayload};

use super::listing::HIDDEN;
use super::target::Target;
use crate::error::Result;
use crate::write::{Recorded, WriteOptions};

/// What the name of a file with keys begins with.
const KEYED: &str = "keyed-";
/// What names begin with that no write looks for again.
pub(super) const UNIQUE: &str = "part-";

/// A write under way.
#[derive(Debug)]
pub(super) struct Commit {
    target: Target,
    /// The file, or the folder of files, that waits.
    hidden: Path,
    /// The final name of it, or of the list of its files, without an ending.
    name: String,
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
    /// Another writer added a file, which may have the same keys.
    Overtaken,
}

impl Target {
    /// Starts a write into `hidden`; none if it was done before.
    pub(super) async fn begin(&self, hidden: Path, write: &WriteOptions) -> Result<Option<Commit>> {
        self.make().await?;
        // Before earlier writes are completed and the keys are read: who takes a name after that finds
        // it taken, or we do, and whose name is counted has its rows visible.
        let number = match write.key {
            Some(_) => self.next_number().await?,
            None => 0,
        };
        self.complete().await?;
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
            (Some(_), _) => format!("{KEYED}{number:08}"),
            (None, Some(recorded)) => name(recorded),
            (None, None) => format!("{UNIQUE}{}", uuid::Uuid::new_v4().simple()),
        };
        Ok(Some(Commit {
            target: self.clone(),
            hidden,
            name: file,
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

    /// The number after the last one of a file with keys.
    async fn next_number(&self) -> Result<u64> {
        let names = self.names().await?;
        let numbers = names.iter().filter_map(|name| {
            let number = name.strip_prefix(KEYED)?.get(..8)?;
            number.parse::<u64>().ok()
        });
        Ok(numbers.max().unwrap_or(0) + 1)
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
    /// Makes what is complete visible.
    pub(super) async fn publish(&self) -> Result<Published> {
        let named = match self.target.partitioned {
            true => self.put_list().await,
            false => self.name_file().await,
        };
        match named {
            Ok(true) => {
                if self.target.partitioned {
                    let completed = self.target.complete().await;
                    completed.map_err(|e| self.target.half_visible(e))?;
                }
                self.record().await?;
                Ok(Published::Added)
            }
            // An answer was lost: nobody else has such a name.
            Ok(false) if self.name.starts_with(UNIQUE) => {
                self.abandon().await;
                Ok(Published::Added)
            }
            Ok(false) if self.keyed => Ok(Published::Overtaken),
            Ok(false) => {
                self.abandon().await;
                Ok(Published::AlreadyThere)
            }
            Err(error) => {
                // The list may be there for all that, and then it names the files.
                if !self.target.partitioned {
                    self.abandon().await;
                }
                Err(error)
            }
        }
    }

    /// Gives the file its name; false if that is taken.
    async fn name_file(&self) -> Result<bool> {
        let hidden = self.hidden.filename().unwrap_or_default();
        let target = &self.target;
        target.sync(&format!("{HIDDEN}/tmp/{hidden}")).await?;
        let visible = target.path(&self.file());
        match target
            .store
            .rename_if_not_exists(&self.hidden, &visible)
            .await
        {
            Ok(()) => target.sync("").await.map(|()| true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(target.not_published(error)),
        }
    }

    /// Lists the files of the folder; false if there is a list of that name.
    async fn put_list(&self) -> Result<bool> {
        let files = self.files().await?;
        let files: Vec<Path> = files.into_iter().map(|file| file.location).collect();
        for file in &files {
            let below = file.prefix_match(&self.target.directory);
            let below = Path::from_iter(below.into_iter().flatten());
            self.target.sync(below.as_ref()).await?;
        }
        self.target.put_list(&self.name, &self.hidden, &files).await
    }

    /// What waits.
    pub(super) async fn files(&self) -> Result<Vec<ObjectMeta>> {
        let (store, hidden) = (&self.target.store, &self.hidden);
        let mut files: Vec<ObjectMeta> = match self.target.partitioned {
            true => store.list(Some(hidden)).try_collect().await,
            false => store.head(hidden).await.map(|file| vec![file]),
        }
        .map_err(|e| self.target.failed("looking at written files", e))?;
        files.sort_by(|a, b| a.location.cmp(&b.location));
        Ok(files)
    }

    /// The name of the file, or that of the list.
    fn file(&self) -> String {
        match self.target.partitioned {
            true => format!("{HIDDEN}/lists/{}.json", self.name),
            false => format!("{}{}", self.name, self.target.extension),
        }
    }

    /// Notes that the write had no rows to add.
    pub(super) async fn publish_nothing(&self) -> Result<()> {
        self.abandon().await;
        self.record().await
    }

    /// Removes what is hidden. It would only take space, so errors are left be.
    pub(super) async fn abandon(&self) {
        for file in self.files().await.unwrap_or_default() {
            self.target.store.delete(&file.location).await.ok();
        }
        if self.target.partitioned {
            let folder = self.hidden.filename().unwrap_or_default();
            self.target.remove_folder(folder).await;
        }
    }

    /// Leaves the record of an (application, version).
    async fn record(&self) -> Result<()> {
        match &self.recorded {
            Some(recorded) => self.target.record(recorded, &self.file()).await,
            None => Ok(()),
        }
    }
}
