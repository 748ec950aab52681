//! The endpoints that a session has reached, each once, and the files that keep their replies.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};

use casebook_llm::output;
use tokio::sync::{Mutex, OnceCell};

use super::open::Remote;
use super::replies::Replies;
use super::spec::RemoteSpec;
use crate::error::{Error, ErrorKind, Result};

type Slot<T> = Arc<OnceCell<T>>;

/// Models behind endpoints that are ready.
#[derive(Debug, Default)]
pub(crate) struct Endpoints {
    /// By what is said of them.
    reached: Mutex<Vec<(Arc<RemoteSpec>, Slot<Remote>)>>,
    kept: Mutex<HashMap<PathBuf, Slot<Arc<Replies>>>>,
    /// Where replies are kept of models that name no file.
    keeping: RwLock<Option<PathBuf>>,
    forbidden: AtomicBool,
}

/// Replies are kept in a file as long as this lives.
#[derive(Debug)]
pub(crate) struct Keeping<'a>(&'a Endpoints);

impl Endpoints {
    /// Forbids all of them from now on.
    pub(crate) fn forbid(&self) {
        self.forbidden.store(true, Ordering::Relaxed);
    }

    /// # Errors
    /// [`ErrorKind::Denied`] if they are forbidden.
    pub(crate) fn allowed(&self, spec: &RemoteSpec) -> Result<()> {
        match self.forbidden.load(Ordering::Relaxed) {
            false => Ok(()),
            true => Err(Error::new(
                ErrorKind::Denied,
                format!(
                    "the model {} is behind {}, and [session] allow_remote = false says that no \
                     document leaves for one; name a model in this process, or allow it",
                    spec.model(),
                    spec.host()
                ),
            )),
        }
    }

    /// Refuses what [`Endpoints::open`] would refuse, as far as that shows without asking anybody.
    pub(crate) fn check(&self, spec: &RemoteSpec) -> Result<()> {
        self.allowed(spec)?;
        match &spec.replies {
            Some(path) => Ok(output::check_file(path)?),
            None => Ok(()),
        }
    }

    /// The model of `spec` and the file that keeps its replies, if any does.
    pub(crate) async fn open(
        &self,
        spec: &Arc<RemoteSpec>,
    ) -> Result<(Remote, Option<Arc<Replies>>)> {
        let remote = self.reach(spec).await?;
        Ok((remote, self.replies(spec).await?))
    }

    /// The model of `spec`, which is asked for its revision on first use. Where documents go is said
    /// then.
    pub(crate) async fn reach(&self, spec: &Arc<RemoteSpec>) -> Result<Remote> {
        self.check(spec)?;
        let slot = {
            let mut reached = self.reached.lock().await;
            let known = reached.iter().find(|(known, _)| known == spec);
            match known.map(|(_, slot)| Arc::clone(slot)) {
                Some(slot) => slot,
                None => {
                    let slot = Slot::default();
                    reached.push((Arc::clone(spec), Arc::clone(&slot)));
                    slot
                }
            }
        };
        let open = || async {
            log::info!(
                target: "casebook",
                "documents and questions for the model {} leave this process for {}",
                spec.model(),
                spec.host()
            );
            Remote::open(spec).await
        };
        slot.get_or_try_init(open).await.cloned()
    }

    /// Keeps the replies of models that name no file in `path`, as long as the returned guard lives.
    pub(crate) fn keep_replies(&self, path: PathBuf) -> Keeping<'_> {
        let mut keeping = self.keeping.write().unwrap_or_else(|e| e.into_inner());
        *keeping = Some(path);
        Keeping(self)
    }

    async fn replies(&self, spec: &RemoteSpec) -> Result<Option<Arc<Replies>>> {
        let default = || {
            let keeping = self.keeping.read().unwrap_or_else(|e| e.into_inner());
            keeping.clone()
        };
        let Some(path) = spec.replies.clone().or_else(default) else {
            return Ok(None);
        };
        let slot = Arc::clone(self.kept.lock().await.entry(path.clone()).or_default());
        let open = || async {
            let opened = tokio::task::spawn_blocking(move || Replies::open(&path)).await;
            let opened = opened.map_err(|e| Error::new(ErrorKind::Internal, e.to_string()))?;
            Ok::<_, Error>(Arc::new(opened?))
        };
        Ok(Some(Arc::clone(slot.get_or_try_init(open).await?)))
    }
}

impl Drop for Keeping<'_> {
    fn drop(&mut self) {
        let mut keeping = self.0.keeping.write().unwrap_or_else(|e| e.into_inner());
        // Who still asks holds the file; else it is closed, so that another process may go on.
        if let (Some(path), Ok(mut kept)) = (keeping.take(), self.0.kept.try_lock()) {
            kept.remove(&path);
        }
    }
}
