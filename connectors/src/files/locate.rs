//! Which files a LOCATION means: one file, a directory or prefix, or a glob, on disk or remote.

use std::path::Path as LocalPath;

use datafusion::catalog::Session;
use datafusion::common::TableReference;
use datafusion::datasource::listing::ListingTableUrl;
use datafusion::error::DataFusionError;
use datafusion::execution::object_store::ObjectStoreUrl;
use futures::StreamExt;
use object_store::ObjectStoreExt;

use crate::error::{Error, ErrorKind, Result};
use crate::location;
use crate::options::TableOptions;
use crate::stores;

/// File name endings of each format, the one that is written first.
const EXTENSIONS: &[(&str, &[&str])] = &[
    ("CSV", &[".csv", ".tsv"]),
    ("PARQUET", &[".parquet", ".parq"]),
    ("JSON", &[".json", ".jsonl", ".ndjson"]),
];
/// Endings that say how a file is compressed.
const COMPRESSIONS: &[(&str, &str)] = &[
    (".gz", "gzip"),
    (".zst", "zstd"),
    (".bz2", "bzip2"),
    (".xz", "xz"),
];
/// Files of a directory whose names are looked at to learn its ending.
const NAMES_SEEN: usize = 1000;
/// Folder for what must not be read as data, below a table's directory.
pub(super) const HIDDEN: &str = "_casebook";

/// A place of files.
#[derive(Debug, Clone)]
pub(super) struct Located {
    pub(super) url: ListingTableUrl,
    /// As the statement names it.
    pub(super) shown: String,
    /// Ending of the files in a directory; empty where the place names its files itself.
    pub(super) extension: String,
    pub(super) compression: Option<&'static str>,
}

impl Located {
    /// The store that holds its files.
    pub(super) fn base(&self) -> ObjectStoreUrl {
        self.url.object_store()
    }

    /// Finds the files of connector `format`. A directory that is not there is made if `is_new`.
    pub(super) async fn find(
        state: &dyn Session,
        location: &str,
        options: &TableOptions,
        format: &str,
        is_new: bool,
    ) -> Result<Self> {
        let url = match stores::is_local(location) {
            true => local(location, is_new)?,
            false => remote(state, location, options, is_new)?,
        };
        let mut out = Self {
            extension: String::new(),
            compression: compression(location),
            shown: location::shown(location).into_owned(),
            url,
        };
        let says_itself = stores::is_local(location) || out.url.get_glob().is_some();
        if !says_itself && !out.url.is_collection() && out.is_prefix(state).await? {
            out.url = parse(&format!("{}/", out.url.as_str()), location)?;
        }
        if out.url.is_collection() && out.url.get_glob().is_none() {
            out.learn_extension(state, format, options).await?;
        }
        Ok(out)
    }

    /// For the cache of listings, which is kept by table.
    pub(super) fn with_table(mut self, table: &TableReference) -> Self {
        self.url = self.url.with_table_ref(table.clone());
        self
    }

    /// True if a remote location is no object itself.
    async fn is_prefix(&self, state: &dyn Session) -> Result<bool> {
        let store = self.store(state)?;
        match store.head(self.url.prefix()).await {
            Ok(_) => Ok(false),
            Err(object_store::Error::NotFound { .. }) => {
                match store.list(Some(self.url.prefix())).next().await {
                    Some(Ok(_)) => Ok(true),
                    Some(Err(e)) => Err(self.failed("listing", e)),
                    None => Err(Error::new(
                        ErrorKind::NotFound,
                        format!(
                            "there is no object at '{}' and none below it; check the bucket and \
                             the path, or end the location with / to write to it",
                            self.shown
                        ),
                    )),
                }
            }
            Err(e) => Err(self.failed("reaching", e)),
        }
    }

