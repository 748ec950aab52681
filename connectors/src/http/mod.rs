//! HTTP requests to warehouses and storages: timeouts, status checks, and retries of what may pass.
//!
//! URLs can be signed and headers hold tokens, so errors name what was asked for, never the URL; and
//! no request follows a redirect to another server, to which its token or its body would go along.

mod client;
mod proxy;

use std::time::Duration;

use bytes::Bytes;
use reqwest::{RequestBuilder, Response, StatusCode, header};

use crate::error::{Error, ErrorKind, Result};

pub use crate::error::said;
#[cfg(any(feature = "s3", feature = "azure", feature = "gcs"))]
pub(crate) use client::store_options;
pub use client::{ClientSettings, client};
pub use proxy::Proxy;

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
    /// For requests that carry rows which were hours in the making: an outage of some four minutes
    /// is waited for.
    #[cfg(any(feature = "snowflake", feature = "databricks"))]
    pub(crate) fn patient() -> Self {
        Self {
            attempts: 20,
            ..Self::default()
        }
    }

    /// The wait before attempt `attempt + 2`.
    pub(crate) fn wait(&self, attempt: u32) -> Duration {
        let doubled = self.first_wait.saturating_mul(1 << attempt.min(16));
        doubled.min(self.max_wait)
    }
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
    again(retry, || once(what, &make)).await
}

/// A failure, and the wait that the server asked for.
type Failed = (Error, Option<Duration>);

/// Does `ask` until it succeeds, or fails in a way that does not pass, or too often.
async fn again<T, F>(retry: &Retry, ask: impl Fn() -> F) -> Result<T>
where
    F: Future<Output = Result<T, Failed>>,
{
    let mut attempt = 0;
    loop {
        let (error, asked) = match ask().await {
            Ok(done) => return Ok(done),
            Err(failed) => failed,
        };
        attempt += 1;
        if error.kind() != ErrorKind::Unavailable || attempt >= retry.attempts {
            return Err(error);
        }
        tokio::time::sleep(asked.unwrap_or_else(|| retry.wait(attempt - 1))).await;
    }
}

