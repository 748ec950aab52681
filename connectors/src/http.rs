//! HTTP requests to warehouses and storages: timeouts, status checks, and retries of what may pass.
//!
//! URLs can be signed and headers hold tokens, so errors name what was asked for, never the URL.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{Certificate, Client, RequestBuilder, Response, StatusCode, header};

use crate::error::{Error, ErrorKind, Result};

/// Characters of an error's body that are shown.
const SHOWN_CHARS: usize = 500;
/// Bytes of an error's body that are read: what comes after is of no use to anybody.
const ERROR_BYTES: usize = 64 << 10;
/// Longest wait that a server may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// How often and how long a request is tried again.
#[derive(Debug, Clone)]
pub(crate) struct Retry {
    /// Attempts in all, at least 1.
    pub(crate) attempts: u32,
    /// Wait before the second attempt; doubled for each further one.
    pub(crate) first_wait: Duration,
    /// Longest wait between attempts.
    pub(crate) max_wait: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 6,
            first_wait: Duration::from_millis(250),
            max_wait: Duration::from_secs(16),
        }
    }
}

impl Retry {
    /// The wait before attempt `attempt + 2`.
    pub(crate) fn wait(&self, attempt: u32) -> Duration {
        let doubled = self.first_wait.saturating_mul(1 << attempt.min(16));
        doubled.min(self.max_wait)
    }
}

/// A client with timeouts: none of reqwest's are on by default. `read_timeout` bounds each read,
/// not the whole transfer, so that a long result is not cut off. The authorities in `ca_file` are
/// trusted as well.
pub(crate) fn client(
    connect_timeout: Duration,
    read_timeout: Duration,
    ca_file: Option<&str>,
) -> Result<Client> {
    let mut builder = Client::builder()
        .connect_timeout(connect_timeout)
        .read_timeout(read_timeout)
        .user_agent(concat!("casebook/", env!("CARGO_PKG_VERSION")));
    if let Some(file) = ca_file {
        let certificates = Certificate::from_pem_bundle(&ca_pem(file)?);
        let certificates = certificates.map_err(|e| no_certificate(file).with_source(e))?;
        for certificate in certificates {
            builder = builder.add_root_certificate(certificate);
        }
    }
    builder
        .build()
        .map_err(|e| Error::while_doing("setting up HTTP", e))
}

/// What tls.ca_file holds.
pub(crate) fn ca_pem(file: &str) -> Result<Vec<u8>> {
    let pem = std::fs::read(file)
        .map_err(|e| Error::while_doing(format!("reading the file '{file}' of tls.ca_file"), e))?;
    match memchr::memmem::find(&pem, b"-----BEGIN CERTIFICATE-----") {
        Some(_) => Ok(pem),
        None => Err(no_certificate(file)),
    }
}

pub(crate) fn no_certificate(file: &str) -> Error {
    Error::invalid(format!(
        "the file '{file}' of tls.ca_file holds no certificate in PEM form, which begins with \
         -----BEGIN CERTIFICATE-----"
    ))
}

/// Sends what `make` builds until it is answered with success. Connection failures, timeouts, 408,
/// 429 (after its Retry-After) and 5xx are tried again; `what` names the request in errors.
///
/// # Errors
/// The last failure, with the kind its status says: 401 and 403 are `Denied`, 404 is `NotFound`,
/// what was tried again is `Unavailable`, the rest `InvalidInput`.
pub(crate) async fn send(
    what: &str,
    retry: &Retry,
    make: impl Fn() -> RequestBuilder,
) -> Result<Response> {
    let mut attempt = 0;
    loop {
        let (error, asked) = match make().send().await {
            Ok(response) if response.status().is_success() => return Ok(response),
            Ok(response) => {
                let asked = retry_after(&response);
                (refused(what, response).await, asked)
            }
            Err(error) => (lost(what, error), None),
        };
        attempt += 1;
        if error.kind() != ErrorKind::Unavailable || attempt >= retry.attempts {
            return Err(error);
        }
        tokio::time::sleep(asked.unwrap_or_else(|| retry.wait(attempt - 1))).await;
    }
}

/// Waits for an answer, whatever it says: someone is there.
#[cfg(feature = "snowflake")]
pub(crate) async fn answer(
    what: &str,
    retry: &Retry,
    make: impl Fn() -> RequestBuilder,
) -> Result<()> {
    use std::error::Error as _;

    match send(what, retry, make).await {
        // A request that was lost has a cause; a refusal has none.
        Err(error) if error.source().is_some() => Err(error),
        _ => Ok(()),
    }
}

/// The whole body of what `make` builds, at most `max_bytes` of it; a body cut short is tried
/// again.
pub(crate) async fn fetch(
    what: &str,
    retry: &Retry,
    max_bytes: usize,
    make: impl Fn() -> RequestBuilder,
) -> Result<Bytes> {
    let mut attempt = 0;
    loop {
        let error = match body(what, max_bytes, send(what, retry, &make).await?).await {
            Ok(bytes) => return Ok(bytes),
            Err(error) => error,
        };
        attempt += 1;
        if error.kind() != ErrorKind::Unavailable || attempt >= retry.attempts {
            return Err(error);
        }
        tokio::time::sleep(retry.wait(attempt - 1)).await;
    }
}

async fn body(what: &str, max_bytes: usize, mut response: Response) -> Result<Bytes> {
    let mut out = Vec::new();
    while let Some(part) = response.chunk().await.map_err(|e| lost(what, e))? {
        if out.len() + part.len() > max_bytes {
            return Err(Error::new(
                ErrorKind::Exhausted,
                format!("{what}: the answer is larger than {max_bytes} bytes"),
            ));
        }
        out.extend_from_slice(&part);
    }
    Ok(out.into())
}

/// The wait that the server asks for, in seconds (RFC 9110, 10.2.3; dates are not used by the
/// systems we know).
fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.headers().get(header::RETRY_AFTER)?;
    let seconds: u64 = value.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}

async fn refused(what: &str, mut response: Response) -> Error {
    let status = response.status();
    let kind = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ErrorKind::Denied,
        StatusCode::NOT_FOUND | StatusCode::GONE => ErrorKind::NotFound,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => ErrorKind::Unavailable,
        s if s.is_server_error() => ErrorKind::Unavailable,
        _ => ErrorKind::InvalidInput,
    };
    let mut said = vec![];
    while said.len() < ERROR_BYTES
        && let Ok(Some(part)) = response.chunk().await
    {
        said.extend_from_slice(&part[..part.len().min(ERROR_BYTES - said.len())]);
    }
    let said = String::from_utf8_lossy(&said);
    let said: String = said.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown: String = said.chars().take(SHOWN_CHARS).collect();
    Error::new(
        kind,
        format!("{what}: the server answered {status}: {shown}"),
    )
}

/// A request without an answer.
fn lost(what: &str, error: reqwest::Error) -> Error {
    let error = error.without_url();
    let kind = match error.is_builder() {
        true => ErrorKind::InvalidInput,
        false => ErrorKind::Unavailable,
    };
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    Error::new(kind, format!("{what}: {text}")).with_source(error)
}