    /// Looks at the names in a directory: they may be compressed, or `.jsonl` instead of `.json`.
    async fn learn_extension(
        &mut self,
        state: &dyn Session,
        format: &str,
        options: &TableOptions,
    ) -> Result<()> {
        let valid = EXTENSIONS.iter().find(|(name, _)| *name == format);
        let valid = valid.map_or(&[][..], |(_, extensions)| *extensions);
        let store = self.store(state)?;
        let mut names = store.list(Some(self.url.prefix())).take(NAMES_SEEN);
        let mut seen: Vec<(String, Option<&'static str>)> = vec![];
        while let Some(found) = names.next().await {
            let found = match found {
                Ok(found) => found,
                // A local directory that is still to be made.
                Err(object_store::Error::NotFound { .. }) => break,
                Err(e) => return Err(self.failed("listing", e)),
            };
            let name = found.location.as_ref();
            if name.contains(&format!("{HIDDEN}/")) {
                continue;
            }
            let compressed = COMPRESSIONS.iter().find(|(end, _)| name.ends_with(end));
            let packed = compressed.map_or("", |(end, _)| *end);
            let plain = name.strip_suffix(packed).unwrap_or(name);
            if let Some(extension) = valid.iter().find(|e| plain.ends_with(**e)) {
                let found = (
                    format!("{extension}{packed}"),
                    compressed.map(|(_, name)| *name),
                );
                if !seen.contains(&found) {
                    seen.push(found);
                }
            }
        }
        match &seen[..] {
            [] => {
                let said = options.format.get("format.compression");
                let packed = COMPRESSIONS
                    .iter()
                    .find(|(_, name)| said.is_some_and(|s| s.eq_ignore_ascii_case(name)));
                let packed = packed.map_or("", |(end, _)| *end);
                self.extension = format!("{}{packed}", valid.first().copied().unwrap_or_default());
            }
            [(extension, compression)] => {
                self.extension.clone_from(extension);
                self.compression = *compression;
            }
            several => {
                let names: Vec<&str> = several.iter().map(|(e, _)| e.as_str()).collect();
                return Err(Error::invalid(format!(
                    "'{}' holds files of several kinds ({}); name those you mean, such as \
                     '{}*{}'",
                    self.shown,
                    names.join(", "),
                    self.shown.trim_end_matches('/').to_owned() + "/",
                    names[0]
                )));
            }
        }
        Ok(())
    }

    fn store(&self, state: &dyn Session) -> Result<std::sync::Arc<dyn object_store::ObjectStore>> {
        let store = state.runtime_env().object_store(&self.url);
        store.map_err(|e| Error::while_doing(format!("reaching {}", self.shown), e))
    }

    fn failed(&self, doing: &str, error: object_store::Error) -> Error {
        Error::while_doing(format!("{doing} {}", self.shown), error)
    }

    /// What to say when no schema can be read.
    pub(super) fn nothing_found(&self, error: DataFusionError) -> Error {
        match error {
            DataFusionError::Plan(message) if message.starts_with("No files found") => Error::new(
                ErrorKind::NotFound,
                format!(
                    "there are no {} files at '{}'; to make a table there, declare its columns \
                     or say OPTIONS ('table.create' 'qa_pairs')",
                    match self.extension.is_empty() {
                        true => "matching",
                        false => self.extension.as_str(),
                    },
                    self.shown
                ),
            ),
            other => Error::while_doing(format!("reading the columns of {}", self.shown), other),
        }
    }
}

fn local(location: &str, is_new: bool) -> Result<ListingTableUrl> {
    let plain = location.strip_prefix("file://").unwrap_or(location);
    if is_new {
        std::fs::create_dir_all(plain).map_err(|e| {
            Error::while_doing(format!("making the directory '{plain}' of a table"), e)
        })?;
    }
    let is_directory = LocalPath::new(plain).is_dir();
    // A directory that is not there yet can be the target of an INSERT.
    if is_directory || !plain.ends_with('/') {
        stores::check_local(location)?;
    }
    match is_directory && !location.ends_with('/') {
        true => parse(&format!("{location}/"), location),
        false => parse(location, location),
    }
}

fn remote(
    state: &dyn Session,
    location: &str,
    options: &TableOptions,
    is_new: bool,
) -> Result<ListingTableUrl> {
    let (base, glob) = split_glob(location);
    let base = match is_new && !base.ends_with('/') {
        true => format!("{base}/"),
        false => base.to_owned(),
    };
    let base = stores::prepare(state.runtime_env(), &base, options)?;
    let url = parse(&base, location)?;
    match glob {
        // The library knows globs of local paths alone.
        Some(glob) => url
            .with_glob(glob)
            .map_err(|e| Error::invalid(format!("location '{location}': {e}"))),
        None => Ok(url),
    }
}

fn parse(path: &str, location: &str) -> Result<ListingTableUrl> {
    let shown = location::shown(location);
    ListingTableUrl::parse(path)
        .map_err(|e| Error::invalid(format!("location '{shown}' is not a path or URL: {e}")))
}

/// The part of a URL before the first segment with a `*` or `[`, and the rest. A `?` begins the
/// query of a URL.
pub(crate) fn split_glob(location: &str) -> (&str, Option<&str>) {
    match location.find(['*', '[']) {
        None => (location, None),
        Some(at) => {
            let border = location[..at].rfind('/').map_or(0, |i| i + 1);
            (&location[..border], Some(&location[border..]))
        }
    }
}

/// What the ending of `location` says.
pub(super) fn compression(location: &str) -> Option<&'static str> {
    let found = COMPRESSIONS.iter().find(|(end, _)| location.ends_with(end));
    found.map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_are_split_from_what_they_are_below() {
        assert_eq!(split_glob("s3://b/x/*.csv"), ("s3://b/x/", Some("*.csv")));
        assert_eq!(split_glob("s3://b/x.csv"), ("s3://b/x.csv", None));
        assert_eq!(
            split_glob("http://h/x.csv?a=b"),
            ("http://h/x.csv?a=b", None)
        );
        assert_eq!(compression("x/*.json.zst"), Some("zstd"));
    }
}
