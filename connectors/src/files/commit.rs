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
//! ([`super::lists`]); so do those on S3, where a file must not be too large to be copied.
//!
//! A writer that is killed leaves a file in the hidden folder at most; later writers remove it.

use std::collections::BTreeSet;

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt, PutMode, PutPayload};

use super::listing::HIDDEN;
use super::target::{Target, UNIQUE};
use crate::error::{Error, ErrorKind, Result};
use crate::write::{Recorded, WriteOptions};

/// What the name of a file with keys begins with.
const KEYED: &str = "keyed-";

/// A write under way.
#[derive(Debug)]
pub(super) struct Commit {
    target: Target,
    /// The file, or the folder of files, that waits.
    hidden: Path,
    /// The final name of it, or of the list of its files, without an ending.
    name: String,
    recorded: Option<Recorded>,
    once: Once,
    /// Files of the folder that are complete, as far as it is known.
    staged: BTreeSet<Path>,
}

/// By what a write is known when it comes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Once {
    Key,
    Version,
    Never,
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
    /// Starts a write; none if it was done before.
    pub(super) async fn begin(&self, write: &WriteOptions) -> Result<Option<Commit>> {
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
        let (once, name) = match (&write.key, &write.recorded) {
            (Some(_), _) => (Once::Key, format!("{KEYED}{number:08}")),
            (None, Some(recorded)) => (Once::Version, name(recorded)),
            (None, None) => {
                let own = uuid::Uuid::new_v4().simple();
                (Once::Never, format!("{UNIQUE}{own}"))
            }
        };
        Ok(Some(Commit {
            target: self.clone(),
            hidden: self.hidden(),
            name,
            recorded: write.recorded.clone(),
            once,
            staged: BTreeSet::new(),
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
    /// What is written now.
    pub(super) fn hidden(&self) -> &Path {
        &self.hidden
    }

    /// Makes what is complete visible.
    ///
    /// # Errors
    /// They say where the rows wait: they are dear.
    pub(super) async fn publish(&self) -> Result<Published> {
        let (target, lists) = (&self.target, self.target.lists());
        let named = match lists {
            true => self.put_list().await,
            false => self.name_file().await,
        };
        match named.map_err(|e| self.waiting(e))? {
            true => {
                let durable = match lists {
                    true => target.sync(vec![self.file()]).await,
                    false => target.sync_names(&[self.file()]).await,
                };
                durable.map_err(|e| target.stands(e, "but a power cut may undo it"))?;
                if lists {
                    let completed = target.complete().await;
                    completed.map_err(|e| {
                        let but = "and some of its files may not be visible yet: the next INSERT \
                                   makes them so";
                        target.stands(e, but)
                    })?;
                }
                self.recorded().await?;
                Ok(Published::Added)
            }
            // Nobody else has such a name: it was given, and an answer was lost.
            false if self.once == Once::Never => {
                match lists {
                    true => self.abandon().await,
                    false => {
                        let visible = target.path(&self.file());
                        let copied = target.remove_copied(&self.hidden, &visible).await;
                        copied.map_err(|e| self.waiting(e))?;
                    }
                }
                Ok(Published::Added)
            }
            false if self.once == Once::Key => Ok(Published::Overtaken),
            false => {
                self.abandon().await;
                Ok(Published::AlreadyThere)
            }
        }
    }

    /// Why complete rows are not in the table, and where they are.
    pub(super) fn waiting(&self, error: Error) -> Error {
        self.target.waiting(error, &self.hidden)
    }

    /// Gives the file its name; false if that is taken.
    async fn name_file(&self) -> Result<bool> {
        let target = &self.target;
        target.sync(vec![target.below(&self.hidden)]).await?;
        let visible = target.path(&self.file());
        target.give_name(&self.hidden, &visible).await
    }

    /// Lists the files of the folder; false if there is a list of that name.
    async fn put_list(&self) -> Result<bool> {
        let files: Vec<Path> = self.complete_files().await?.into_iter().collect();
        let names = files.iter().map(|file| self.target.below(file));
        self.target.sync(names.collect()).await?;
        self.target.put_list(&self.name, &self.hidden, &files).await
    }

    /// Takes note of the files that are complete, of which none may vanish.
    pub(super) async fn note(&mut self) -> Result<()> {
        if self.target.lists() {
            self.staged = self.complete_files().await?;
        }
        Ok(())
    }

    async fn complete_files(&self) -> Result<BTreeSet<Path>> {
        let files = self.files().await?.into_iter();
        let files: BTreeSet<Path> = files.map(|file| file.location).collect();
        match self.staged.difference(&files).next() {
            None => Ok(files),
            Some(gone) => Err(Error::new(
                ErrorKind::Unavailable,
                format!(
                    "'{gone}' is gone, which waited to become a file of the table at '{}': somebody \
                     removed it while other rows were made; run the INSERT again",
                    self.target.shown
                ),
            )),
        }
    }

    /// What waits.
    pub(super) async fn files(&self) -> Result<Vec<ObjectMeta>> {
        let (store, hidden) = (&self.target.store, &self.hidden);
        let mut files: Vec<ObjectMeta> = match self.target.lists() {
            true => store.list(Some(hidden)).try_collect().await,
            false => store.head(hidden).await.map(|file| vec![file]),
        }
        .map_err(|e| self.target.failed("looking at written files", e))?;
        files.sort_by(|a, b| a.location.cmp(&b.location));
        Ok(files)
    }

    /// The name of the file, or that of the list.
    fn file(&self) -> String {
        match self.target.lists() {
            true => format!("{HIDDEN}/lists/{}.json", self.name),
            false => format!("{}{}", self.name, self.target.extension),
        }
    }

    /// Notes that the write had no rows to add.
    pub(super) async fn publish_nothing(&self) -> Result<()> {
        self.abandon().await;
        self.recorded().await
    }

    /// Removes what is hidden. It would only take space, so errors are left be.
    pub(super) async fn abandon(&self) {
        for file in self.files().await.unwrap_or_default() {
            self.target.store.delete(&file.location).await.ok();
        }
        if self.target.lists() {
            let folder = self.hidden.filename().unwrap_or_default();
            self.target.remove_folder(folder).await;
        }
    }

    /// Leaves the record of an (application, version).
    async fn recorded(&self) -> Result<()> {
        let Some(recorded) = &self.recorded else {
            return Ok(());
        };
        let left = self.target.record(recorded, &self.file()).await;
        left.map_err(|e| {
            self.target
                .stands(e, "and the next one of its version records it")
        })
    }
}
