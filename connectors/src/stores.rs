//! Object stores for LOCATIONs: local disk, S3, Azure, GCS and HTTP.
//!
//! The library registers none but the local disk, and it keeps one store per scheme and host. Tables
//! of one bucket may be read with different credentials, and containers of one Azure account have
//! the same host. So each store is registered under a scheme of its own, such as `s3+5f3a...`, which
//! stands for the bucket and the options; a location without options takes the store that the host
//! registered for it, if there is one.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use datafusion::datasource::listing::ListingTableUrl;
use datafusion::execution::TaskContext;
use datafusion::execution::object_store::ObjectStoreRegistry;
use datafusion::execution::runtime_env::RuntimeEnv;
use object_store::{ObjectStore, RetryConfig};
use url::Url;

use crate::error::{Error, ErrorKind, Result};
use crate::location::shown;
use crate::options::TableOptions;

/// Names that an error lists.
const NAMES_SHOWN: usize = 8;

/// True if `location` is a path of this machine.
pub(crate) fn is_local(location: &str) -> bool {
    !location.contains("://") || in_file_url(location).is_some()
}

/// What stands behind `file://`, which may be in capitals.
fn in_file_url(location: &str) -> Option<&str> {
    let (scheme, rest) = location.split_once("://")?;
    scheme.eq_ignore_ascii_case("file").then_some(rest)
}

/// The path that a location of this machine names: a `file://` URL may be percent-encoded.
pub(crate) fn local_path(location: &str) -> String {
    let Some(plain) = in_file_url(location) else {
        return location.to_owned();
    };
    let decoded = Url::parse(location).ok();
    let decoded = decoded.and_then(|url| url.to_file_path().ok());
    match decoded.as_deref().and_then(Path::to_str) {
        Some(decoded) if !Path::new(plain).exists() && Path::new(decoded).exists() => {
            decoded.to_owned()
        }
        _ => plain.to_owned(),
    }
}

/// The name of a file that an error may show: on disk its path, elsewhere that in its bucket.
pub(crate) fn shown_file(store: &dyn ObjectStore, file: &object_store::path::Path) -> String {
    match is_disk(store) {
        true => format!("/{file}"),
        false => file.to_string(),
    }
}

/// True for the store of this machine's files.
pub(crate) fn is_disk(store: &dyn ObjectStore) -> bool {
    store.to_string().starts_with("LocalFileSystem")
}

/// `context` with other stores: what runs in it reads and writes there.
pub(crate) fn with_stores(
    context: &TaskContext,
    stores: Arc<dyn ObjectStoreRegistry>,
) -> Arc<TaskContext> {
    let runtime = RuntimeEnv {
        object_store_registry: stores,
        ..context.runtime_env().as_ref().clone()
    };
    Arc::new(TaskContext::new(
        context.task_id(),
        context.session_id(),
        context.session_config().clone(),
        context.scalar_functions().clone(),
        context.higher_order_functions().clone(),
        context.aggregate_functions().clone(),
        context.window_functions().clone(),
        Arc::new(runtime),
    ))
}

/// An error if one of `targets`, which are about to be written, is a symbolic link or no file: what
/// is written takes the place of either, and not of what it leads to.
pub(crate) async fn check_written(targets: &[ListingTableUrl]) -> Result<()> {
    let local = targets.iter().filter(|target| target.scheme() == "file");
    let local: Vec<String> = local
        .map(|target| format!("/{}", target.prefix()))
        .collect();
    let check = move || {
        let refused = local.iter().find_map(|path| {
            let found = std::fs::symlink_metadata(path).ok()?;
            // In a directory a file of a new name is made.
            let is_directory = std::fs::metadata(path).is_ok_and(|found| found.is_dir());
            match (found.is_symlink(), found.is_file() || is_directory) {
                (true, _) if !is_directory => {
                    Some((path, "a symbolic link", "name what it leads to"))
                }
                (false, false) => Some((path, "no file", "name a file, or a new one")),
                _ => None,
            }
        });
        match refused {
            Some((path, what, then)) => Err(Error::invalid(format!(
                "'{path}' is {what}, through which nothing is written; {then}"
            ))),
            None => Ok(()),
        }
    };
    let checked = tokio::task::spawn_blocking(check).await;
    checked.map_err(|e| Error::while_doing("looking at what is to be written", e))?
}