/// Sends what `make` builds, once.
async fn once(what: &str, make: &impl Fn() -> RequestBuilder) -> Result<Response, Failed> {
    match make().send().await {
        Ok(response) if response.status().is_success() => Ok(response),
        Ok(response) => Err(refused(what, response).await),
        Err(error) => Err((lost(what, error), None)),
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
    let make = &make;
    let whole = || async move {
        let response = once(what, make).await?;
        let bytes = body(what, max_bytes, response).await;
        bytes.map_err(|error| (error, None))
    };
    again(retry, whole).await
}

/// The body of `response`, at most `max_bytes` of it.
///
/// # Errors
/// A body that is cut short (`Unavailable`) or longer.
pub async fn body(what: &str, max_bytes: usize, mut response: Response) -> Result<Bytes> {
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

/// An answer that is no success.
#[derive(Debug)]
pub struct Refusal {
    /// Its status.
    pub status: StatusCode,
    /// The wait that the server asks for.
    pub retry_after: Option<Duration>,
    /// The beginning of its body.
    pub body: String,
    /// Where a redirect that was not followed leads, in words; else empty.
    pub leads_to: String,
}

impl Refusal {
    /// Reads what `response` says, which is no success.
    pub async fn read(mut response: Response) -> Self {
        let mut body = vec![];
        while body.len() < ERROR_BYTES
            && let Ok(Some(part)) = response.chunk().await
        {
            body.extend_from_slice(&part[..part.len().min(ERROR_BYTES - body.len())]);
        }
        Self {
            status: response.status(),
            retry_after: retry_after(&response),
            body: String::from_utf8_lossy(&body).into_owned(),
            leads_to: to_another_host(&response),
        }
    }

    /// What the caller can do; only `Unavailable` may pass by itself.
    pub fn kind(&self) -> ErrorKind {
        match self.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ErrorKind::Denied,
            StatusCode::NOT_FOUND | StatusCode::GONE => ErrorKind::NotFound,
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => ErrorKind::Unavailable,
            s if s.is_server_error() => ErrorKind::Unavailable,
            _ => ErrorKind::InvalidInput,
        }
    }
}

async fn refused(what: &str, response: Response) -> Failed {
    let refusal = Refusal::read(response).await;
    let message = format!(
        "{what}: the server answered {}{}: {}",
        refusal.status,
        refusal.leads_to,
        said(&refusal.body)
    );
    (Error::new(refusal.kind(), message), refusal.retry_after)
}

/// Where a refused redirect leads, for errors; nothing of other answers.
pub(crate) fn to_another_host(response: &Response) -> String {
    let to = response.headers().get(header::LOCATION);
    let to = to.filter(|_| response.status().is_redirection());
    let to = to.and_then(|to| response.url().join(to.to_str().ok()?).ok());
    match to {
        None => String::new(),
        // Neither path nor query: they may be signed.
        Some(to) => format!(
            ", which leads to {}, where nothing is sent on; if that is the right server, name it",
            to.origin().ascii_serialization()
        ),
    }
}

/// A request without an answer; `what` names it.
pub fn lost(what: &str, error: reqwest::Error) -> Error {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    // Waiting changes no certificate.
    let kind = match error.is_builder() || is_untrusted(&text) {
        true => ErrorKind::InvalidInput,
        false => ErrorKind::Unavailable,
    };
    let text = with_advice(text);
    Error::new(kind, format!("{what}: {text}")).with_source(error)
}

/// True if `text` says that a server's certificate is not accepted.
pub(crate) fn is_untrusted(text: &str) -> bool {
    text.contains("invalid peer certificate") || text.contains("UnknownIssuer")
}

/// `text`, and what to do where it says that nobody vouches for the server.
pub(crate) fn with_advice(text: String) -> String {
    match text.contains("UnknownIssuer") {
        true => format!(
            "{text}; no authority that is trusted here vouches for the server: if your company \
             has one of its own, name the file of its certificate in tls.ca_file"
        ),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    /// A server that reads the head of each request and lets `answer` write what it likes.
    fn server(answer: impl Fn(&str, &mut TcpStream) + Send + 'static) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut head = vec![];
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                    head.push(byte[0]);
                }
                answer(&String::from_utf8_lossy(&head), &mut stream);
            }
        });
        url
    }

    fn settings() -> ClientSettings<'static> {
        ClientSettings {
            connect_timeout: LONG,
            read_timeout: LONG,
            ..ClientSettings::default()
        }
    }

    fn once() -> Retry {
        Retry {
            attempts: 1,
            ..Retry::default()
        }
    }

    #[tokio::test]
    async fn of_a_hundred_megabytes_of_error_little_is_read_and_less_is_said() {
        const ALL: usize = 100 << 20;
        let sent = Arc::new(AtomicUsize::new(0));
        let (over, counted) = (Arc::new(tokio::sync::Notify::new()), Arc::clone(&sent));
        let done = Arc::clone(&over);
        let url = server(move |_, stream| {
            let head = format!("HTTP/1.1 400 Bad\r\nContent-Length: {ALL}\r\n\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            let part = b"a b\n".repeat(16 << 10);
            // Until the other side has seen enough.
            while counted.load(Ordering::SeqCst) < ALL && stream.write_all(&part).is_ok() {
                counted.fetch_add(part.len(), Ordering::SeqCst);
            }
            done.notify_one();
        });
        let client = client(&settings()).unwrap();
        let error = send("asking", &once(), || client.get(&url))
            .await
            .unwrap_err();
        over.notified().await;
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let error = error.to_string();
        assert!(
            error.starts_with("asking: the server answered 400"),
            "{error}"
        );
        assert!(
            error.len() < 3000 && error.ends_with('…'),
            "{}",
            error.len()
        );
        // What the system's own buffers hold beside what was read.
        let sent = sent.load(Ordering::SeqCst);
        assert!(sent < ALL / 4, "{sent}");
    }

    #[tokio::test]
    async fn nothing_follows_a_redirect_to_another_server() {
        let heard = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&heard);
        let other = server(move |_, stream| {
            counted.fetch_add(1, Ordering::SeqCst);
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                .unwrap();
        });
        let to = other.clone();
        let url = server(move |head, stream| {
            let to = match head.contains("GET /near") {
                true => "/here",
                false if head.contains("GET /here") => {
                    let whole =
                        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
                    return stream.write_all(whole).unwrap();
                }
                false if head.contains("/round") => "/round",
                false => &format!("{to}/steal?sig=hidden-signature"),
            };
            let moved = format!(
                "HTTP/1.1 307 Moved\r\nConnection: close\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n"
            );
            stream.write_all(moved.as_bytes()).unwrap();
        });
        let client = client(&settings()).unwrap();
        for make in [client.get(&url), client.post(&url).body("password")] {
            let make = make.bearer_auth("hidden-token");
            let again = || make.try_clone().unwrap();
            let error = send("asking", &once(), again)
                .await
                .unwrap_err()
                .to_string();
            assert!(error.contains(&other), "{error}");
            assert!(!error.contains("hidden"), "{error}");
        }
        assert_eq!(heard.load(Ordering::SeqCst), 0);
        // Within one server, and not for ever.
        let near = fetch("asking", &once(), 10, || client.get(format!("{url}/near"))).await;
        assert_eq!(&near.unwrap()[..], b"{}");
        let round = send("asking", &once(), || client.get(format!("{url}/round"))).await;
        assert!(round.is_err());
    }

    /// Refusals and bodies that are cut short count together.
    #[tokio::test]
    async fn no_request_is_tried_more_often_than_it_may() {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let url = server(move |_, stream| {
            let answer: &[u8] = match counted.fetch_add(1, Ordering::SeqCst) % 2 {
                0 => b"HTTP/1.1 500 No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
                _ => b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 9\r\n\r\n{}",
            };
            stream.write_all(answer).unwrap();
        });
        let client = client(&settings()).unwrap();
        let retry = Retry {
            attempts: 4,
            first_wait: Duration::from_millis(1),
            max_wait: Duration::from_millis(1),
        };
        let error = fetch("asking", &retry, 100, || client.get(&url)).await;
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(asked.load(Ordering::SeqCst), 4);
    }

    #[test]
    fn a_server_cannot_ask_for_any_wait() {
        let wait = |value: &str| {
            let response = ::http::Response::builder().header("retry-after", value);
            retry_after(&response.body("").unwrap().into())
        };
        assert_eq!(wait("7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("99999999"), Some(MAX_RETRY_AFTER));
        for none in [
            "",
            "-1",
            "99999999999999999999999",
            "Fri, 31 Dec 1999 23:59:59 GMT",
        ] {
            assert_eq!(wait(none), None, "{none}");
        }
        let most = Retry::default();
        assert_eq!(most.wait(u32::MAX), most.max_wait);
    }
}
