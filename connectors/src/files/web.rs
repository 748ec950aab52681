//! One file behind a URL of the web, such as a signed one: every request goes to exactly that URL.
//!
//! A signature covers the method and the query, so the size is asked for with a GET of one byte
//! instead of a HEAD, and neither the query nor the encoding of the path is touched. Directories
//! and patterns of the web are WebDAV's and stay the library's.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnv;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService, ReqwestConnector,
};
use object_store::http::HttpBuilder;
use object_store::path::Path as StorePath;
use object_store::{ClientOptions, ObjectStore};
use url::Url;

use crate::error::{Error, Result};
use crate::location;
use crate::options::TableOptions;
use crate::stores;

/// Registers a store that holds the file at `location` alone. Returns the store and the file in it.
pub(super) fn open(
    runtime: &RuntimeEnv,
    location: &str,
    options: &TableOptions,
) -> Result<(ObjectStoreUrl, StorePath)> {
    let shown = location::shown(location);
    let invalid = |e: String| Error::invalid(format!("location '{shown}' is not a URL: {e}"));
    let url = Url::parse(location).map_err(|e| invalid(e.to_string()))?;
    let exact = url.as_str().split('#').next().unwrap_or_default();
    let exact: http::Uri = exact
        .parse()
        .map_err(|e: http::uri::InvalidUri| invalid(e.to_string()))?;
    let mut client = ClientOptions::new().with_allow_http(true);
    for (key, value) in stores::keys(options, "http.") {
        client = client.with_config(stores::parse_key(key)?, value);
    }
    let mut base = url.clone();
    base.set_path("");
    base.set_query(None);
    base.set_fragment(None);
    let store = HttpBuilder::new()
        .with_url(base.as_str())
        .with_client_options(client)
        .with_retry(stores::retries())
        .with_http_connector(ExactConnector(exact))
        .build()
        .map_err(|e| Error::invalid(format!("location '{shown}': {e}")).with_source(e))?;
    let own = format!(
        "{}+{:x}://{}",
        url.scheme(),
        stores::fingerprint(location, options),
        url.host_str().unwrap_or_default()
    );
    let own = ObjectStoreUrl::parse(own).map_err(|e| invalid(e.to_string()))?;
    let store: Arc<dyn ObjectStore> = Arc::new(store);
    runtime.register_object_store(own.as_ref(), store);
    // The name is shown and its ending looked at; no request is made of it.
    let name = StorePath::from_url_path(url.path()).map_err(|e| invalid(e.to_string()))?;
    Ok((own, name))
}

/// Makes clients that ask for one URL, whatever they are asked for.
struct ExactConnector(http::Uri);

struct Exact {
    url: http::Uri,
    client: HttpClient,
}

impl fmt::Debug for ExactConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExactConnector") // the URL may be signed
    }
}

impl fmt::Debug for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exact")
    }
}

impl HttpConnector for ExactConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = ReqwestConnector::default().connect(options)?;
        let url = self.0.clone();
        Ok(HttpClient::new(Exact { url, client }))
    }
}

#[async_trait]
impl HttpService for Exact {
    async fn call(&self, mut request: HttpRequest) -> std::result::Result<HttpResponse, HttpError> {
        *request.uri_mut() = self.url.clone();
        if request.method() != http::Method::HEAD {
            return self.client.execute(request).await;
        }
        *request.method_mut() = http::Method::GET;
        let first = http::HeaderValue::from_static("bytes=0-0");
        request.headers_mut().insert(http::header::RANGE, first);
        as_head(self.client.execute(request).await?)
    }
}

/// The answer that a HEAD would have had. The body, if the server sent all of it, is not read.
fn as_head(answer: HttpResponse) -> std::result::Result<HttpResponse, HttpError> {
    use http::header::{CONTENT_LENGTH, CONTENT_RANGE};
    let (mut parts, _) = answer.into_parts();
    let header = |name| {
        parts
            .headers
            .get(name)
            .and_then(|v: &http::HeaderValue| v.to_str().ok())
    };
    let size = match parts.status {
        http::StatusCode::PARTIAL_CONTENT => {
            header(CONTENT_RANGE).and_then(|range| range.rsplit('/').next())
        }
        // An empty file has no first byte: `bytes */0`.
        http::StatusCode::RANGE_NOT_SATISFIABLE => {
            header(CONTENT_RANGE).and_then(|range| range.strip_prefix("bytes */"))
        }
        http::StatusCode::OK => header(CONTENT_LENGTH),
        _ => {
            return Ok(HttpResponse::from_parts(
                parts,
                HttpResponseBody::from(vec![]),
            ));
        }
    };
    let size: Option<u64> = size.and_then(|size| size.parse().ok());
    let Some(size) = size else {
        return Err(HttpError::new(HttpErrorKind::Decode, NoSize));
    };
    parts.headers.insert(CONTENT_LENGTH, size.into());
    parts.headers.remove(CONTENT_RANGE);
    parts.status = http::StatusCode::OK;
    Ok(HttpResponse::from_parts(
        parts,
        HttpResponseBody::from(vec![]),
    ))
}

#[derive(Debug)]
struct NoSize;

impl fmt::Display for NoSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the server does not say how long the file is; download it and read that file")
    }
}

impl std::error::Error for NoSize {}
