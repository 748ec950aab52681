//! Object stores for LOCATIONs: local disk, S3, Azure, GCS and HTTP.
//!
//! The library registers none but the local disk, so each table registers the store of its bucket
//! with the options it was given.

use std::path::Path;
use std::sync::Arc;

use datafusion::execution::runtime_env::RuntimeEnv;
use object_store::ObjectStore;
use url::Url;

use crate::error::{Error, ErrorKind, Result};
use crate::options::TableOptions;

/// True if `location` is a path of this machine.
pub(crate) fn is_local(location: &str) -> bool {
    !location.contains("://") || location.starts_with("file://")
}

/// Makes sure that DataFusion can reach `location`: the local path exists, or its store is
/// registered.
pub(crate) fn prepare(runtime: &RuntimeEnv, location: &str, options: &TableOptions) -> Result<()> {
    if is_local(location) {
        return check_local(location);
    }
    let (url, store) = remote(location, options)?;
    runtime.register_object_store(&url, store);
    Ok(())
}

/// The store of a remote `location` and the URL it is registered under.
fn remote(location: &str, options: &TableOptions) -> Result<(Url, Arc<dyn ObjectStore>)> {
    let url = Url::parse(location)
        .map_err(|e| Error::invalid(format!("location '{location}' is not a URL: {e}")))?;
    let store = build(&url, options)?;
    let mut base = url.clone();
    base.set_path("");
    Ok((base, store))
}

/// Storage options as deltalake takes them: without our prefixes.
pub(crate) fn plain_options(options: &TableOptions) -> std::collections::HashMap<String, String> {
    let plain = options.store.iter().map(|(key, value)| {
        let (prefix, name) = key.split_once('.').unwrap_or(("", key));
        let name = match prefix {
            "aws" => format!("aws_{name}"),
            "azure" => format!("azure_{name}"),
            "gcp" => format!("google_{name}"),
            _ => name.to_owned(),
        };
        (name, value.expose().to_owned())
    });
    plain.collect()
}

fn build(url: &Url, options: &TableOptions) -> Result<Arc<dyn ObjectStore>> {
    match url.scheme() {
        #[cfg(feature = "s3")]
        "s3" | "s3a" => {
            let mut builder = object_store::aws::AmazonS3Builder::from_env().with_url(url.as_str());
            for (key, value) in keys(options, "aws.") {
                builder = builder.with_config(parse_key(key)?, value);
            }
            finish(url, builder.build())
        }
        #[cfg(feature = "azure")]
        "az" | "azure" | "abfs" | "abfss" | "adl" => {
            let mut builder =
                object_store::azure::MicrosoftAzureBuilder::from_env().with_url(url.as_str());
            for (key, value) in keys(options, "azure.") {
                builder = builder.with_config(parse_key(key)?, value);
            }
            finish(url, builder.build())
        }
        #[cfg(feature = "gcs")]
        "gs" | "gcs" => {
            let mut builder =
                object_store::gcp::GoogleCloudStorageBuilder::from_env().with_url(url.as_str());
            for (key, value) in keys(options, "gcp.") {
                builder = builder.with_config(parse_key(key)?, value);
            }
            finish(url, builder.build())
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
                .with_client_options(client);
            finish(url, builder.build())
        }
        #[cfg(not(all(feature = "s3", feature = "azure", feature = "gcs")))]
        "s3" | "s3a" | "az" | "azure" | "abfs" | "abfss" | "adl" | "gs" | "gcs" => Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "location '{url}': this build has no support for {}://; build with the \
                     feature s3, azure or gcs",
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

fn keys<'a>(
    options: &'a TableOptions,
    prefix: &'static str,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    options
        .store
        .iter()
        .filter_map(move |(key, value)| Some((key.strip_prefix(prefix)?, value.expose())))
}

fn parse_key<K: std::str::FromStr<Err = object_store::Error>>(key: &str) -> Result<K> {
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
        Err(error) => Err(Error::invalid(format!(
            "location '{}': {error}",
            url.as_str().split('?').next().unwrap_or_default()
        ))
        .with_source(error)),
    }
}

/// A missing local file is worth naming early, with what is there instead.
fn check_local(location: &str) -> Result<()> {
    let path = location.strip_prefix("file://").unwrap_or(location);
    if std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() == 0) {
        return Err(Error::invalid(format!("the file '{path}' is empty")));
    }
    if path.contains(['*', '?', '[']) || Path::new(path).exists() {
        return Ok(());
    }
    let parent = Path::new(path)
        .parent()
        .filter(|p| !p.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let near = match std::fs::read_dir(parent) {
        Err(_) => format!("the directory '{}' does not exist either", parent.display()),
        Ok(entries) => {
            let mut names: Vec<String> = entries
                .filter_map(|e| Some(e.ok()?.file_name().to_string_lossy().into_owned()))
                .collect();
            names.sort();
            names.truncate(8);
            match names.is_empty() {
                true => format!("'{}' is empty", parent.display()),
                false => format!("'{}' holds {}", parent.display(), names.join(", ")),
            }
        }
    };
    Err(Error::new(
        ErrorKind::NotFound,
        format!("there is no file '{path}'; {near}"),
    ))
}
