//! Sending a file to the storage behind a stage, with what the answer to PUT lends for it.

use bytes::Bytes;
use reqwest::header;
use url::Url;

use super::messages::StageInfo;
use super::session::Session;
use crate::error::{Error, ErrorKind, Result};
use crate::http::{self, Retry};
use crate::secret::Secret;

/// Longest answer of a storage that is read.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// Where one file goes.
pub(super) enum Place {
    /// A link that lets write, or one that needs a token.
    Link { url: Secret, token: Option<Secret> },
    /// A bucket and temporary keys.
    #[cfg(feature = "s3")]
    S3 {
        store: Box<object_store::aws::AmazonS3>,
        path: object_store::path::Path,
    },
}

impl Place {
    /// Where `info` says that `file` goes; none for storage that this does not speak to.
    pub(super) fn new(info: StageInfo, file: &str) -> Option<Self> {
        match info.location_type.as_str() {
            "GCS" => {
                let token = info.creds.get("GCS_ACCESS_TOKEN").cloned();
                let url = match (info.presigned_url, &token) {
                    (Some(url), None) => url,
                    (_, Some(_)) => {
                        let mut url = Url::parse("https://storage.googleapis.com").ok()?;
                        url.path_segments_mut()
                            .ok()?
                            .extend(info.location.split('/').filter(|part| !part.is_empty()))
                            .push(file);
                        Secret::new(url)
                    }
                    (None, None) => return None,
                };
                Some(Self::Link { url, token })
            }
            #[cfg(feature = "s3")]
            "S3" => Self::s3(&info, file),
            _ => None,
        }
    }

    #[cfg(feature = "s3")]
    fn s3(info: &StageInfo, file: &str) -> Option<Self> {
        use object_store::aws::AmazonS3Builder;
        let key = |name: &str| info.creds.get(name).map(Secret::expose);
        let (bucket, prefix) = info
            .location
            .split_once('/')
            .unwrap_or((&info.location, ""));
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(info.region.as_deref()?)
            .with_access_key_id(key("AWS_KEY_ID")?)
            .with_secret_access_key(key("AWS_SECRET_KEY")?)
            .with_token(key("AWS_TOKEN")?);
        if let Some(endpoint) = info.end_point.as_deref().filter(|e| !e.is_empty()) {
            let endpoint = match endpoint.contains("://") {
                true => endpoint.to_owned(),
                false => format!("https://{endpoint}"),
            };
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
            Self::Link { url, token } => {
                let make = || {
                    let request = session.http.put(url.expose()).body(bytes.clone());
                    match token {
                        Some(token) => request
                            .header(header::AUTHORIZATION, format!("Bearer {}", token.expose())),
                        None => request,
                    }
                };
                let sent = http::fetch(doing, &Retry::default(), MAX_ANSWER_BYTES, make).await;
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
