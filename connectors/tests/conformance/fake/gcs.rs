//! Google Cloud Storage's XML interface in memory. Every request must bear a token: one that a test
//! handed out, or one that the service account's private key signed.
//!
//! <https://cloud.google.com/storage/docs/xml-api/reference-methods>,
//! <https://google.aip.dev/auth/4111> (self-signed tokens)

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, LazyLock, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::objects::{Objects, address};

#[derive(Debug, Default)]
struct Inner {
    objects: Objects,
    /// The parts of unfinished uploads.
    uploads: HashMap<String, BTreeMap<u32, Bytes>>,
    tokens: HashSet<String>,
    /// Below these, the answer to the next copy is lost.
    unanswered: Vec<String>,
    refused: Vec<String>,
}

#[derive(Debug, Clone)]
pub(crate) struct Gcs {
    pub(crate) endpoint: String,
    /// A service account's key, as its JSON file has it.
    pub(crate) account_key: String,
    public_key: String,
    inner: Arc<Mutex<Inner>>,
}

/// One server for all tests, on a thread of its own, because tests come and go with their
/// runtimes.
static SERVER: LazyLock<Gcs> = LazyLock::new(Gcs::start);

impl Gcs {
    pub(crate) fn shared() -> &'static Self {
        &SERVER
    }

    fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let private_key = private_key();
        let gcs = Self {
            endpoint: format!("http://{}", listener.local_addr().unwrap()),
            account_key: service_account(&private_key),
            public_key: openssl(&["rsa", "-pubout"], &private_key),
            inner: Arc::default(),
        };
        let app = Router::new()
            .fallback(answer)
            .layer(DefaultBodyLimit::disable())
            .with_state(gcs.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                axum::serve(listener, app).await.unwrap();
            });
        });
        gcs
    }

    /// Makes `token` a good one.
    pub(crate) fn allow(&self, token: &str) {
        self.inner.lock().unwrap().tokens.insert(token.to_owned());
    }

    /// The next copy to below `prefix` is done, but answered with an error.
    pub(crate) fn lose_answer(&self, prefix: &str) {
        self.inner
            .lock()
            .unwrap()
            .unanswered
            .push(prefix.to_owned());
    }

    /// Requests below `bucket` that were refused.
    pub(crate) fn refused(&self, bucket: &str) -> usize {
        let inner = self.inner.lock().unwrap();
        inner
            .refused
            .iter()
            .filter(|path| path.starts_with(bucket))
            .count()
    }

    /// The object at `key`, which begins with the bucket.
    pub(crate) fn object(&self, key: &str) -> Option<Bytes> {
        self.inner.lock().unwrap().objects.object(key)
    }

    /// Copies a local directory below `prefix`, which begins with the bucket.
    pub(crate) fn load(&self, directory: &Path, prefix: &str) {
        self.inner.lock().unwrap().objects.load(directory, prefix);
    }

    /// True if the account's key signed `token`.
    fn signed(&self, token: &str) -> bool {
        let Some((message, signature)) = token.rsplit_once('.') else {
            return false;
        };
        let Ok(signature) = URL_SAFE_NO_PAD.decode(signature) else {
            return false;
        };
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (key, signature) = (
            file("key", self.public_key.as_bytes()),
            file("sig", &signature),
        );
        let mut verify = Command::new("openssl");
        verify.args(["dgst", "-sha256", "-verify", &key, "-signature", &signature]);
        verify.arg(file("message", message.as_bytes()));
        verify.output().unwrap().status.success()
    }
}

/// A new private key.
pub(crate) fn private_key() -> String {
    openssl(&["genrsa", "2048"], "")
}

/// The JSON file of a service account that has this private key.
pub(crate) fn service_account(private_key: &str) -> String {
    let key = serde_json::json!({
        "type": "service_account",
        "client_email": "casebook@test.iam.gserviceaccount.com",
        "private_key_id": "key-1",
        "private_key": private_key,
    });
    key.to_string()
}

/// What the openssl program writes, given `input`.
fn openssl(arguments: &[&str], input: &str) -> String {
    let mut command = Command::new("openssl");
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "openssl {arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

async fn answer(
    State(gcs): State<Gcs>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let (path, query) = address(&uri);
    let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    let token = header("authorization").and_then(|v| v.strip_prefix("Bearer "));
    let mut inner = gcs.inner.lock().unwrap();
    let known = token.is_some_and(|t| inner.tokens.contains(t));
    if !known && token.is_some_and(|t| gcs.signed(t)) {
        inner.tokens.insert(token.unwrap().to_owned());
    } else if !known {
        inner.refused.push(path);
        let error = "<Error><Code>AuthenticationRequired</Code></Error>";
        return (StatusCode::UNAUTHORIZED, error).into_response();
    }
    let new_only = header("x-goog-if-generation-match") == Some("0");
    match (method, query.get("uploadId")) {
        (Method::GET, _) if query.contains_key("list-type") => inner.objects.list(&path, &query),
        (Method::GET | Method::HEAD, _) => inner.objects.get(&path, &headers),
        (Method::PUT, Some(upload)) => {
            let number = query["partNumber"].parse().unwrap();
            let Some(parts) = inner.uploads.get_mut(upload) else {
                return StatusCode::NOT_FOUND.into_response();
            };
            parts.insert(number, body);
            ([("etag", format!("\"part-{number}\""))], "").into_response()
        }
        (Method::PUT, None) => match header("x-goog-copy-source") {
            None => inner.objects.put(path, body, new_only),
            Some(from) => {
                let (from, _) = address(&format!("/{from}").parse().unwrap());
                let lost = inner.unanswered.iter().position(|p| path.starts_with(p));
                let answer = match inner.objects.object(&from) {
                    Some(bytes) => inner.objects.put(path, bytes, new_only),
                    None => StatusCode::NOT_FOUND.into_response(),
                };
                match lost.map(|at| inner.unanswered.remove(at)) {
                    Some(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
                    None => answer,
                }
            }
        },
        (Method::POST, None) if query.contains_key("uploads") => {
            let upload = format!("upload-{}", inner.uploads.len());
            inner.uploads.insert(upload.clone(), BTreeMap::new());
            let result = "InitiateMultipartUploadResult";
            format!("<{result}><UploadId>{upload}</UploadId></{result}>").into_response()
        }
        (Method::POST, Some(upload)) => {
            let Some(parts) = inner.uploads.get_mut(upload).map(std::mem::take) else {
                return StatusCode::NOT_FOUND.into_response();
            };
            let whole: Vec<u8> = parts.into_values().flatten().collect();
            let put = inner.objects.put(path, whole.into(), false);
            let (parts, _) = put.into_parts();
            let tag = parts.headers["etag"].to_str().unwrap();
            let result = "CompleteMultipartUploadResult";
            let body = format!(
                "<{result}><ETag>{}</ETag></{result}>",
                tag.replace('"', "&quot;")
            );
            let generation = parts.headers["x-goog-generation"].clone();
            ([("x-goog-generation", generation)], body).into_response()
        }
        (Method::DELETE, Some(_)) => StatusCode::NO_CONTENT.into_response(),
        (Method::DELETE, None) => match inner.objects.remove(&path) {
            true => StatusCode::NO_CONTENT.into_response(),
            false => StatusCode::NOT_FOUND.into_response(),
        },
        _ => StatusCode::NOT_IMPLEMENTED.into_response(),
    }
}
