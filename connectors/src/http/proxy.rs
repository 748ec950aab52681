//! Which proxy requests go through: the environment's, one that is named, or none.
//!
//! HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY are read by reqwest. One that is named stands for
//! all requests of its connection, whatever NO_PROXY says.

use reqwest::{ClientBuilder, Url};

use crate::error::{Error, Result};
use crate::secret::Secret;

/// The word for no proxy.
const NONE: &str = "none";

/// Which proxy requests go through. Debug shows no URL: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Proxy {
    /// As the environment says.
    #[default]
    Environment,
    /// None, whatever the environment says.
    None,
    /// This one.
    At(Secret),
}

impl Proxy {
    /// What `value` of the option `key` names. It is not shown.
    ///
    /// # Errors
    /// Neither `none` nor an http:// or https:// URL with a host.
    pub fn parse(key: &str, value: &str) -> Result<Self> {
        if value == NONE {
            return Ok(Self::None);
        }
        let wrong = |why: &str| {
            Error::invalid(format!(
                "option {key}: {why}; expected a URL such as http://proxy.example.com:3128 (with \
                 user:password@ if it asks for them), or none"
            ))
        };
        let url = Url::parse(value).map_err(|e| wrong(&e.to_string()))?;
        match (url.scheme(), url.host_str()) {
            ("http" | "https", Some(host)) if !host.is_empty() => Ok(Self::At(Secret::new(value))),
            ("http" | "https", _) => Err(wrong("it has no host")),
            (other, _) => Err(wrong(&format!("its scheme is {other}"))),
        }
    }

    /// `builder` with this proxy.
    pub(super) fn apply(&self, builder: ClientBuilder) -> Result<ClientBuilder> {
        match self {
            Self::Environment => Ok(builder),
            Self::None => Ok(builder.no_proxy()),
            Self::At(url) => {
                // The library's error may quote the URL.
                let proxy = reqwest::Proxy::all(url.expose())
                    .map_err(|_| Error::invalid("the proxy is no URL"))?;
                Ok(builder.proxy(proxy))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_a_url_or_none() {
        let parse = |value: &str| Proxy::parse("proxy", value);
        assert_eq!(parse("none").unwrap(), Proxy::None);
        for good in ["http://proxy:3128", "https://u:hunter2@proxy.example.com"] {
            let proxy = parse(good).unwrap();
            assert_eq!(proxy, Proxy::At(Secret::new(good)));
            assert!(!format!("{proxy:?}").contains("hunter2"));
        }
        for (bad, part) in [
            ("proxy:3128", "scheme is proxy"),
            ("hunter2", "relative URL"),
            ("", "relative URL"),
            ("socks5://hunter2", "scheme is socks5"),
            ("http://", "empty host"),
            ("None", "relative URL"),
        ] {
            let error = parse(bad).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("or none"), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
