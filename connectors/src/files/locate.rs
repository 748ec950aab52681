//! What a LOCATION means: one file, a directory or prefix, or a pattern, on disk or remote.
//! What it does not do: list the files ([`super::listing`]).
//!
//! A path that exists is that path, whatever characters it has; only then is it a pattern. On disk
//! the characters of a path stand for themselves; in a URL they are percent-encoded.

use std::path::{Component, Path as LocalPath, PathBuf};

use datafusion::catalog::Session;
use datafusion::execution::object_store::ObjectStoreUrl;
use futures::StreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path as StorePath;
use url::Url;

use super::pattern::Glob;
use super::web;
use crate::error::{Error, ErrorKind, Result};
use crate::location;
use crate::options::TableOptions;
use crate::stores;

/// A place of files.
#[derive(Debug, Clone)]
pub(super) struct Located {
    pub(super) store: ObjectStoreUrl,
    /// The file itself, the directory, or what the patterns are below.
    pub(super) base: StorePath,
    pub(super) kind: Kind,
    /// As the statement names it.
    pub(super) shown: String,
}

/// What is at a place.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    File,
    /// It may be empty, or still to be made.
    Directory,
    Pattern(Glob),
}

impl Located {
    /// Finds out what `location` means. It `is_new` if it is a directory that an INSERT may make.
    pub(super) async fn find(
        state: &dyn Session,
        location: &str,
        options: &TableOptions,
        is_new: bool,
    ) -> Result<Self> {
        match stores::is_local(location) {
            true => {
                let owned = location.to_owned();
                let found = tokio::task::spawn_blocking(move || local(&owned, is_new)).await;
                found.map_err(|e| Error::while_doing(format!("looking for '{location}'"), e))?
            }
            false => remote(state, location, options, is_new).await,
        }
    }

    /// The directory on this machine, if it is one.
    pub(super) fn local_directory(&self) -> Option<PathBuf> {
        (matches!(self.kind, Kind::Directory) && is_disk(&self.store))
            .then(|| PathBuf::from(format!("/{}", self.base)))
    }

    /// True if it is there on this machine; of a directory elsewhere only its files are.
    pub(super) fn is_on_disk(&self) -> bool {
        is_disk(&self.store) && LocalPath::new(&format!("/{}", self.base)).exists()
    }

    pub(super) fn store(
        &self,
        state: &dyn Session,
    ) -> Result<std::sync::Arc<dyn object_store::ObjectStore>> {
        let store = state.runtime_env().object_store(&self.store);
        store.map_err(|e| Error::while_doing(format!("reaching {}", self.shown), e))
    }

    /// True if it is on this machine's disk.
    pub(super) fn is_local(&self) -> bool {
        is_disk(&self.store)
    }

    /// `path` of this place's store, as the user may know it.
    pub(super) fn name(&self, path: &StorePath) -> String {
        match is_disk(&self.store) {
            true => format!("/{path}"),
            false => path.to_string(),
        }
    }

    pub(super) fn failed(&self, doing: &str, error: object_store::Error) -> Error {
        Error::while_doing(format!("{doing} {}", self.shown), error)
    }
}

/// True for the store of this machine's files.
fn is_disk(store: &ObjectStoreUrl) -> bool {
    store.as_str().starts_with("file:")
}

