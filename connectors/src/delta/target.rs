//! One table of an INSERT, and the commit that makes its new files visible exactly once.
//!
//! A commit is the creation of the next file of the log, which only one writer can create. Who
//! comes late looks at what the others committed and tries the version after: whether its own
//! application transaction is recorded by now, and which keys were added; its own files are written
//! once more without these. Whether a commit that
//! seemed to fail stands after all is read from the log, because an object store may lose the
//! answer, and removing files that the log names would destroy the table.

use datafusion::arrow::array::RecordBatch;
use deltalake::DeltaTable;
use deltalake::kernel::transaction::{CommitBuilder, CommitProperties};
use deltalake::kernel::{Action, Transaction};
use deltalake::logstore::get_actions;
use deltalake::protocol::{DeltaOperation, SaveMode};
use futures::TryStreamExt;
use memchr::memmem;

use super::files::Files;
use super::keys;
use super::source::DeltaSource;
use super::{features, log, scan};
use crate::error::{Error, ErrorKind, Result};
use crate::keys::{Hashes, Keys};
use crate::write::{Recorded, WriteOptions};

/// Commit attempts of one INSERT. Each is lost to another writer that committed meanwhile.
const COMMIT_ATTEMPTS: usize = 100;

/// A table, the files written for it so far, and what makes their rows unique.
pub(super) struct Target {
    location: String,
    table: DeltaTable,
    files: Files,
    keys: Option<Keys>,
    transaction: Option<Recorded>,
    overwrite: bool,
    /// The transaction is in the log already: an earlier run added these rows.
    done: bool,
}

impl Target {
    /// Opens the table at `source`, which must not be pinned to a version.
    pub(super) async fn new(
        source: &DeltaSource,
        table: DeltaTable,
        options: &WriteOptions,
        overwrite: bool,
    ) -> Result<Self> {
        let location = source.location().to_owned();
        let state = table.snapshot().map_err(|e| log::opening(&location, e))?;
        features::check_write(state, &location, overwrite)?;
        let columns =
            datafusion::catalog::TableProvider::schema(&scan::provider(&table, &location)?);
        let done = log::is_recorded(&table, &location, options.recorded.as_ref()).await?;
        let keys = match &options.key {
            Some(key) => {
                let there = match overwrite || done {
                    true => Hashes::default(),
                    false => keys::read(&table, &location, key, None).await?,
                };
                let into = format!("the Delta table at '{location}'");
                Some(Keys::new(key, into, there))
            }
            None => None,
        };
        Ok(Self {
            files: Files::new(&table, columns, &location)?,
            location,
            table,
            keys,
            transaction: options.recorded.clone(),
            overwrite,
            done,
        })
    }

