//! What `[models.NAME]` says of a model behind an endpoint.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use casebook_connectors::Secret;
use casebook_connectors::http::Proxy;
use reqwest::Url;
use reqwest::header::{HeaderName, HeaderValue};
use serde_json::{Map, Value};

use super::request::{PARAMETERS, RESERVED};

/// What the source of such a model begins with.
pub(crate) const SCHEME: &str = "openai:";
/// Calls at once at most, unless said otherwise.
pub(crate) const MAX_CONCURRENCY: usize = 32;
/// Longest time of one try, unless said otherwise.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);
/// Longest time of all tries and the waits between them, unless said otherwise.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(600);

/// A model behind an endpoint that speaks the chat completions API. Debug shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub struct RemoteSpec {
    base: Url,
    model: String,
    /// Sent as a bearer token.
    pub api_key: Option<Secret>,
    /// Which state of the model this is; absent: the one that its server says to have.
    pub revision: Option<String>,
    /// Headers of every request.
    pub headers: Vec<(String, Secret)>,
    /// Parameters behind the URL of every request.
    pub query: Vec<(String, Secret)>,
    /// Members of the request beside those that Casebook sets.
    pub body: Map<String, Value>,
    /// Parameters of sampling that are left out, because the server does not take them.
    pub omit: Vec<String>,
    /// Which proxy stands between.
    pub proxy: Proxy,
    /// A file of certificates of authorities that are trusted as well.
    pub ca_file: Option<PathBuf>,
    /// The model's tokenizer.json; absent: tokens are estimated.
    pub tokenizer: Option<PathBuf>,
    /// Tokens of prompt and reply together; absent: what the server says.
    pub max_context: Option<usize>,
    /// Calls at once at most.
    pub max_concurrency: usize,
    /// Longest time of one try.
    pub request_timeout: Duration,
    /// Longest time of all tries and the waits between them.
    pub timeout: Duration,
    /// The file that keeps replies; absent: a job's own.
    pub replies: Option<PathBuf>,
    /// Documents may travel in clear to another machine.
    pub allow_http: bool,
}

impl RemoteSpec {
    /// The model called `model` at `source`, `openai:https://host/v1`.
    ///
    /// # Errors
    /// What is wrong with the source, in words that do not quote it.
    pub fn new(source: &str, model: &str) -> Result<Self, String> {
        let url = source.strip_prefix(SCHEME).unwrap_or(source);
        let wrong =
            |why: &str| format!("source {why}; expected a URL such as \"openai:https://host/v1\"");
        let mut base = Url::parse(url).map_err(|e| wrong(&format!("has no URL ({e})")))?;
        match base.scheme() {
            "http" | "https" => {}
            _ => return Err(wrong("is neither https:// nor http://")),
        }
        if !base.username().is_empty() || base.password().is_some() {
            return Err(wrong("holds a user or password, which belong into headers"));
        }
        if base.query().is_some() || base.fragment().is_some() {
            return Err(wrong("has a query, which belongs into query"));
        }
        let path = base.path().trim_end_matches('/');
        let path = path.strip_suffix("/chat/completions").unwrap_or(path);
        let path = path.to_owned();
        base.set_path(&path);
        if model.trim().is_empty() {
            return Err("model is empty; name it as its server does".to_owned());
        }
        Ok(Self {
            base,
            model: model.to_owned(),
            api_key: None,
            revision: None,
            headers: vec![],
            query: vec![],
            body: Map::new(),
            omit: vec![],
            proxy: Proxy::Environment,
            ca_file: None,
            tokenizer: None,
            max_context: None,
            max_concurrency: MAX_CONCURRENCY,
            request_timeout: REQUEST_TIMEOUT,
            timeout: TIMEOUT,
            replies: None,
            allow_http: false,
        })
    }

