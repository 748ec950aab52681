//! OPTIONS of STORED AS DATABRICKS: what they mean and which go together.

use std::collections::HashMap;
use std::time::Duration;

use url::Url;

use crate::connector::Connector;
use crate::error::{Error, Result};
use crate::http::Proxy;
use crate::options::{TableOptions, parse_value};
use crate::secret::Secret;
use crate::sql::spool::SpoolLimits;
use crate::write::WriteOptions;

/// Valid options of one table.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) host: Url,
    pub(super) auth: Auth,
    pub(super) warehouse_id: Option<String>,
    pub(super) read: ReadMode,
    pub(super) connect_timeout: Duration,
    pub(super) read_timeout: Duration,
    pub(super) query_timeout: Option<Duration>,
    pub(super) ca_file: Option<String>,
    pub(super) proxy: Proxy,
    /// Tables may lie on the disk of this machine.
    pub(super) allow_local_files: bool,
    /// Name of a declared schema.
    pub(super) create: Option<String>,
    /// What INSERT obeys.
    pub(super) write: WriteOptions,
    /// Where rows of a warehouse wait for a slow statement.
    pub(super) spool: SpoolLimits,
    /// Which version is read.
    pub(super) version: Option<Version>,
    /// Among them `aws.*`, `azure.*` and `gcp.*`: endpoints and regions of the vended stores.
    pub(super) options: TableOptions,
}

/// Who asks.
#[derive(Debug, Clone)]
pub(super) enum Auth {
    /// A personal access token.
    Token(Secret),
    /// A service principal, whose tokens are fetched.
    Machine { id: String, secret: Secret },
}

/// The way to the rows of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadMode {
    Auto,
    Files,
    Warehouse,
}

/// Time travel, as typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Version {
    Number(u64),
    Timestamp(String),
}

impl Settings {
    /// The settings in `given`, the OPTIONS of `table`.
    pub(super) fn parse(
        connector: &'static Connector,
        table: &str,
        given: &HashMap<String, String>,
    ) -> Result<Self> {
        let options = TableOptions::parse(connector, table, given)?;
        let get = |key: &str| options.get(key).map(str::to_owned);
        let allow_http = match options.get("databricks.allow_http") {
            Some(value) => parse_value("databricks.allow_http", value, "true or false")?,
            None => false,
        };
        let host = options.get("databricks.host").ok_or_else(|| {
            Error::invalid(format!(
                "DATABRICKS table {table} needs the option databricks.host, the host name of the \
                 workspace such as dbc-a1b2c3d4-e5f6.cloud.databricks.com"
            ))
        })?;
        let version = match (options.get("delta.version"), get("delta.timestamp")) {
            (Some(_), Some(_)) => {
                return Err(Error::invalid(
                    "options delta.version and delta.timestamp are both given; keep one",
                ));
            }
            (Some(v), None) => Some(Version::Number(parse_value(
                "delta.version",
                v,
                "a version number",
            )?)),
            (None, Some(time)) => Some(Version::Timestamp(checked_time(time)?)),
            (None, None) => None,
        };
        let settings = Self {
            host: parse_host(host, allow_http)?,
            auth: parse_auth(table, &options)?,
            warehouse_id: get("databricks.warehouse_id"),
            read: parse_read(options.get("databricks.read"))?,
            connect_timeout: seconds(&options, "databricks.connect_timeout_secs")?
                .unwrap_or(Duration::from_secs(10)),
            read_timeout: seconds(&options, "databricks.read_timeout_secs")?
                .unwrap_or(Duration::from_secs(60)),
            query_timeout: seconds(&options, "databricks.query_timeout_secs")?,
            ca_file: get("tls.ca_file"),
            proxy: match options.get("databricks.proxy") {
                Some(value) => Proxy::parse("databricks.proxy", value)?,
                None => Proxy::Environment,
            },
            allow_local_files: match options.get("databricks.allow_local_files") {
                Some(value) => parse_value("databricks.allow_local_files", value, "true or false")?,
                None => false,
            },
            create: get("table.create"),
            write: WriteOptions::parse(&options)?,
            spool: SpoolLimits::parse(connector, &options)?,
            version,
            options: TableOptions {
                store: options.store,
                ..TableOptions::default()
            },
        };
        if settings.read == ReadMode::Warehouse && settings.warehouse_id.is_none() {
            return Err(Error::invalid(
                "option databricks.read is 'warehouse', which needs databricks.warehouse_id",
            ));
        }
        Ok(settings)
    }
}

/// A time that can be written into a statement: what it means is left to those who read it.
fn checked_time(time: String) -> Result<String> {
    let fits = |c: char| c.is_ascii_digit() || "-:.+TZ ".contains(c);
    match time.starts_with(|c: char| c.is_ascii_digit()) && time.chars().all(fits) {
        true => Ok(time),
        false => Err(Error::invalid(format!(
            "option delta.timestamp is '{time}'; expected an RFC 3339 time such as \
             2026-01-31T00:00:00Z"
        ))),
    }
}

