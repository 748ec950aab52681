//! The files of one INSERT that may write several, which become visible together: a list of them is put
//! beside the table in one step, and then each is given its name.
//!
//! Before the list is there nothing is visible; after that everything will be: whoever is killed
//! while the files get their names leaves the list, and the next INSERT goes on where it ended. Until
//! then a reader sees those that have theirs. A list is empty when it is done with; of a write that
//! may come again it stays, because its name says so.

use futures::StreamExt;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutMode, PutPayload};
use serde::{Deserialize, Serialize};

use super::listing::HIDDEN;
use super::target::{Target, UNIQUE};
use crate::error::{Error, ErrorKind, Result};
use crate::stores;

/// Bytes of a list: some hundred thousand files.
const MAX_BYTES: u64 = 64 << 20;

#[derive(Debug, Serialize, Deserialize)]
struct List {
    /// Name of the folder in which the files wait.
    folder: String,
    /// As they are called below it, and below the table's directory.
    files: Vec<String>,
}

/// True for names as [`Target::hidden`] makes them.
fn is_ours(folder: &str) -> bool {
    uuid::Uuid::try_parse(folder).is_ok_and(|id| id.simple().to_string() == folder)
}

impl Target {
    /// Puts the list `name` of `files`, which wait below `hidden`; false if there is one already.
    pub(super) async fn put_list(&self, name: &str, hidden: &Path, files: &[Path]) -> Result<bool> {
        let below = |file: &Path| -> Option<String> {
            let parts: Vec<_> = file.prefix_match(hidden)?.collect();
            Some(Path::from_iter(parts).to_string())
        };
        let list = List {
            folder: hidden.filename().unwrap_or_default().to_owned(),
            files: files.iter().filter_map(below).collect(),
        };
        let content = serde_json::to_vec(&list).map_err(|e| self.failed("listing files", e))?;
        let path = self.path(&format!("{HIDDEN}/lists/{name}.json"));
        let put = self
            .store
            .put_opts(&path, PutPayload::from(content), PutMode::Create.into())
            .await;
        match put {
            Ok(_) => Ok(true),
            // It is ours if an answer was lost.
            Err(e) => match (self.list(&path).await, e) {
                (Ok(Some(there)), _) => Ok(there.folder == list.folder),
                (Err(e), object_store::Error::AlreadyExists { .. }) => Err(e),
                (_, object_store::Error::AlreadyExists { .. }) => Ok(false),
                (_, e) => Err(self.failed("listing the written files", e)),
            },
        }
    }

    /// The list at `path`; none if it is done with.
    async fn list(&self, path: &Path) -> Result<Option<List>> {
        let failed = |e| self.failed("reading a list of files", e);
        let content = match self.store.get(path).await {
            Ok(found) if found.meta.size > MAX_BYTES => {
                return Err(self.no_list(path, "it is too long"));
            }
            Ok(found) => found.bytes().await.map_err(failed)?,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(e) => return Err(failed(e)),
        };
        match content.is_empty() {
            true => Ok(None),
            false => {
                let list: List = serde_json::from_slice(&content)
                    .map_err(|e| self.no_list(path, &e.to_string()))?;
                // It will be removed: a list that somebody else wrote must not name another one.
                match is_ours(&list.folder) {
                    true => Ok(Some(list)),
                    false => Err(self.no_list(path, "its folder has no name of a folder of ours")),
                }
            }
        }
    }

    /// Gives the files of all lists their names, those of killed writers, too.
    pub(super) async fn complete(&self) -> Result<()> {
        let failed = |e| self.failed("looking for the lists of files", e);
        let folder = self.path(&format!("{HIDDEN}/lists"));
        let mut lists = self.store.list(Some(&folder));
        while let Some(list) = lists.next().await {
            match list {
                Ok(list) if list.size == 0 => {}
                Ok(list) => self.complete_one(&list.location).await?,
                Err(object_store::Error::NotFound { .. }) => break,
                Err(e) => return Err(failed(e)),
            }
        }
        Ok(())
    }

    async fn complete_one(&self, path: &Path) -> Result<()> {
        let failed = |e| self.failed("making written rows visible", e);
        let Some(list) = self.list(path).await? else {
            return Ok(());
        };
        let folder = self.path(&format!("{HIDDEN}/tmp/{}", list.folder));
        for file in &list.files {
            let below = Path::parse(file).map_err(|e| self.no_list(path, &e.to_string()))?;
            let hidden = Path::from_iter(folder.parts().chain(below.parts()));
            let visible = Path::from_iter(self.directory.parts().chain(below.parts()));
            match self.give_name(&hidden, &visible).await {
                Ok(true) => {}
                // Nobody else gives such a name: it was given before.
                Ok(false) => self.remove_copied(&hidden, &visible).await?,
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    return Err(self.no_file(path, file));
                }
                Err(e) => return Err(e),
            }
        }
        self.sync_names(&list.files).await?;
        self.remove_folder(&list.folder).await;
        match path.filename().is_some_and(|name| name.starts_with(UNIQUE)) {
            true => {
                self.store.delete(path).await.ok(); // else the next INSERT finds nothing to do
                Ok(())
            }
            false => {
                let done = self.store.put(path, PutPayload::default()).await;
                done.map(drop).map_err(failed)
            }
        }
    }

    fn no_list(&self, path: &Path, why: &str) -> Error {
        let path = stores::shown_file(&*self.store, path);
        Error::new(
            ErrorKind::Corrupt,
            format!(
                "'{path}' is no list of files that an INSERT into the table at '{}' has written: \
                 {why}; remove it",
                self.shown
            ),
        )
    }

    /// A file that the list at `path` names is nowhere.
    fn no_file(&self, path: &Path, file: &str) -> Error {
        Error::new(
            ErrorKind::Corrupt,
            format!(
                "the file {file} of an INSERT into the table at '{}' is neither there nor among those \
                 that wait: somebody removed it; put it back, or remove '{path}', which lists it, to \
                 go on without its rows",
                self.shown
            ),
        )
    }

    /// On this machine folders are there without files.
    pub(super) async fn remove_folder(&self, name: &str) {
        if let (Some(local), true) = (&self.local, is_ours(name)) {
            let folder = local.join(HIDDEN).join("tmp").join(name);
            tokio::task::spawn_blocking(|| std::fs::remove_dir_all(folder))
                .await
                .ok();
        }
    }
}
