//! Where a Delta table is and which version of it is meant; opening and creating it.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use datafusion::arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use datafusion::arrow::datatypes::SchemaRef;
use deltalake::kernel::transaction::CommitProperties;
use deltalake::logstore::commit_uri_from_version;
use deltalake::operations::create::CreateBuilder;
use deltalake::{DeltaTable, DeltaTableBuilder, DeltaTableError};
use object_store::local::LocalFileSystem;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt};
use url::Url;

use super::{features, schema, stores as table_stores};
use crate::declared;
use crate::error::{Error, ErrorKind, Result};
use crate::guard::{Bounds, GuardedStore, caught_while};
use crate::location;
use crate::options::{TableOptions, parse_value};
use crate::stores;

/// A table by location, and the version meant.
#[derive(Clone)]
pub(crate) struct DeltaSource {
    location: String,
    url: Url,
    /// Its own, rooted at its directory; none on the local disk. Held here as long as it is used.
    store: Option<Arc<dyn ObjectStore>>,
    /// Its directory, if that is on the local disk.
    local: Option<PathBuf>,
    version: Option<u64>,
    timestamp: Option<String>,
}

impl fmt::Debug for DeltaSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Storage options hold credentials.
        f.debug_struct("DeltaSource")
            .field("location", &self.location)
            .field("version", &self.version)
            .field("timestamp", &self.timestamp)
            .finish_non_exhaustive()
    }
}