/// A host name or URL, without a path.
fn parse_host(host: &str, allow_http: bool) -> Result<Url> {
    let wrong = |why: &str| {
        Error::invalid(format!(
            "option databricks.host: {why}; expected a host name such as \
             dbc-a1b2c3d4-e5f6.cloud.databricks.com"
        ))
    };
    let text = match host.contains("://") {
        true => host.to_owned(),
        false => format!("https://{host}"),
    };
    // The text is not shown: a user may have put a token into it.
    let mut url = Url::parse(&text).map_err(|e| wrong(&e.to_string()))?;
    let local = matches!(url.host_str(), Some("127.0.0.1" | "localhost" | "[::1]"));
    match url.scheme() {
        "https" => {}
        "http" if allow_http || local => {}
        "http" => {
            return Err(wrong(
                "over http:// the token would travel in clear; use https:// or say \
                 'databricks.allow_http' 'true'",
            ));
        }
        other => return Err(wrong(&format!("the scheme is {other}"))),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("it holds a user or password"));
    }
    url.set_path("");
    url.set_query(None);
    url.set_fragment(None);
    Ok(url)
}

fn parse_auth(table: &str, options: &TableOptions) -> Result<Auth> {
    let token = options.get("databricks.token");
    let id = options.get("databricks.client_id");
    let secret = options.get("databricks.client_secret");
    match (token, id, secret) {
        (Some(token), None, None) => Ok(Auth::Token(Secret::new(token))),
        (None, Some(id), Some(secret)) => Ok(Auth::Machine {
            id: id.to_owned(),
            secret: Secret::new(secret),
        }),
        (Some(_), ..) => Err(Error::invalid(format!(
            "DATABRICKS table {table} has both databricks.token and databricks.client_id or \
             client_secret; keep one way to sign in"
        ))),
        (None, ..) => Err(Error::invalid(format!(
            "DATABRICKS table {table} needs either databricks.token or both \
             databricks.client_id and databricks.client_secret"
        ))),
    }
}

fn parse_read(value: Option<&str>) -> Result<ReadMode> {
    match value {
        None | Some("auto") => Ok(ReadMode::Auto),
        Some("files") => Ok(ReadMode::Files),
        Some("warehouse") => Ok(ReadMode::Warehouse),
        Some(other) => Err(Error::unknown(
            "value of databricks.read",
            other,
            &["auto", "files", "warehouse"],
        )),
    }
}

fn seconds(options: &TableOptions, key: &str) -> Result<Option<Duration>> {
    let Some(value) = options.get(key) else {
        return Ok(None);
    };
    let wanted = "a number of seconds above 0";
    match parse_value(key, value, wanted)? {
        0 => Err(Error::invalid(format!(
            "option {key} is 0; expected {wanted}"
        ))),
        seconds => Ok(Some(Duration::from_secs(seconds))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<Settings> {
        let given = pairs
            .iter()
            .map(|(k, v)| ((*k).into(), (*v).into()))
            .collect();
        Settings::parse(&super::super::CONNECTOR, "t", &given)
    }

    #[test]
    fn one_way_to_sign_in() {
        let host = ("databricks.host", "x.cloud.databricks.com");
        let token = ("databricks.token", "dapi-hidden");
        let settings = parse(&[host, token]).unwrap();
        assert_eq!(settings.host.as_str(), "https://x.cloud.databricks.com/");
        assert!(!format!("{settings:?}").contains("hidden"));
        let check = |pairs: &[(&str, &str)], expected: &str| {
            let error = parse(pairs).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("hidden"), "{error}");
        };
        check(&[token], "databricks.host");
        check(&[host], "either databricks.token or both");
        check(&[host, ("databricks.client_id", "a")], "either");
        check(&[host, token, ("databricks.client_id", "a")], "keep one");
        check(&[host, token, ("databricks.tokn", "a")], "Did you mean");
        check(&[host, token, ("format.delimiter", "a")], "unknown option");
        check(
            &[host, token, ("databricks.read", "file")],
            "Did you mean 'files'",
        );
        check(
            &[host, token, ("databricks.read", "warehouse")],
            "needs databricks.warehouse_id",
        );
        check(&[host, token, ("delta.timestamp", "1' OR 1")], "RFC 3339");
        check(
            &[host, token, ("databricks.read_timeout_secs", "0")],
            "above 0",
        );
    }

    #[test]
    fn tokens_travel_encrypted_unless_asked() {
        let token = ("databricks.token", "t");
        let over = |url: &str, more: &[(&str, &str)]| {
            let mut pairs = vec![("databricks.host", url), token];
            pairs.extend(more);
            parse(&pairs)
        };
        assert!(over("http://127.0.0.1:8080", &[]).is_ok());
        assert!(over("http://10.0.0.1", &[]).is_err());
        assert!(over("http://10.0.0.1", &[("databricks.allow_http", "true")]).is_ok());
        assert!(over("https://u:p@x.com", &[]).is_err());
    }
}
