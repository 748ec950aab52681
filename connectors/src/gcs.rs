//! Google Cloud Storage with a copy that overwrites nothing when it must not.
//!
//! object_store 0.13.2 has the two modes of its copy the wrong way round
//! (<https://github.com/apache/arrow-rs-object-store/issues/712>): asked to leave an object that is
//! there, it replaces it, and the rows in it are lost. Here the request is made by hand, which stays
//! right when the library is.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::gcp::{GoogleCloudStorage, GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path;
use object_store::{
    ClientConfigKey, CopyMode, CopyOptions, Error, GetOptions, GetResult, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result,
};
use reqwest::StatusCode;
use url::Url;

use crate::http::{self, ClientSettings, Proxy, Retry};
use crate::secret::Secret;

/// Where requests go unless the options say otherwise.
const BASE_URL: &str = "https://storage.googleapis.com";
/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest silence of the storage; it answers when the copy is done.
const READ_TIMEOUT: Duration = Duration::from_secs(300);

/// One bucket.
#[derive(Debug)]
pub(crate) struct Bucket {
    inner: GoogleCloudStorage,
    /// Of the bucket.
    url: Url,
    http: reqwest::Client,
}

impl Bucket {
    /// The bucket that is the host of `location`, as `builder` says.
    pub(crate) fn open(location: &Url, builder: GoogleCloudStorageBuilder) -> Result<Self> {
        let failed = |source| Error::Generic {
            store: "GCS",
            source,
        };
        let base = builder.get_config_value(&GoogleConfigKey::BaseUrl);
        let mut url =
            Url::parse(base.as_deref().unwrap_or(BASE_URL)).map_err(|e| failed(e.into()))?;
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty()
                .push(location.host_str().unwrap_or_default());
        }
        let proxy = GoogleConfigKey::Client(ClientConfigKey::ProxyUrl);
        let proxy = match builder.get_config_value(&proxy) {
            Some(url) => Proxy::At(Secret::new(url)),
            None => Proxy::Environment,
        };
        let http = http::client(&ClientSettings {
            connect_timeout: CONNECT_TIMEOUT,
            read_timeout: READ_TIMEOUT,
            ca_file: None,
            proxy,
        });
        Ok(Self {
            inner: builder.build()?,
            url,
            http: http.map_err(|e| failed(e.into()))?,
        })
    }

    fn object(&self, path: &Path) -> Url {
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.extend(path.as_ref().split('/'));
        }
        url
    }

    /// Copies unless `to` is there.
    ///
    /// <https://cloud.google.com/storage/docs/xml-api/put-object-copy>. An attempt whose answer is
    /// lost may have copied; the next one then finds the object there and says so.
    async fn copy_new(&self, from: &Path, to: &Path) -> Result<()> {
        let source = self.object(from).path().trim_start_matches('/').to_owned();
        let retry = Retry::default();
        let mut attempt = 0;
        loop {
            let token = self.inner.credentials().get_credential().await?;
            let request = self.http.put(self.object(to)).bearer_auth(&token.bearer);
            let request = request
                .header("x-goog-copy-source", &source)
                .header("x-goog-if-generation-match", "0")
                .header("content-length", "0");
            let sent = request.send().await;
            let error = match sent.and_then(reqwest::Response::error_for_status) {
                Ok(_) => return Ok(()),
                // A URL can be long; the path says what it was about.
                Err(error) => error.without_url(),
            };
            let status = error.status();
            let passing =
                status.is_none_or(|s| s.is_server_error() || s == StatusCode::TOO_MANY_REQUESTS);
            if !passing || attempt + 1 == retry.attempts {
                return Err(refused(status, to.to_string(), error.into()));
            }
            tokio::time::sleep(retry.wait(attempt)).await;
            attempt += 1;
        }
    }
}

/// The error that the library has for `status`.
fn refused(
    status: Option<StatusCode>,
    path: String,
    source: Box<dyn std::error::Error + Send + Sync>,
) -> Error {
    match status {
        Some(StatusCode::PRECONDITION_FAILED) => Error::AlreadyExists { path, source },
        Some(StatusCode::NOT_FOUND) => Error::NotFound { path, source },
        Some(StatusCode::UNAUTHORIZED) => Error::Unauthenticated { path, source },
        Some(StatusCode::FORBIDDEN) => Error::PermissionDenied { path, source },
        _ => Error::Generic {
            store: "GCS",
            source,
        },
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Bucket {
    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        match options.mode {
            CopyMode::Create => self.copy_new(from, to).await,
            // Nothing here asks for that, and the library may refuse it.
            CopyMode::Overwrite => self.inner.copy_opts(from, to, options).await,
        }
    }

    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.inner.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(path, options).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }
}
