//! Sending a file to the storage behind a stage, with what the answer to PUT lends for it.

use bytes::Bytes;
use url::Url;

use super::messages::StageInfo;
use super::session::Session;
use crate::error::{Error, ErrorKind, Result};
use crate::http::{self, Proxy};
use crate::secret::Secret;

/// Longest answer of a storage that is read.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// Where one file goes.
pub(super) enum Place {
    /// A link that lets write, or that does with this header.
    Link {
        url: Secret,
        header: Option<(&'static str, Secret)>,
    },
    /// A bucket and temporary keys.
    #[cfg(feature = "s3")]
    S3 {
        store: Box<object_store::aws::AmazonS3>,
        path: object_store::path::Path,
    },
}

impl Place {
    /// Where `info` says that `file` goes; none for storage that this does not speak to. The
    /// authorities in `ca_file` are trusted as well, and requests go through `proxy`.
    #[cfg_attr(not(feature = "s3"), allow(unused_variables))] // the session's client is used
    pub(super) fn new(
        info: StageInfo,
        file: &str,
        ca_file: Option<&str>,
        proxy: &Proxy,
    ) -> Option<Self> {
        match info.location_type.as_str() {
            "GCS" => Self::gcs(info, file),
            "AZURE" => Self::azure(&info, file),
            #[cfg(feature = "s3")]
            "S3" => Self::s3(&info, file, ca_file, proxy),
            _ => None,
        }
    }

    /// A bucket and a token, or a link that is signed for this file.
    fn gcs(info: StageInfo, file: &str) -> Option<Self> {
        let Some(token) = info.creds.get("GCS_ACCESS_TOKEN") else {
            let url = info.presigned_url?;
            return Some(Self::Link { url, header: None });
        };
        let bearer = Secret::new(format!("Bearer {}", token.expose()));
        let endpoint = info.end_point().unwrap_or("storage.googleapis.com");
        Some(Self::Link {
            url: Secret::new(below(&with_scheme(endpoint), &info.location, file)?),
            header: Some(("authorization", bearer)),
        })
    }

    /// A container and a shared access signature, which is a query.
    fn azure(info: &StageInfo, file: &str) -> Option<Self> {
        let signature = info.creds.get("AZURE_SAS_TOKEN")?;
        let endpoint = match info.end_point()? {
            whole if whole.contains("://") => whole.to_owned(),
            host => {
                let account = info.storage_account.as_deref()?;
                let host = host.strip_prefix("blob.").unwrap_or(host);
                format!("https://{account}.blob.{host}")
            }
        };
        let mut url = below(&endpoint, &info.location, file)?;
        url.set_query(Some(signature.expose().trim_start_matches('?')));
        Some(Self::Link {
            url: Secret::new(url),
            header: Some(("x-ms-blob-type", Secret::new("BlockBlob"))),
        })
    }

    #[cfg(feature = "s3")]
    fn s3(info: &StageInfo, file: &str, ca_file: Option<&str>, proxy: &Proxy) -> Option<Self> {
        use object_store::aws::AmazonS3Builder;
        let key = |name: &str| info.creds.get(name).map(Secret::expose);
        let (bucket, prefix) = info
            .location
            .split_once('/')
            .unwrap_or((&info.location, ""));
        let mut builder = AmazonS3Builder::new()
            .with_client_options(http::store_options(ca_file, proxy).ok()?)
            .with_bucket_name(bucket)
            .with_region(info.region.as_deref()?)
            .with_access_key_id(key("AWS_KEY_ID")?)
            .with_secret_access_key(key("AWS_SECRET_KEY")?)
            .with_token(key("AWS_TOKEN")?);
        if let Some(endpoint) = info.end_point().map(with_scheme) {
            builder = builder
                .with_allow_http(endpoint.starts_with("http://"))
                .with_endpoint(endpoint);
        }
        Some(Self::S3 {
            store: Box::new(builder.build().ok()?),
            path: object_store::path::Path::from(format!("{prefix}{file}")),
        })
    }

    /// Sends the file; one that is there is replaced.
    ///
    /// # Errors
    /// What the storage says, without the link.
    pub(super) async fn put(&self, session: &Session, doing: &str, bytes: Bytes) -> Result<()> {
        match self {
            Self::Link { url, header } => {
                let make = || {
                    let request = session.http.put(url.expose()).body(bytes.clone());
                    match header {
                        Some((name, value)) => request.header(*name, value.expose()),
                        None => request,
                    }
                };
                let sent = http::fetch(doing, &session.retry, MAX_ANSWER_BYTES, make).await;
                sent.map(drop).map_err(|e| match e.kind() {
                    // The storage's answer may quote what was signed.
                    ErrorKind::Denied | ErrorKind::InvalidInput => Error::new(
                        e.kind(),
                        format!("{doing}: the storage of the stage refused the file"),
                    ),
                    _ => e,
                })
            }
            #[cfg(feature = "s3")]
            Self::S3 { store, path } => {
                use object_store::ObjectStoreExt;
                let put = store.put(path, bytes.into()).await;
                put.map(drop).map_err(|e| Error::while_doing(doing, e))
            }
        }
    }
}

/// `endpoint` as a URL; a host is reached by HTTPS.
fn with_scheme(endpoint: &str) -> String {
    match endpoint.contains("://") {
        true => endpoint.to_owned(),
        false => format!("https://{endpoint}"),
    }
}

/// `file` in `location`, which begins with the bucket or container, at `endpoint`.
fn below(endpoint: &str, location: &str, file: &str) -> Option<Url> {
    let mut url = Url::parse(endpoint).ok()?;
    url.path_segments_mut()
        .ok()?
        .pop_if_empty()
        .extend(location.split('/').filter(|part| !part.is_empty()))
        .push(file);
    Some(url)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Answers as the clouds of Snowflake give them.
    #[test]
    fn each_cloud_is_addressed_its_own_way() {
        let url = |info: serde_json::Value| {
            let info: StageInfo = serde_json::from_value(info).unwrap();
            match Place::new(info, "part-0.parquet", None, &Proxy::None)? {
                Place::Link { url, header } => Some((url.expose().to_owned(), header?.0)),
                #[cfg(feature = "s3")]
                Place::S3 { .. } => None,
            }
        };
        let token = json!({"GCS_ACCESS_TOKEN": "t"});
        let gcs =
            json!({"locationType": "GCS", "location": "gcs-bucket/stages/a b/", "creds": token});
        let google = "https://storage.googleapis.com/gcs-bucket/stages/a%20b/part-0.parquet";
        assert_eq!(url(gcs).unwrap(), (google.to_owned(), "authorization"));
        let regional = json!({"locationType": "GCS", "location": "b/p", "creds": token,
            "endPoint": "storage.me-central2.rep.googleapis.com"});
        let there = "https://storage.me-central2.rep.googleapis.com/b/p/part-0.parquet";
        assert_eq!(url(regional).unwrap().0, there);
        for host in ["core.windows.net", "blob.core.windows.net"] {
            let azure = json!({"locationType": "AZURE", "location": "container/p/", "endPoint": host,
                "storageAccount": "acct", "creds": {"AZURE_SAS_TOKEN": "?sv=1&sig=a%2Bb"}});
            let there =
                "https://acct.blob.core.windows.net/container/p/part-0.parquet?sv=1&sig=a%2Bb";
            assert_eq!(url(azure).unwrap(), (there.to_owned(), "x-ms-blob-type"));
        }
        assert!(url(json!({"locationType": "LOCAL_FS"})).is_none());
    }
}