    /// Refuses what cannot be sent, in words that quote no value.
    ///
    /// # Errors
    /// The key and what is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        let local = matches!(
            self.base.host_str(),
            Some("127.0.0.1" | "localhost" | "[::1]")
        );
        if self.base.scheme() == "http" && !local && !self.allow_http {
            return Err(
                "source is http://, over which documents and keys travel in clear; use \
                        https://, or say allow_http = true"
                    .to_owned(),
            );
        }
        if let Some(key) = &self.api_key
            && (key.expose().trim().is_empty()
                || HeaderValue::from_str(&format!("Bearer {}", key.expose())).is_err())
        {
            return Err(
                "api_key is empty, or holds a line break or another character that a \
                        header cannot have"
                    .to_owned(),
            );
        }
        for (name, value) in &self.headers {
            let is_header = HeaderName::from_bytes(name.as_bytes()).is_ok();
            if !is_header || HeaderValue::from_str(value.expose()).is_err() {
                return Err(
                    "headers: a name or a value has a character that a header cannot \
                            have"
                        .to_owned(),
                );
            }
            if self.api_key.is_some() && name.eq_ignore_ascii_case("authorization") {
                return Err("has both api_key and the header authorization; keep one".to_owned());
            }
        }
        if let Some(name) = self
            .body
            .keys()
            .find(|key| RESERVED.contains(&key.as_str()))
        {
            return Err(format!(
                "body sets '{name}', which Casebook sets: the profile has sampling and budgets, \
                 and omit leaves a parameter out"
            ));
        }
        let is_unknown = |name: &String| !PARAMETERS.contains(&name.as_str());
        if self.omit.iter().any(is_unknown) {
            return Err(format!(
                "omit names an unknown parameter. Valid: {}.",
                PARAMETERS.join(", ")
            ));
        }
        if self.request_timeout > self.timeout {
            return Err(
                "request_timeout_secs is more than timeout_secs, which bounds all tries of a call"
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// The model's name, as its server has it.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Where documents go: the host, and the port if it is not the usual one.
    pub fn host(&self) -> String {
        let host = self.base.host_str().unwrap_or_default();
        match self.base.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }

    /// The address of `path` below the source.
    pub(super) fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        let path = format!("{}/{path}", self.base.path().trim_end_matches('/'));
        url.set_path(&path);
        if !self.query.is_empty() {
            let pairs = self.query.iter().map(|(k, v)| (k.as_str(), v.expose()));
            url.query_pairs_mut().extend_pairs(pairs);
        }
        url
    }

    /// Hash over what decides the answers: never where the server is, or who asks.
    pub(super) fn digest(&self, revision: Option<&str>) -> String {
        let mut omit = self.omit.clone();
        omit.sort();
        let all = serde_json::json!(["remote", self.model, revision, self.body, omit]);
        blake3::hash(all.to_string().as_bytes()).to_hex()[..32].to_owned()
    }

    /// What no message may hold.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &Secret> {
        let proxy = match &self.proxy {
            Proxy::At(url) => Some(url),
            _ => None,
        };
        let named = self.headers.iter().chain(&self.query);
        let named = named.filter(|(name, _)| is_secret(name));
        self.api_key
            .iter()
            .chain(named.map(|(_, value)| value))
            .chain(proxy)
    }
}

/// True if a header or a parameter of this name signs in.
fn is_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    let words = [
        "key", "auth", "token", "secret", "cookie", "sig", "password", "code",
    ];
    words.iter().any(|word| name.contains(word))
}