fn local(location: &str, is_new: bool) -> Result<Located> {
    let plain = stores::local_path(location);
    let plain = plain.as_str();
    let found = |kind: Kind, path: &str| -> Result<Located> {
        Ok(Located {
            store: ObjectStoreUrl::local_filesystem(),
            base: object_path(path)?,
            kind,
            shown: location.to_owned(),
        })
    };
    let metadata = match std::fs::metadata(plain) {
        Ok(metadata) => Some(metadata),
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
            return Err(Error::while_doing(format!("looking for '{plain}'"), e));
        }
        Err(_) => None,
    };
    if let Some(metadata) = metadata {
        return match () {
            () if metadata.is_dir() => found(Kind::Directory, plain),
            () if is_new => Err(Error::invalid(format!(
                "'{plain}' is no directory, and table.create makes one; choose another location"
            ))),
            () if !metadata.is_file() => Err(Error::invalid(format!(
                "'{plain}' is neither a file nor a directory; copy what it gives into a file"
            ))),
            () if metadata.len() == 0 => {
                Err(Error::invalid(format!("the file '{plain}' is empty")))
            }
            () => found(Kind::File, plain),
        };
    }
    if let Some(glob) = Glob::parse(plain)? {
        if is_new {
            return Err(Error::invalid(format!(
                "table.create makes a directory, and '{plain}' is a pattern; name a directory, or \
                 make one of this very name first"
            )));
        }
        let base = match glob.base.as_str() {
            "" => ".".to_owned(),
            base => base.to_owned(),
        };
        if !LocalPath::new(&base).is_dir() {
            return Err(stores::missing(&base, "directory"));
        }
        return found(Kind::Pattern(glob), &base);
    }
    match is_new || plain.ends_with('/') {
        true => {
            stores::check_room(LocalPath::new(plain))?;
            found(Kind::Directory, plain)
        }
        false => {
            let hint = "end the location with / if it is a directory that is still to be made";
            let error = stores::missing(plain, "file");
            Err(Error::new(error.kind(), format!("{error}; {hint}")))
        }
    }
}

/// The name of a local path in the store of this machine's files.
fn object_path(path: &str) -> Result<StorePath> {
    let doing = || format!("finding '{path}'");
    let absolute = std::path::absolute(path).map_err(|e| Error::while_doing(doing(), e))?;
    let parents = absolute.components().collect::<Vec<_>>();
    let last = parents.iter().rposition(|c| *c == Component::ParentDir);
    // What `..` leads to depends on symbolic links before it.
    let absolute = match last {
        None => absolute,
        Some(at) => {
            let (before, rest) = parents.split_at(at + 1);
            let before: PathBuf = before.iter().collect();
            let before = before.canonicalize();
            let before = before.map_err(|e| Error::while_doing(doing(), e))?;
            rest.iter().fold(before, |path, part| path.join(part))
        }
    };
    StorePath::from_absolute_path(&absolute).map_err(|e| {
        Error::invalid(format!(
            "'{path}' has characters that cannot be read: {e}; rename it"
        ))
        .with_source(e)
    })
}

async fn remote(
    state: &dyn Session,
    location: &str,
    options: &TableOptions,
    is_new: bool,
) -> Result<Located> {
    let scheme = location.split("://").next().unwrap_or_default();
    let is_web = ["http", "https"]
        .iter()
        .any(|web| scheme.eq_ignore_ascii_case(web));
    let path = match is_web {
        // There a question mark begins the query.
        true => location.split(['?', '#']).next().unwrap_or_default(),
        false => location,
    };
    // In the name of an object a question mark stands for one character.
    let is_query = location.split('?').nth(1).is_some_and(|q| q.contains('='));
    let shown = match is_web || is_query {
        true => location::shown(location).into_owned(),
        false => location.to_owned(),
    };
    if is_query && !is_web {
        return Err(Error::invalid(format!(
            "location '{shown}' is followed by a query, which only http:// and https:// locations \
             have; give credentials as options, such as 'azure.sas_key' (a ? in the name of an \
             object is written %3F)"
        )));
    }
    if is_web
        && !path.ends_with('/')
        && (location.len() > path.len() || Glob::parse(path)?.is_none())
    {
        let (store, base) = web::open(state.runtime_env(), location, options)?;
        let place = Located {
            store,
            base,
            kind: Kind::File,
            shown,
        };
        return match place.store(state)?.head(&place.base).await {
            Ok(_) => Ok(place),
            Err(object_store::Error::NotFound { .. }) => Err(place.nothing_at()),
            Err(e) => Err(place.failed("reaching", e)),
        };
    }
    let place = |text: &str, kind: Kind| -> Result<Located> {
        // In the name of an object these two stand for themselves.
        let text = text.replace('?', "%3F").replace('#', "%23");
        let own = stores::prepare(state.runtime_env(), &text, options)?;
        let (store, base) = split(&own, &shown)?;
        Ok(Located {
            store,
            base,
            kind,
            shown: shown.clone(),
        })
    };
    let glob = Glob::parse(path)?;
    if let Some(glob) = &glob
        && is_new
    {
        return Err(Error::invalid(format!(
            "table.create makes a directory, and '{shown}' is a pattern below {}; name a directory",
            glob.base
        )));
    }
    let whole = place(path, Kind::File)?;
    if is_new || path.ends_with('/') && glob.is_none() || whole.base.as_ref().is_empty() {
        return Ok(Located {
            kind: Kind::Directory,
            ..whole
        });
    }
    let there = whole.store(state)?.head(&whole.base).await;
    match (there, glob) {
        (Ok(_), _) => Ok(whole),
        // A store may refuse to tell of a single object what it tells of a listing.
        (Err(_), Some(glob)) => {
            let base = place(&glob.base, Kind::File)?;
            let kind = Kind::Pattern(glob);
            Ok(Located { kind, ..base })
        }
        (Err(object_store::Error::NotFound { .. }), None) => {
            match whole.store(state)?.list(Some(&whole.base)).next().await {
                Some(Ok(_)) => Ok(Located {
                    kind: Kind::Directory,
                    ..whole
                }),
                Some(Err(e)) => Err(whole.failed("listing", e)),
                None => Err(whole.nothing_at()),
            }
        }
        (Err(e), None) => Err(whole.failed("reaching", e)),
    }
}