/// Makes sure that DataFusion can reach `location`, which is not of this machine: its store is
/// registered. Returns the location that leads to that store.
pub(crate) fn prepare(
    runtime: &RuntimeEnv,
    location: &str,
    options: &TableOptions,
) -> Result<String> {
    let parsed = |text: &str| {
        let shown = shown(location);
        Url::parse(text)
            .map_err(|e| Error::invalid(format!("location '{shown}' is not a URL: {e}")))
    };
    let url = parsed(location)?;
    if options.store.is_empty() && runtime.object_store_registry.get_store(&url).is_ok() {
        return Ok(location.to_owned());
    }
    let store = build(&url, options)?;
    let own_scheme = format!(
        "{}+{:x}",
        url.scheme(),
        fingerprint(&url[..url::Position::BeforePath], options)
    );
    // The statement may write the scheme in capitals.
    let rest = location.split_once("://").map_or("", |(_, rest)| rest);
    let own = format!("{own_scheme}://{rest}");
    let mut base = parsed(&own)?;
    base.set_path("");
    base.set_query(None);
    runtime.register_object_store(&base, store);
    Ok(own)
}

/// Stands for `store` with `options` in this process, and tells nothing about them.
pub(crate) fn fingerprint(store: &str, options: &TableOptions) -> u64 {
    static KEYS: OnceLock<RandomState> = OnceLock::new();
    let options = options.store.iter();
    let options: Vec<(&str, &str)> = options.map(|(k, v)| (k.as_str(), v.expose())).collect();
    KEYS.get_or_init(RandomState::new)
        .hash_one((store, options))
}

/// A store that answers again within a minute is waited for; an endpoint that is wrong shows soon.
pub(crate) fn retries() -> RetryConfig {
    RetryConfig {
        max_retries: 6,
        retry_timeout: Duration::from_secs(60),
        ..RetryConfig::default()
    }
}

/// The store of the bucket or host in `url`.
pub(crate) fn build(url: &Url, options: &TableOptions) -> Result<Arc<dyn ObjectStore>> {
    match url.scheme() {
        #[cfg(feature = "s3")]
        "s3" | "s3a" => {
            use object_store::aws::{AmazonS3Builder, S3CopyIfNotExists};
            // How S3 itself makes a file visible unless it is there already; other stores may
            // need `aws.copy_if_not_exists` otherwise.
            let mut builder = AmazonS3Builder::from_env()
                .with_url(url.as_str())
                .with_copy_if_not_exists(S3CopyIfNotExists::Multipart)
                .with_retry(retries());
            let mut profile = None;
            for (key, value) in keys(options, "aws.") {
                match key {
                    "profile" => profile = Some(value),
                    _ => builder = builder.with_config(parse_key(key)?, value),
                }
            }
            let env = |name: &str| std::env::var(name).ok();
            let builder = crate::aws_profile::apply(builder, profile, &env)?;
            finish(url, builder.build())
        }
        #[cfg(feature = "azure")]
        "az" | "azure" | "abfs" | "abfss" | "adl" => {
            let mut builder = object_store::azure::MicrosoftAzureBuilder::from_env()
                .with_url(url.as_str())
                .with_retry(retries());
            for (key, value) in keys(options, "azure.") {
                builder = builder.with_config(parse_key(key)?, value);
            }
            finish(url, builder.build())
        }
        #[cfg(feature = "gcs")]
        "gs" | "gcs" => {
            let mut builder = object_store::gcp::GoogleCloudStorageBuilder::from_env()
                .with_url(url.as_str())
                .with_retry(retries());
            for (key, value) in keys(options, "gcp.") {
                builder = builder.with_config(parse_key(key)?, value);
            }
            finish(url, crate::gcs::Bucket::open(url, builder))
        }
        "http" | "https" => {
            let mut base = url.clone();
            base.set_path("");
            let mut client = object_store::ClientOptions::new().with_allow_http(true);
            for (key, value) in keys(options, "http.") {
                client = client.with_config(parse_key(key)?, value);
            }
            let builder = object_store::http::HttpBuilder::new()
                .with_url(base.as_str())
                .with_client_options(client)
                .with_retry(retries());
            finish(url, builder.build())
        }
        #[cfg(not(all(feature = "s3", feature = "azure", feature = "gcs")))]
        #[allow(unreachable_patterns)] // those of the features that are on
        "s3" | "s3a" | "az" | "azure" | "abfs" | "abfss" | "adl" | "gs" | "gcs" => Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "location '{}': this build has no support for {}://; build with the \
                     feature s3, azure or gcs",
                shown(url.as_str()),
                url.scheme()
            ),
        )),
        other => Err(Error::unknown(
            "location scheme",
            other,
            &["file", "s3", "az", "abfss", "gs", "http", "https"],
        )),
    }
}

/// The options under `prefix`, without it.
pub(crate) fn keys<'a>(
    options: &'a TableOptions,
    prefix: &'static str,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    options
        .store
        .iter()
        .filter_map(move |(key, value)| Some((key.strip_prefix(prefix)?, value.expose())))
}

pub(crate) fn parse_key<K: std::str::FromStr<Err = object_store::Error>>(key: &str) -> Result<K> {
    key.parse().map_err(|e: object_store::Error| {
        Error::invalid(format!("unknown object store option '{key}': {e}")).with_source(e)
    })
}

