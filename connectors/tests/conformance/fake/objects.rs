//! Objects in memory and the answers about them that Amazon's and Google's XML interfaces share.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;
use std::path::Path;

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use url::form_urlencoded;

/// Objects by bucket and key, each with the number of the write that made it.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    objects: BTreeMap<String, (Bytes, u64)>,
    writes: u64,
}

/// The bucket and key that `uri` names, decoded, and its query.
pub(crate) fn address(uri: &Uri) -> (String, HashMap<String, String>) {
    let pairs = |text: &str| -> HashMap<String, String> {
        form_urlencoded::parse(text.as_bytes())
            .into_owned()
            .collect()
    };
    let path = uri.path().trim_matches('/').replace('+', "%2B");
    let path = pairs(&format!("p={path}")).remove("p").unwrap();
    (path, pairs(uri.query().unwrap_or_default()))
}

fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;").replace('"', "&quot;")
}

impl Objects {
    pub(crate) fn object(&self, key: &str) -> Option<Bytes> {
        self.objects.get(key).map(|(bytes, _)| bytes.clone())
    }

    /// Copies a local directory below `prefix`, which begins with the bucket.
    pub(crate) fn load(&mut self, directory: &Path, prefix: &str) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            let key = format!("{prefix}/{name}");
            match path.is_dir() {
                true => self.load(&path, &key),
                false => {
                    let bytes = std::fs::read(&path).unwrap().into();
                    self.put(key, bytes, false);
                }
            }
        }
    }

    pub(crate) fn put(&mut self, key: String, bytes: Bytes, new_only: bool) -> Response {
        if new_only && self.objects.contains_key(&key) {
            let error = "<Error><Code>PreconditionFailed</Code></Error>";
            return (StatusCode::PRECONDITION_FAILED, error).into_response();
        }
        self.writes += 1;
        let common = self.headers(self.writes);
        self.objects.insert(key, (bytes, self.writes));
        (common, "").into_response()
    }

    pub(crate) fn remove(&mut self, key: &str) -> bool {
        self.objects.remove(key).is_some()
    }

    fn headers(&self, write: u64) -> [(&'static str, String); 3] {
        [
            ("etag", format!("\"{write}\"")),
            ("last-modified", "Wed, 25 Nov 2026 12:00:00 GMT".to_owned()),
            ("x-goog-generation", write.to_string()),
        ]
    }

    /// The object or the range of it that is asked for.
    pub(crate) fn get(&self, key: &str, headers: &HeaderMap) -> Response {
        let Some((bytes, write)) = self.objects.get(key) else {
            let error = "<Error><Code>NoSuchKey</Code></Error>";
            return (StatusCode::NOT_FOUND, error).into_response();
        };
        let (size, common) = (bytes.len(), self.headers(*write));
        let range = headers.get("range").and_then(|v| v.to_str().ok());
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

    /// All keys at once, or what lies directly below a prefix.
    pub(crate) fn list(&self, bucket: &str, query: &HashMap<String, String>) -> Response {
        let asked = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
        let (prefix, after, delimiter) =
            (asked("prefix"), asked("start-after"), asked("delimiter"));
        let (mut out, mut folders) = (String::new(), BTreeSet::new());
        for (key, (bytes, write)) in &self.objects {
            let Some(key) = key.strip_prefix(&format!("{bucket}/")) else {
                continue;
            };
            let Some(rest) = key.strip_prefix(prefix).filter(|_| key > after) else {
                continue;
            };
            if let Some((folder, _)) = rest.split_once(delimiter).filter(|_| !delimiter.is_empty())
            {
                folders.insert(format!("{prefix}{folder}{delimiter}"));
                continue;
            }
            let (key, size) = (escaped(key), bytes.len());
            write!(
                out,
                "<Contents><Key>{key}</Key><LastModified>2026-11-25T12:00:00.000Z</LastModified>\
                 <ETag>\"{write}\"</ETag><Size>{size}</Size></Contents>"
            )
            .unwrap();
        }
        for folder in folders {
            let folder = escaped(&folder);
            write!(
                out,
                "<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>"
            )
            .unwrap();
        }
        format!("<ListBucketResult><IsTruncated>false</IsTruncated>{out}</ListBucketResult>")
            .into_response()
    }
}