impl Located {
    fn nothing_at(&self) -> Error {
        Error::new(
            ErrorKind::NotFound,
            format!(
                "there is no object at '{}' and none below it; check the bucket and the path, or \
                 end the location with / to write to it",
                self.shown
            ),
        )
    }
}

/// The store and the path in it of a URL that [`stores::prepare`] gave.
fn split(own: &str, shown: &str) -> Result<(ObjectStoreUrl, StorePath)> {
    let invalid = |e: String| Error::invalid(format!("location '{shown}' is not a URL: {e}"));
    let url = Url::parse(own).map_err(|e| invalid(e.to_string()))?;
    let store = ObjectStoreUrl::parse(&url[..url::Position::BeforePath]);
    let store = store.map_err(|e| invalid(e.to_string()))?;
    let base = StorePath::from_url_path(url.path()).map_err(|e| invalid(e.to_string()))?;
    Ok((store, base))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_exists_is_that_path() {
        let dir = tempfile::tempdir().unwrap();
        let odd = [
            "data[1].csv",
            "q?.csv",
            "star*.csv",
            "brace{1,2}.csv",
            "a b.csv",
            "100%.csv",
            "a%20b.csv",
            "a#b.csv",
            "it's.csv",
            "back\\slash.csv",
            "ünï.csv",
            "a=b.csv",
        ];
        for name in odd {
            let path = dir.path().join(name);
            std::fs::write(&path, "id\n1\n").unwrap();
            let found = local(path.to_str().unwrap(), false).unwrap();
            assert!(matches!(found.kind, Kind::File), "{name}: {found:?}");
            assert_eq!(found.base.filename(), Some(name));
            assert_eq!(found.name(&found.base), path.to_str().unwrap());
        }
        let folder = dir.path().join("dir [2024] 50%#");
        std::fs::create_dir(&folder).unwrap();
        let found = local(folder.to_str().unwrap(), false).unwrap();
        assert_eq!(found.local_directory(), Some(folder));
    }

    #[test]
    fn what_is_not_there_is_a_pattern_a_directory_or_missing() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| format!("{}/{name}", dir.path().display());
        let pattern = local(&at("*.csv"), false).unwrap();
        assert!(matches!(pattern.kind, Kind::Pattern(_)));
        let new = local(&at("new/"), false).unwrap();
        assert!(matches!(new.kind, Kind::Directory));
        assert!(local(&at("new"), true).is_ok());
        assert!(!dir.path().join("new").exists());
        for (name, is_new, part) in [
            ("nope.csv", false, "there is no file"),
            ("nope/*.csv", false, "there is no directory"),
            ("new*", true, "is a pattern"),
        ] {
            let error = local(&at(name), is_new).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        let error = local("/dev/null", false).unwrap_err().to_string();
        assert!(error.contains("neither a file nor a directory"), "{error}");
    }
}
