//! OPTIONS of a Snowflake table, resolved: where the account is, who signs in and how, limits.

use std::path::Path;
use std::time::Duration;

use url::Url;

use crate::error::{Error, Result};
use crate::http::Proxy;
use crate::options::{TableOptions, parse_value};
use crate::secret::Secret;

/// Bytes of chunks that are downloaded before they are asked for: four of the largest that
/// Snowflake makes by default.
const PREFETCH_BYTES: usize = 64 << 20;
const CONNECT_TIMEOUT_SECS: u64 = 30;
/// A query request is held open by the server for up to 45 seconds.
const READ_TIMEOUT_SECS: u64 = 120;

/// How a session starts.
#[derive(Debug, Clone)]
pub(super) enum SignIn {
    Password(Secret),
    KeyPair {
        pem: Secret,
        passphrase: Option<Secret>,
    },
    OAuth(Secret),
    AccessToken(Secret),
}

/// One connection to Snowflake.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) account: String,
    pub(super) base: Url,
    pub(super) user: Option<String>,
    pub(super) sign_in: SignIn,
    pub(super) warehouse: Option<String>,
    pub(super) role: Option<String>,
    pub(super) database: Option<String>,
    pub(super) schema: Option<String>,
    pub(super) query_tag: String,
    pub(super) statement_timeout_secs: Option<u64>,
    pub(super) connect_timeout: Duration,
    pub(super) read_timeout: Duration,
    pub(super) ca_file: Option<String>,
    pub(super) proxy: Proxy,
    pub(super) prefetch_bytes: usize,
    pub(super) fold_names: bool,
    /// Rows may go through a stage.
    pub(super) may_stage: bool,
}

impl Settings {
    /// # Errors
    /// A missing or conflicting option, named.
    pub(super) fn resolve(options: &TableOptions) -> Result<Self> {
        let text = |key: &str| options.get(key).map(str::to_owned);
        let account = text("snowflake.account").ok_or_else(|| {
            Error::invalid(
                "option snowflake.account is missing; give the account identifier, such as \
                 MYORG-MYACCOUNT",
            )
        })?;
        let allow_http = match options.get("snowflake.allow_http") {
            None => false,
            Some(v) => parse_value("snowflake.allow_http", v, "true or false")?,
        };
        let base = base_url(&account, options.get("snowflake.host"), allow_http)?;
        let sign_in = sign_in(options)?;
        let user = text("snowflake.user");
        if user.is_none() && !matches!(sign_in, SignIn::OAuth(_)) {
            return Err(Error::invalid(
                "option snowflake.user is missing; give the login name",
            ));
        }
        let seconds = |key: &str| -> Result<Option<u64>> {
            let given = options.get(key);
            given.map(|v| positive(key, v, "seconds")).transpose()
        };
        let timeout = |key: &str, default: u64| -> Result<Duration> {
            Ok(Duration::from_secs(seconds(key)?.unwrap_or(default)))
        };
        let prefetch_bytes = match options.get("snowflake.prefetch_bytes") {
            None => PREFETCH_BYTES,
            Some(v) => parse_value("snowflake.prefetch_bytes", v, "a number of bytes")?,
        };
        let fold_names = match options.get("snowflake.fold_names") {
            None => true,
            Some(v) => parse_value("snowflake.fold_names", v, "true or false")?,
        };
        let may_stage = match options.get("snowflake.load") {
            None | Some("auto") => true,
            Some("bind") => false,
            Some(other) => {
                let what = "value of snowflake.load";
                return Err(Error::unknown(what, other, &["auto", "bind"]));
            }
        };
        Ok(Self {
            // In tokens the account goes without its region and in upper case.
            account: account.split('.').next().unwrap_or_default().to_uppercase(),
            base,
            user,
            sign_in,
            warehouse: text("snowflake.warehouse"),
            role: text("snowflake.role"),
            database: text("snowflake.database"),
            schema: text("snowflake.schema"),
            query_tag: text("snowflake.query_tag").unwrap_or_else(|| "casebook".into()),
            statement_timeout_secs: seconds("snowflake.statement_timeout_secs")?,
            connect_timeout: timeout("snowflake.connect_timeout_secs", CONNECT_TIMEOUT_SECS)?,
            read_timeout: timeout("snowflake.read_timeout_secs", READ_TIMEOUT_SECS)?,
            ca_file: text("tls.ca_file"),
            proxy: match options.get("snowflake.proxy") {
                Some(value) => Proxy::parse("snowflake.proxy", value)?,
                None => Proxy::Environment,
            },
            prefetch_bytes,
            fold_names,
            may_stage,
        })
    }
}

fn positive(key: &str, value: &str, unit: &str) -> Result<u64> {
    let expected = format!("a number of {unit}, at least 1");
    match parse_value(key, value, &expected)? {
        0 => Err(Error::invalid(format!(
            "option {key} is 0; expected {expected}"
        ))),
        n => Ok(n),
    }
}