impl DeltaSource {
    /// The table at `location` with the credentials and the version of `options`.
    pub(super) fn new(location: &str, options: &TableOptions) -> Result<Self> {
        let local = stores::is_local(location).then(|| PathBuf::from(stores::local_path(location)));
        let shown = location::shown(location);
        let invalid = |e: &dyn fmt::Display| {
            Error::invalid(format!("location '{shown}' of a Delta table: {e}"))
        };
        let (url, store) = if let Some(path) = &local {
            // The library would make the directory when it is asked for its URL.
            (directory(path)?, None)
        } else {
            let url = Url::parse(location).map_err(|e| invalid(&e))?;
            match table_stores::registered(&url) {
                Some(store) => (url, Some(store)),
                None => {
                    let bucket = stores::build(&url, options)?;
                    let directory = object_store::path::Path::from_url_path(url.path());
                    let directory = directory.map_err(|e| invalid(&e))?;
                    let store: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(bucket, directory));
                    (table_stores::register(&store, &shown)?, Some(store))
                }
            }
        };
        let source = Self {
            location: shown.into_owned(),
            url,
            store,
            local,
            version: None,
            timestamp: None,
        };
        source.at(options)
    }

    /// The table called `name` at `url`, whose bucket is `root`: for catalogs that lend
    /// credentials.
    pub(crate) fn with_store(name: &str, url: Url, root: Arc<dyn ObjectStore>) -> Self {
        Self {
            location: name.to_owned(),
            url,
            store: Some(root),
            local: None,
            version: None,
            timestamp: None,
        }
    }

    /// At the `delta.version` or `delta.timestamp` of `options`, if they name one.
    pub(crate) fn at(mut self, options: &TableOptions) -> Result<Self> {
        self.version = options
            .get("delta.version")
            .map(|v| parse_value("delta.version", v, "a version number"))
            .transpose()?;
        self.timestamp = options.get("delta.timestamp").map(str::to_owned);
        if self.version.is_some() && self.timestamp.is_some() {
            return Err(Error::invalid(
                "options delta.version and delta.timestamp are both given; keep one",
            ));
        }
        Ok(self)
    }

    /// How the user named it.
    pub(crate) fn location(&self) -> &str {
        &self.location
    }

    /// True if an old version is meant, which cannot be written to.
    pub(crate) fn is_pinned(&self) -> bool {
        self.version.is_some() || self.timestamp.is_some()
    }

    /// The version meant, or the latest. A table that cannot be read is an error that names the
    /// feature in the way.
    pub(crate) async fn open(&self) -> Result<DeltaTable> {
        let what = format!("the Delta table at '{}'", self.location);
        caught_while(&what, self.find()).await
    }

    async fn find(&self) -> Result<DeltaTable> {
        if self.local.as_ref().is_some_and(|path| !path.exists()) {
            return Err(self.not_there());
        }
        let mut table = self
            .builder()?
            .build()
            .map_err(|e| Error::while_doing(self.opening(), e))?;
        let loaded = match (self.version, &self.timestamp) {
            (Some(version), _) => table.load_version(version).await,
            (None, Some(timestamp)) => {
                let builder = self.builder()?.with_datestring(timestamp);
                let builder = builder.map_err(|e| self.bad_timestamp(timestamp, e))?;
                match builder.load().await {
                    Ok(found) => {
                        table = found;
                        Ok(())
                    }
                    Err(error) => Err(error),
                }
            }
            (None, None) => table.load().await,
        };
        if let Err(error) = loaded {
            return Err(self.not_opened(&table, error).await);
        }
        let state = table
            .snapshot()
            .map_err(|e| Error::while_doing(self.opening(), e))?;
        features::check_read(state, &self.location)?;
        if let Some(timestamp) = &self.timestamp {
            self.check_time(&table, timestamp).await?;
        }
        Ok(table)
    }

    /// Creates the table, its files in `folders` of these columns; if another writer was faster,
    /// opens that one.
    pub(super) async fn create(
        &self,
        schema: &SchemaRef,
        folders: &[String],
    ) -> Result<DeltaTable> {
        if let Some(path) = &self.local {
            make_directory(path)?;
        }
        let doing = || format!("creating a Delta table at '{}'", self.location);
        let log_store = self
            .builder()?
            .build_storage()
            .map_err(|e| Error::while_doing(doing(), e))?;
        let created = CreateBuilder::new()
            .with_log_store(log_store)
            .with_columns(schema::delta_fields(schema)?)
            .with_partition_columns(folders)
            // Tried again it would come second, and define another writer's table anew.
            .with_commit_properties(CommitProperties::default().with_max_retries(0))
            .await;
        match created {
            Ok(table) => Ok(table),
            Err(error) => match self.open().await {
                Ok(table) => {
                    let found = super::scan::provider(&table, &self.location)?;
                    let found = datafusion::catalog::TableProvider::schema(&found);
                    declared::check_same(schema, &found, &self.location)?;
                    Ok(table)
                }
                Err(_) => Err(Error::while_doing(doing(), error)),
            },
        }
    }

    fn builder(&self) -> Result<DeltaTableBuilder> {
        let builder = DeltaTableBuilder::from_url(self.url.clone())
            .map_err(|e| Error::while_doing(self.opening(), e))?
            .with_allow_http(true);
        let root = match &self.store {
            Some(root) => Arc::clone(root),
            None => Arc::new(LocalFileSystem::new()),
        };
        let directory = object_store::path::Path::from_url_path(self.url.path());
        // A log may name files elsewhere: data, deletion vectors, the parts of a checkpoint.
        let bounds = Bounds {
            directory: directory.map_err(|e| Error::while_doing(self.opening(), e))?,
            owner: format!("the Delta table at '{}'", self.location).into(),
        };
        let own = GuardedStore::new(root, Some(bounds));
        Ok(builder.with_storage_backend(own, self.url.clone()))
    }

    fn not_there(&self) -> Error {
        Error::new(
            ErrorKind::NotFound,
            format!("there is no Delta table at '{}'", self.location),
        )
    }

    fn opening(&self) -> String {
        format!("opening the Delta table at '{}'", self.location)
    }

    fn bad_timestamp(&self, timestamp: &str, error: DeltaTableError) -> Error {
        Error::invalid(format!(
            "option delta.timestamp is '{timestamp}': {error}; expected an RFC 3339 time such as \
             2026-01-31T00:00:00Z"
        ))
        .with_source(error)
    }

    /// Why opening failed with `error`, as far as the log tells.
    async fn not_opened(&self, table: &DeltaTable, error: DeltaTableError) -> Error {
        if let Ok(latest) = table.get_latest_version().await {
            if let Some(error) = features::in_the_way(table, &self.location).await {
                return error;
            }
            let missing = match (self.version, &self.timestamp) {
                (Some(version), _) if version > latest => {
                    Some(format!("no version {version}; the latest is {latest}"))
                }
                (_, Some(timestamp)) if matches!(error, DeltaTableError::NotATable(_)) => {
                    Some(format!("no version as old as {timestamp}"))
                }
                _ => None,
            };
            if let Some(missing) = missing {
                return Error::new(
                    ErrorKind::NotFound,
                    format!("the Delta table at '{}' has {missing}", self.location),
                )
                .with_source(error);
            }
        }
        if let DeltaTableError::NotATable(_) = error {
            return self.not_there().with_source(error);
        }
        Error::while_doing(self.opening(), error)
    }

    /// The library answers a time before the first version with that version, and takes the
    /// time of a version from its file.
    async fn check_time(&self, table: &DeltaTable, timestamp: &str) -> Result<()> {
        let asked = string_to_timestamp_nanos(timestamp)
            .map_err(|e| Error::invalid(format!("option delta.timestamp is '{timestamp}': {e}")))?;
        let state = table
            .snapshot()
            .map_err(|e| Error::while_doing(self.opening(), e))?;
        let in_commit = "delta.enableInCommitTimestamps";
        if state
            .metadata()
            .configuration()
            .get(in_commit)
            .map(String::as_str)
            == Some("true")
        {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "the Delta table at '{}' keeps its times in its commits \
                     (inCommitTimestamp), where delta.timestamp does not look: use delta.version",
                    self.location
                ),
            ));
        }
        let version = state.version();
        let commit = commit_uri_from_version(Some(version));
        let Ok(commit) = table.object_store().head(&commit).await else {
            return Ok(()); // The log before a checkpoint may be gone.
        };
        if commit.last_modified.timestamp_millis() > asked / 1_000_000 {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!(
                    "the Delta table at '{}' has no version as old as {timestamp}; the oldest \
                     kept is {version}, of {}",
                    self.location,
                    commit.last_modified.to_rfc3339()
                ),
            ));
        }
        Ok(())
    }
}

/// The URL of the directory `path`, which may not be there yet; its links are followed.
fn directory(path: &Path) -> Result<Url> {
    let doing = || {
        format!(
            "finding the directory '{}' of a Delta table",
            path.display()
        )
    };
    stores::check_room(path)?;
    let absolute = std::path::absolute(path).map_err(|e| Error::while_doing(doing(), e))?;
    let mut there = absolute.as_path();
    let found = loop {
        match (there.canonicalize(), there.parent()) {
            (Ok(found), _) => break found,
            (Err(_), Some(parent)) => there = parent,
            (Err(error), None) => return Err(Error::while_doing(doing(), error)),
        }
    };
    let rest = absolute.strip_prefix(there).unwrap_or(Path::new(""));
    if rest.components().any(|part| part == Component::ParentDir) {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!("there is no directory '{}'", path.display()),
        ));
    }
    let url = Url::from_directory_path(found.join(rest));
    url.map_err(|()| Error::invalid(format!("'{}' is not a path", path.display())))
}

fn make_directory(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(|e| {
        let path = path.display();
        Error::while_doing(format!("making the directory '{path}' of a Delta table"), e)
    })
}