    /// True if an earlier run added the rows of this one.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// Writes the rows of `batch`, in the table's columns, that are new.
    pub(super) async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        if self.done {
            return Ok(());
        }
        let batch = match &mut self.keys {
            Some(keys) => keys.keep_new(&batch).await?,
            None => batch,
        };
        if batch.num_rows() == 0 {
            return Ok(());
        }
        self.files.write(batch).await
    }

    /// Removes what was written.
    pub(super) async fn discard(&mut self) {
        self.files.discard().await;
    }

    /// Makes the rows visible; how many there are. Files are removed if that fails.
    pub(super) async fn commit(&mut self) -> Result<u64> {
        let committed = self.try_commit().await;
        if committed.is_err() || self.done {
            self.files.discard().await;
        }
        committed
    }

    async fn try_commit(&mut self) -> Result<u64> {
        self.files.finish().await?;
        for _ in 0..COMMIT_ATTEMPTS {
            let nothing = self.files.adds().is_empty() && self.transaction.is_none();
            if self.done || (nothing && !self.overwrite) {
                return Ok(0);
            }
            if self.attempt().await? {
                let rows = self.files.rows();
                self.files.keep();
                return Ok(rows);
            }
            self.catch_up().await?;
        }
        Err(self.overtaken("other writers commit faster than this one can"))
    }

    /// Tries to create the next version; false if another writer did.
    async fn attempt(&mut self) -> Result<bool> {
        let state = self
            .table
            .snapshot()
            .map_err(|e| log::opening(&self.location, e))?;
        let mut properties = CommitProperties::default().with_max_retries(0);
        if let Some(Recorded { app_id, version }) = &self.transaction {
            let transaction = Transaction::new(app_id, *version);
            properties = properties.with_application_transaction(transaction);
        }
        let adds = self.files.adds().iter().cloned();
        let mut actions: Vec<Action> = adds.map(Action::Add).collect();
        let mut mode = SaveMode::Append;
        if self.overwrite {
            mode = SaveMode::Overwrite;
            let store = self.table.log_store();
            let files = state.snapshot().file_views(store.as_ref(), None);
            let removes = files.map_ok(|file| Action::Remove(file.remove_action(true)));
            let removes: Vec<Action> = removes
                .try_collect()
                .await
                .map_err(|e| self.failed("listing the files", e))?;
            actions.extend(removes);
        }
        let partition_by = state.metadata().partition_columns().to_vec();
        let operation = DeltaOperation::Write {
            mode,
            partition_by: (!partition_by.is_empty()).then_some(partition_by),
            predicate: None,
        };
        let prepared = CommitBuilder::from(properties)
            .with_actions(actions)
            .build(Some(state), self.table.log_store(), operation)
            .into_prepared_commit_future()
            .await
            .map_err(|e| self.failed("preparing a commit", e))?;
        self.files.offer();
        let error = match prepared.await {
            Ok(committed) => {
                // The version stands; a checkpoint that fails is made by a later commit.
                committed.await.ok();
                return Ok(true);
            }
            Err(error) => error,
        };
        match self.stands().await {
            Ok(true) => Ok(true),
            Ok(false) => {
                self.files.withdraw();
                match log::is_conflict(&error) {
                    true => Ok(false),
                    false => Err(self.failed("committing rows", error)),
                }
            }
            Err(_) => {
                self.files.keep();
                Err(Error::new(
                    ErrorKind::Unavailable,
                    format!(
                        "committing rows to the Delta table at '{}' failed, and its log cannot be \
                         read to see whether they are in: {error}; run the INSERT again, which is \
                         safe with write.key or write.app_id",
                        self.location
                    ),
                )
                .with_source(error))
            }
        }
    }

    /// Whether a version after the one opened names our files, which have unique names.
    async fn stands(&mut self) -> Result<bool> {
        let Some(add) = self.files.adds().first() else {
            return Ok(false);
        };
        let mark = add.path.rsplit('/').next().unwrap_or_default().to_owned();
        let after = self.table.version().unwrap_or_default() + 1;
        let commits = log::commits_from(&self.table, &self.location, after).await?;
        Ok(commits
            .values()
            .any(|bytes| memmem::find(bytes, mark.as_bytes()).is_some()))
    }

    /// Goes to the latest version, after other writers committed.
    async fn catch_up(&mut self) -> Result<()> {
        let before = self.table.version().unwrap_or_default();
        let updated = self.table.update_state().await;
        updated.map_err(|e| self.failed("reading the log", e))?;
        let now = self.table.version().unwrap_or_default();
        // After the update, so that no version which it brings goes unseen. One that comes later makes
        // the next attempt fail, and is seen then.
        let commits = log::commits_from(&self.table, &self.location, before + 1).await?;
        let mut added = vec![];
        for version in before + 1..=now {
            let Some(bytes) = commits.get(&version) else {
                return Err(self.overtaken("the commit of another writer cannot be found"));
            };
            let actions = get_actions(version, bytes);
            for action in actions.map_err(|e| self.failed("reading the log", e))? {
                match action {
                    Action::Metadata(_) | Action::Protocol(_) => {
                        return Err(self.overtaken("another writer changed the table's definition"));
                    }
                    Action::Add(add) if add.data_change => {
                        added.push(scan::selection_path(&add.path));
                    }
                    _ => {}
                }
            }
        }
        self.done =
            log::is_recorded(&self.table, &self.location, self.transaction.as_ref()).await?;
        if self.done || self.overwrite {
            return Ok(());
        }
        if let Some(keys) = &mut self.keys {
            let theirs =
                keys::read(&self.table, &self.location, keys.column(), Some(added)).await?;
            if keys.meet(theirs).await? > 0 {
                // Rows are dear: those that only we have go into files of their own.
                self.files.without(keys).await?;
            }
        }
        Ok(())
    }

    fn overtaken(&self, why: &str) -> Error {
        Error::new(
            ErrorKind::Unavailable,
            format!(
                "{why} while rows were written for the Delta table at '{}'; nothing was written: \
                 run the INSERT again",
                self.location
            ),
        )
    }

    fn failed(
        &self,
        doing: &str,
        error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        Error::while_doing(
            format!("{doing} of the Delta table at '{}'", self.location),
            error,
        )
    }
}