fn finish<S: ObjectStore>(
    url: &Url,
    built: object_store::Result<S>,
) -> Result<Arc<dyn ObjectStore>> {
    match built {
        Ok(store) => Ok(Arc::new(store)),
        Err(error) => {
            let said = error.to_string();
            let plain = without_value(&said);
            let advice = match said.contains("Account must be specified") {
                true => {
                    "; set the option azure.account_name, or the environment variable \
                     AZURE_STORAGE_ACCOUNT_NAME, or write the location as \
                     abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH"
                }
                false => "",
            };
            let message = format!("location '{}': {plain}{advice}", shown(url.as_str()));
            match plain == said {
                true => Err(Error::invalid(message).with_source(error)),
                false => Err(Error::invalid(message)),
            }
        }
    }
}

/// The library quotes the value of an option that it cannot read, which can be a secret in the
/// wrong place.
fn without_value(message: &str) -> String {
    const BEFORE: &str = "failed to parse \"";
    match (message.find(BEFORE), message.rfind("\" as ")) {
        (Some(start), Some(end)) if start + BEFORE.len() <= end => format!(
            "{}failed to parse the value of an option{}",
            &message[..start],
            &message[end + 1..]
        ),
        _ => message.to_owned(),
    }
}

/// There is no `what` at the local `path`; what is there instead.
pub(crate) fn missing(path: &str, what: &str) -> Error {
    let parent = Path::new(path).parent();
    let parent = parent.filter(|p| !p.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let near = match std::fs::read_dir(parent) {
        _ if path.contains("${") => {
            "only the program fills in a reference such as ${env:NAME}: in casebook.toml, and in \
             LOCATION and OPTIONS of CREATE EXTERNAL TABLE and COPY"
                .to_owned()
        }
        // A part of what signs in is one, too.
        _ if shown(path) != path => "if it is a URL, write its scheme, as in https://".to_owned(),
        Err(_) => format!("the directory '{}' does not exist either", parent.display()),
        Ok(entries) => {
            let names = entries.filter_map(|e| Some(e.ok()?.file_name()));
            let mut names: Vec<String> = names.map(|n| n.to_string_lossy().into_owned()).collect();
            names.sort();
            names.truncate(NAMES_SHOWN);
            match names.is_empty() {
                true => format!("'{}' is empty", parent.display()),
                false => format!("'{}' holds {}", parent.display(), names.join(", ")),
            }
        }
    };
    Error::new(
        ErrorKind::NotFound,
        format!("there is no {what} '{path}'; {near}"),
    )
}

/// Refuses a directory that cannot be there or be made, because a file is in its way.
pub(crate) fn check_room(directory: &Path) -> Result<()> {
    // Without a slash at its end, with which a file is not found.
    let path = directory.components().as_path();
    let found = path.ancestors().find_map(|path| {
        let is_dir = std::fs::metadata(path).ok()?.is_dir();
        Some((path, is_dir))
    });
    match found {
        Some((path, false)) => Err(Error::invalid(format!(
            "'{}' is no directory, and the table at '{}' would be one; choose another location",
            path.display(),
            directory.display()
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "s3")]
    #[test]
    fn a_scheme_in_capitals_is_the_same_place() {
        let runtime = RuntimeEnv::default();
        let mut options = TableOptions::default();
        let secret = crate::secret::Secret::new("k");
        let keys = ["aws.access_key_id", "aws.secret_access_key"];
        let keys = keys.map(|key| (key.to_owned(), secret.clone()));
        options.store.extend(keys);
        for location in [
            "s3://bucket/s3/data/",
            "S3://bucket/s3/data/",
            "S3://bucket/x",
        ] {
            let own = prepare(&runtime, location, &options).unwrap();
            let (scheme, rest) = own.split_once("://").unwrap();
            assert!(scheme.starts_with("s3+"), "{own}");
            assert_eq!(Some(rest), location.split_once("://").map(|(_, rest)| rest));
        }
        // A table without options must not read with the credentials of another one.
        let plain = Url::parse("s3://bucket").unwrap();
        assert!(runtime.object_store_registry.get_store(&plain).is_err());
    }

    #[test]
    fn a_file_url_names_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        std::fs::create_dir(at("my table")).unwrap();
        std::fs::create_dir(at("50%25")).unwrap();
        for (location, path) in [
            (format!("file://{}", at("my%20table")), at("my table")),
            (format!("FILE://{}", at("my table")), at("my table")),
            (format!("file://{}", at("50%25")), at("50%25")),
            (format!("file://{}", at("new%20one")), at("new%20one")),
            (at("my%20table"), at("my%20table")),
        ] {
            assert!(is_local(&location));
            assert_eq!(local_path(&location), path, "{location}");
        }
        assert!(!is_local("s3://file/x"));
    }
}
