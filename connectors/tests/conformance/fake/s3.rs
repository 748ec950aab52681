//! An S3 server in memory that takes its keys seriously: each is good for one prefix, to read or
//! to write too, until it expires. (moto accepts any key.) Signatures are not checked.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use url::form_urlencoded;

/// What a key may do.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) prefix: String,
    pub(crate) writes: bool,
    pub(crate) session_token: String,
    pub(crate) expires: Option<Instant>,
}

#[derive(Debug, Default)]
struct Inner {
    objects: BTreeMap<String, Bytes>,
    keys: HashMap<String, Key>,
    refused: Vec<String>,
}

#[derive(Debug, Clone)]
pub(crate) struct S3 {
    pub(crate) endpoint: String,
    inner: Arc<Mutex<Inner>>,
}

impl S3 {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let s3 = Self {
            endpoint,
            inner: Arc::default(),
        };
        let app = Router::new()
            .fallback(answer)
            .layer(DefaultBodyLimit::disable())
            .with_state(s3.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        s3
    }

    /// Makes `id` a good key.
    pub(crate) fn allow(&self, id: &str, key: Key) {
        self.inner.lock().unwrap().keys.insert(id.to_owned(), key);
    }

    /// Requests that were refused, and why.
    pub(crate) fn refused(&self) -> Vec<String> {
        self.inner.lock().unwrap().refused.clone()
    }

    /// The object at `key`, which begins with the bucket.
    pub(crate) fn object(&self, key: &str) -> Option<Bytes> {
        self.inner.lock().unwrap().objects.get(key).cloned()
    }

    /// Copies a local directory below `prefix`, which begins with the bucket.
    pub(crate) fn load(&self, directory: &Path, prefix: &str) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            let key = format!("{prefix}/{name}");
            match path.is_dir() {
                true => self.load(&path, &key),
                false => {
                    let bytes = std::fs::read(&path).unwrap().into();
                    self.inner.lock().unwrap().objects.insert(key, bytes);
                }
            }
        }
    }
}

impl Inner {
    /// Why the request may not be done.
    fn refusal(&self, method: &Method, path: &str, headers: &HeaderMap) -> Option<&'static str> {
        let header = |name: &str| {
            headers
                .get(name)
                .and_then(|v| v.to_str().ok())
                .unwrap_or("")
        };
        let id = header("authorization")
            .split("Credential=")
            .nth(1)
            .unwrap_or("");
        let id = id.split('/').next().unwrap_or("");
        let Some(key) = self.keys.get(id) else {
            return Some("InvalidAccessKeyId");
        };
        let reads = matches!(*method, Method::GET | Method::HEAD);
        if header("x-amz-security-token") != key.session_token {
            Some("InvalidToken")
        } else if key.expires.is_some_and(|end| Instant::now() >= end) {
            Some("ExpiredToken")
        } else if !path.starts_with(&key.prefix) || !(reads || key.writes) {
            Some("AccessDenied")
        } else {
            None
        }
    }
}

async fn answer(
    State(s3): State<S3>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let query: HashMap<String, String> =
        form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
            .into_owned()
            .collect();
    let path = form_urlencoded::parse(format!("p={}", uri.path().trim_matches('/')).as_bytes())
        .next()
        .unwrap()
        .1
        .into_owned();
    let mut inner = s3.inner.lock().unwrap();
    let listing = query.contains_key("list-type");
    let wanted = match query.get("prefix") {
        Some(prefix) if listing => format!("{path}/{prefix}"),
        _ => path.clone(),
    };
    // Deleting many names them in the body.
    let below = match query.contains_key("delete") {
        true => inner
            .keys
            .values()
            .next()
            .map(|k| k.prefix.clone())
            .unwrap_or_default(),
        false => wanted.clone(),
    };
    if let Some(code) = inner.refusal(&method, &below, &headers) {
        let id = headers
            .get("authorization")
            .map(|v| v.to_str().unwrap_or("").to_owned());
        inner.refused.push(format!("{method} {wanted}: {code}"));
        let error = format!("<Error><Code>{code}</Code><Message>{id:?}</Message></Error>");
        return (StatusCode::FORBIDDEN, error).into_response();
    }
    match method {
        Method::GET if listing => list(&inner, &path, &query),
        Method::GET | Method::HEAD => get(&inner, &path, &headers, method == Method::HEAD),
        Method::PUT => {
            if headers.contains_key("if-none-match") && inner.objects.contains_key(&path) {
                return StatusCode::PRECONDITION_FAILED.into_response();
            }
            inner.objects.insert(path, body);
            ([("etag", "\"1\"")], "").into_response()
        }
        Method::DELETE => {
            inner.objects.remove(&path);
            StatusCode::NO_CONTENT.into_response()
        }
        Method::POST if query.contains_key("delete") => {
            let text = String::from_utf8_lossy(&body).into_owned();
            let mut deleted = String::new();
            for part in text.split("<Key>").skip(1) {
                let key = part.split("</Key>").next().unwrap();
                inner.objects.remove(&format!("{path}/{key}"));
                write!(deleted, "<Deleted><Key>{key}</Key></Deleted>").unwrap();
            }
            format!("<DeleteResult>{deleted}</DeleteResult>").into_response()
        }
        _ => StatusCode::NOT_IMPLEMENTED.into_response(),
    }
}

fn get(inner: &Inner, path: &str, headers: &HeaderMap, head: bool) -> Response {
    let Some(bytes) = inner.objects.get(path) else {
        return (
            StatusCode::NOT_FOUND,
            "<Error><Code>NoSuchKey</Code></Error>",
        )
            .into_response();
    };
    let size = bytes.len();
    let range = headers.get("range").and_then(|v| v.to_str().ok());
    let common = [
        ("etag", "\"1\"".to_owned()),
        ("last-modified", "Wed, 25 Nov 2026 12:00:00 GMT".to_owned()),
    ];
    if head {
        let length = [("content-length", size.to_string())];
        return (common, length, "").into_response();
    }
    let Some(range) = range else {
        return (common, bytes.clone()).into_response();
    };
    let (from, to) = range
        .strip_prefix("bytes=")
        .unwrap()
        .split_once('-')
        .unwrap();
    let (from, to) = match (from, to) {
        ("", last) => (size.saturating_sub(last.parse().unwrap()), size - 1),
        (from, "") => (from.parse().unwrap(), size - 1),
        (from, to) => (
            from.parse().unwrap(),
            to.parse::<usize>().unwrap().min(size - 1),
        ),
    };
    let content_range = [("content-range", format!("bytes {from}-{to}/{size}"))];
    let part = bytes.slice(from..=to);
    (StatusCode::PARTIAL_CONTENT, common, content_range, part).into_response()
}

fn list(inner: &Inner, bucket: &str, query: &HashMap<String, String>) -> Response {
    let prefix = query.get("prefix").map(String::as_str).unwrap_or_default();
    let after = query
        .get("start-after")
        .map(String::as_str)
        .unwrap_or_default();
    let mut out = String::new();
    for (key, bytes) in &inner.objects {
        let Some(key) = key.strip_prefix(&format!("{bucket}/")) else {
            continue;
        };
        if key.starts_with(prefix) && key > after {
            write!(
                out,
                "<Contents><Key>{key}</Key><LastModified>2026-11-25T12:00:00.000Z</LastModified>\
                 <ETag>\"1\"</ETag><Size>{}</Size></Contents>",
                bytes.len()
            )
            .unwrap();
        }
    }
    format!("<ListBucketResult><IsTruncated>false</IsTruncated>{out}</ListBucketResult>")
        .into_response()
}