impl fmt::Debug for RemoteSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteSpec")
            .field("base", &self.base.as_str())
            .field("model", &self.model)
            .field("api_key", &self.api_key)
            .field("revision", &self.revision)
            .field("headers", &self.headers)
            .field("query", &self.query)
            .field("body", &self.body.keys().collect::<Vec<_>>())
            .field("omit", &self.omit)
            .field("proxy", &self.proxy)
            .field("ca_file", &self.ca_file)
            .field("tokenizer", &self.tokenizer)
            .field("max_context", &self.max_context)
            .field("max_concurrency", &self.max_concurrency)
            .field("request_timeout", &self.request_timeout)
            .field("timeout", &self.timeout)
            .field("replies", &self.replies)
            .field("allow_http", &self.allow_http)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(source: &str) -> RemoteSpec {
        RemoteSpec::new(source, "m").unwrap()
    }

    #[test]
    fn a_source_is_a_url_without_secrets() {
        for (source, url, host) in [
            (
                "openai:https://host/v1",
                "https://host/v1/chat/completions",
                "host",
            ),
            (
                "openai:https://host/v1/",
                "https://host/v1/chat/completions",
                "host",
            ),
            (
                "openai:https://host/v1/chat/completions",
                "https://host/v1/chat/completions",
                "host",
            ),
            (
                "openai:https://host",
                "https://host/chat/completions",
                "host",
            ),
            (
                "openai:http://localhost:8000/v1",
                "http://localhost:8000/v1/chat/completions",
                "localhost:8000",
            ),
        ] {
            let spec = spec(source);
            assert_eq!(spec.url("chat/completions").as_str(), url);
            assert_eq!(spec.host(), host);
            spec.check().unwrap();
        }
        for (source, part) in [
            ("openai:", "has no URL"),
            ("openai:host/v1", "has no URL"),
            ("openai:ftp://host", "neither https://"),
            ("openai:https://u:hunter2@host/v1", "user or password"),
            ("openai:https://host/v1?key=hunter2", "belongs into query"),
        ] {
            let error = RemoteSpec::new(source, "m").unwrap_err();
            assert!(
                error.contains(part) && !error.contains("hunter2"),
                "{error}"
            );
        }
        assert!(RemoteSpec::new("openai:https://h", " ").is_err());
    }

    #[test]
    fn what_cannot_be_sent_is_refused_without_a_word_of_it() {
        let refused = |change: fn(&mut RemoteSpec), part: &str| {
            let mut spec = spec("openai:https://host/v1");
            change(&mut spec);
            let error = spec.check().unwrap_err();
            assert!(
                error.contains(part) && !error.contains("hunter2"),
                "{error}"
            );
        };
        refused(|s| s.api_key = Some(Secret::new("hunter2\n")), "api_key");
        refused(|s| s.api_key = Some(Secret::new(" ")), "api_key");
        refused(
            |s| s.headers = vec![("a b".into(), Secret::new("hunter2"))],
            "headers",
        );
        refused(
            |s| s.headers = vec![("a".into(), Secret::new("hunter2\r"))],
            "headers",
        );
        refused(
            |s| {
                s.api_key = Some(Secret::new("x"));
                s.headers = vec![("Authorization".into(), Secret::new("hunter2"))];
            },
            "keep one",
        );
        refused(
            |s| _ = s.body.insert("messages".into(), "hunter2".into()),
            "'messages'",
        );
        refused(|s| s.omit = vec!["hunter2".into()], "Valid: temperature");
        refused(
            |s| s.timeout = Duration::from_secs(1),
            "request_timeout_secs",
        );
        let open = spec("openai:http://10.0.0.1:8000/v1");
        assert!(open.check().unwrap_err().contains("allow_http"));
        RemoteSpec {
            allow_http: true,
            ..open
        }
        .check()
        .unwrap();
    }

    #[test]
    fn identity_is_the_model_and_not_the_way_to_it() {
        let one = spec("openai:https://host/v1");
        let digest = one.digest(Some("r1"));
        let other = RemoteSpec {
            api_key: Some(Secret::new("k")),
            headers: vec![("x".into(), Secret::new("y"))],
            query: vec![("api-version".into(), Secret::new("y"))],
            max_concurrency: 1,
            ..spec("openai:https://another/v2")
        };
        assert_eq!(other.digest(Some("r1")), digest);
        assert_ne!(one.digest(Some("r2")), digest);
        assert_ne!(one.digest(None), digest);
        let mut thinking = one.clone();
        thinking
            .body
            .insert("reasoning_effort".into(), "low".into());
        assert_ne!(thinking.digest(Some("r1")), digest);
        let omitting = RemoteSpec {
            omit: vec!["temperature".into()],
            ..one
        };
        assert_ne!(omitting.digest(Some("r1")), digest);
        let shown = format!("{other:?}");
        assert!(
            !shown.contains("\"k\"") && !shown.contains("\"y\""),
            "{shown}"
        );
    }
}
