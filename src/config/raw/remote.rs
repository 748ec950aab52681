//! The keys of `[models.NAME]` that are of an endpoint.

use std::collections::BTreeMap;
use std::path::PathBuf;

use casebook_connectors::Secret;

use super::super::document::{Fault, Section};
use super::toml_value;
use super::value::{RawValue, values};

/// Most calls at once, and seconds of a call.
const MOST_CALLS: usize = 4096;
const MOST_SECS: usize = 1_000_000;

/// What is said of an endpoint.
#[derive(Default)]
pub(in crate::config) struct RawRemote {
    /// The model's name at its server
    pub(in crate::config) model: Option<String>,
    /// Sent as a bearer token
    pub(in crate::config) api_key: Option<Secret>,
    /// Which state of the model it is; absent: as its server says
    pub(in crate::config) revision: Option<String>,
    /// Headers of every request
    pub(in crate::config) headers: BTreeMap<String, RawValue>,
    /// Parameters behind the URL
    pub(in crate::config) query: BTreeMap<String, RawValue>,
    /// Further members of the request
    pub(in crate::config) body: toml::Table,
    /// Parameters of sampling that are left out
    pub(in crate::config) omit: Option<Vec<String>>,
    /// A URL, or none
    pub(in crate::config) proxy: Option<Secret>,
    /// `tls.ca_file`
    pub(in crate::config) ca_file: Option<PathBuf>,
    /// The model's tokenizer.json, or its directory
    pub(in crate::config) tokenizer: Option<PathBuf>,
    /// Tokens of prompt and reply together
    pub(in crate::config) max_context: Option<usize>,
    /// Calls at once at most
    pub(in crate::config) max_concurrency: Option<usize>,
    /// Longest time of one try
    pub(in crate::config) request_timeout_secs: Option<usize>,
    /// Longest time of all tries and the waits between them
    pub(in crate::config) timeout_secs: Option<usize>,
    /// The file that keeps replies
    pub(in crate::config) replies: Option<PathBuf>,
    /// http:// to another machine
    pub(in crate::config) allow_http: Option<bool>,
    /// The keys that are given
    pub(in crate::config) given: Vec<&'static str>,
}

impl RawRemote {
    pub(in crate::config) const KEYS: &[&str] = &[
        "model",
        "api_key",
        "revision",
        "headers",
        "query",
        "body",
        "omit",
        "proxy",
        "tls",
        "tokenizer",
        "max_context",
        "max_concurrency",
        "request_timeout_secs",
        "timeout_secs",
        "replies",
        "allow_http",
    ];

    pub(super) fn read(section: &Section<'_>) -> Result<Self, Fault> {
        let secret = |key: &str| Ok::<_, Fault>(section.text(key)?.map(Secret::new));
        let secs = |key: &str| section.count(key, 1..=MOST_SECS, "eleven days");
        let mut body = toml::Table::new();
        if let Some(node) = section.keys().get("body") {
            let below = Section::open("body".to_owned(), node)?;
            for (key, node) in below.keys() {
                body.insert(key.clone(), toml_value(&below, key, node)?);
            }
        }
        let tls = section.below("tls", &["ca_file"])?;
        let given = Self::KEYS.iter().copied();
        Ok(Self {
            model: section.text("model")?,
            api_key: secret("api_key")?,
            revision: section.text("revision")?,
            headers: values(section, "headers")?,
            query: values(section, "query")?,
            body,
            omit: section.texts("omit")?,
            proxy: secret("proxy")?,
            ca_file: match tls {
                Some(tls) => tls.path("ca_file")?,
                None => None,
            },
            tokenizer: section.path("tokenizer")?,
            max_context: section.count("max_context", 128..=1 << 24, "sixteen million tokens")?,
            max_concurrency: section.count(
                "max_concurrency",
                1..=MOST_CALLS,
                "each holds a connection",
            )?,
            request_timeout_secs: secs("request_timeout_secs")?,
            timeout_secs: secs("timeout_secs")?,
            replies: section.path("replies")?,
            allow_http: section.flag("allow_http")?,
            given: given
                .filter(|key| section.keys().contains_key(*key))
                .collect(),
        })
    }
}
