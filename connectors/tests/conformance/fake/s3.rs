//! An S3 server in memory that takes its keys seriously: each is good for one prefix, to read or
//! to write too, until it expires. (moto accepts any key.) Signatures are not checked.

use std::collections::HashMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};

use super::objects::{Objects, address};

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
    objects: Objects,
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
        self.inner.lock().unwrap().objects.object(key)
    }

    /// Copies a local directory below `prefix`, which begins with the bucket.
    pub(crate) fn load(&self, directory: &Path, prefix: &str) {
        self.inner.lock().unwrap().objects.load(directory, prefix);
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
    let (path, query) = address(&uri);
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
        Method::GET if listing => inner.objects.list(&path, &query),
        Method::GET | Method::HEAD => inner.objects.get(&path, &headers),
        Method::PUT => {
            let new_only = headers.contains_key("if-none-match");
            inner.objects.put(path, body, new_only)
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