fn base_url(account: &str, host: Option<&str>, allow_http: bool) -> Result<Url> {
    let text = match host {
        Some(host) if host.contains("://") => host.to_owned(),
        Some(host) => format!("https://{host}"),
        // Certificates do not allow the underscores of account names.
        None => format!(
            "https://{}.snowflakecomputing.com",
            account.to_lowercase().replace('_', "-")
        ),
    };
    let from = match host {
        Some(_) => "snowflake.host",
        None => "snowflake.account",
    };
    let bad = |why: String| {
        Error::invalid(format!(
            "option {from} makes the address '{text}', {why}; expected a host name or \
             https://HOST[:PORT]"
        ))
    };
    let url = Url::parse(&text).map_err(|e| bad(format!("which is not a URL ({e})")))?;
    if url.scheme() == "http" && !allow_http {
        return Err(bad(
            "over which the password or token would travel in clear; use https:// or say \
             'snowflake.allow_http' 'true'"
                .into(),
        ));
    }
    let bare = matches!(url.path(), "" | "/") && url.query().is_none();
    match matches!(url.scheme(), "http" | "https") && url.username().is_empty() && bare {
        true => Ok(url),
        false => Err(bad("which has more than a scheme, a host and a port".into())),
    }
}

fn sign_in(options: &TableOptions) -> Result<SignIn> {
    const WAYS: [&str; 5] = [
        "snowflake.password",
        "snowflake.private_key",
        "snowflake.private_key_path",
        "snowflake.oauth_token",
        "snowflake.access_token",
    ];
    let given: Vec<(&str, &str)> = WAYS
        .iter()
        .filter_map(|key| Some((*key, options.get(key)?)))
        .collect();
    let passphrase = options.get("snowflake.private_key_passphrase");
    let (key, value) = match given[..] {
        [one] => one,
        [] => {
            return Err(Error::invalid(format!(
                "nothing to sign in to Snowflake with; give one of {}",
                WAYS.join(", ")
            )));
        }
        _ => {
            let keys: Vec<&str> = given.iter().map(|(key, _)| *key).collect();
            return Err(Error::invalid(format!(
                "options {} are all given; keep one",
                keys.join(", ")
            )));
        }
    };
    if passphrase.is_some() && !key.starts_with("snowflake.private_key") {
        return Err(Error::invalid(
            "option snowflake.private_key_passphrase is given without a private key",
        ));
    }
    let key_pair = |pem: &str| SignIn::KeyPair {
        pem: Secret::new(pem),
        passphrase: passphrase.map(Secret::new),
    };
    Ok(match key {
        "snowflake.password" => SignIn::Password(Secret::new(value)),
        "snowflake.oauth_token" => SignIn::OAuth(Secret::new(value)),
        "snowflake.access_token" => SignIn::AccessToken(Secret::new(value)),
        "snowflake.private_key" => key_pair(value),
        _ => {
            let pem = std::fs::read_to_string(Path::new(value))
                .map_err(|e| Error::while_doing(format!("reading the private key '{value}'"), e))?;
            key_pair(&pem)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::CONNECTORS;

    fn settings(pairs: &[(&str, &str)]) -> Result<Settings> {
        let connector = CONNECTORS.iter().find(|c| c.name == "SNOWFLAKE").unwrap();
        let given = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into()));
        let options = TableOptions::parse(connector, "t", &given.collect())?;
        Settings::resolve(&options)
    }

    const USER: (&str, &str) = ("snowflake.user", "u");
    const PASSWORD: (&str, &str) = ("snowflake.password", "hunter2");

    #[test]
    fn addresses() {
        let base = |account, host: Option<&str>| {
            let mut pairs = vec![("snowflake.account", account), USER, PASSWORD];
            if host.is_some_and(|h| h.starts_with("http://127")) {
                pairs.push(("snowflake.allow_http", "true"));
            }
            pairs.extend(host.map(|h| ("snowflake.host", h)));
            settings(&pairs).map(|s| (s.base.to_string(), s.account))
        };
        let check = |account, host, url: &str, bare: &str| {
            assert_eq!(base(account, host).unwrap(), (url.into(), bare.into()));
        };
        let default = "https://my-org-acct.snowflakecomputing.com/";
        check("my_org-acct", None, default, "MY_ORG-ACCT");
        let region = "https://xy1.eu-west-1.snowflakecomputing.com/";
        check("xy1.eu-west-1", None, region, "XY1");
        let private = "a.privatelink.snowflakecomputing.com";
        check("a", Some(private), &format!("https://{private}/"), "A");
        let local = "http://127.0.0.1:9/";
        check("a", Some("http://127.0.0.1:9"), local, "A");
        let clear = base("a", Some("http://h")).unwrap_err().to_string();
        assert!(clear.contains("'snowflake.allow_http' 'true'"), "{clear}");
        let error = base("a", Some("https://h/path")).unwrap_err().to_string();
        assert!(error.contains("snowflake.host"), "{error}");
    }

    #[test]
    fn one_way_to_sign_in() {
        let account = ("snowflake.account", "a");
        let check = |pairs: &[(&str, &str)], expected: &str| {
            let error = settings(pairs).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        };
        check(&[USER, PASSWORD], "snowflake.account is missing");
        check(&[account, PASSWORD], "snowflake.user is missing");
        check(&[account, USER], "give one of snowflake.password");
        let token = ("snowflake.oauth_token", "hunter2");
        check(&[account, USER, PASSWORD, token], "keep one");
        check(
            &[account, USER, PASSWORD, ("snowflake.passwrd", "hunter2")],
            "Did you mean 'snowflake.password'?",
        );
        check(
            &[account, USER, PASSWORD, ("aws.region", "x")],
            "unknown option of SNOWFLAKE table t: 'aws.region'",
        );
        check(&[account, USER, PASSWORD, ("role", "x")], "Valid:");
        assert!(settings(&[account, token]).is_ok());
    }

    #[test]
    fn secrets_are_not_shown() {
        let all = settings(&[("snowflake.account", "a"), USER, PASSWORD]).unwrap();
        assert!(!format!("{all:?}").contains("hunter2"));
    }
}
