//! Where snowflake-api's requests leave the program: its fixed host name is replaced by ours, what
//! may pass is tried again, and a refusal in something else than the protocol is an error.
//!
//! A statement that is sent again carries the id of its first request, by which the server knows
//! not to run it twice.

use ::http::Extensions;
use async_trait::async_trait;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Request, Response, StatusCode};
use reqwest_middleware::{Middleware, Next, Result};
use url::Url;

use crate::error::{Error, ErrorKind, said};
use crate::http::{self, Retry};

/// Largest answer: that to a statement lists every chunk of its result.
pub(super) const MAX_ANSWER_BYTES: usize = 256 << 20;

/// The way to one account.
pub(super) struct Edge {
    pub(super) base: Url,
    pub(super) retry: Retry,
}

#[async_trait]
impl Middleware for Edge {
    async fn handle(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        point(request.url_mut(), &self.base);
        let mut attempt = 0;
        loop {
            // A JSON body can always be cloned.
            let again = request.try_clone();
            let result = next.clone().run(request, extensions).await;
            attempt += 1;
            let error = match result {
                Ok(response) if understood(&response) => match whole(response, &self.base).await {
                    Ok(response) => return Ok(response),
                    Err(error) => error,
                },
                Ok(response) => refused(&response, &self.base),
                Err(error) => unreachable_host(error, &self.base),
            };
            let Some(again) = again else {
                return Err(reqwest_middleware::Error::middleware(error));
            };
            if error.kind() != ErrorKind::Unavailable || attempt >= self.retry.attempts {
                return Err(reqwest_middleware::Error::middleware(error));
            }
            tokio::time::sleep(self.retry.wait(attempt - 1)).await;
            request = again;
            let count = attempt.to_string();
            request
                .url_mut()
                .query_pairs_mut()
                .append_pair("retryCount", &count);
        }
    }
}

/// Replaces scheme, host and port, the doubled slash of one of the library's paths, and its request
/// id by the one we added.
fn point(url: &mut Url, base: &Url) {
    let mut parts: Vec<(String, String)> = vec![];
    for (key, value) in url.query_pairs() {
        match parts.iter_mut().find(|(k, _)| *k == key) {
            Some(part) => part.1 = value.into_owned(),
            None => parts.push((key.into_owned(), value.into_owned())),
        }
    }
    let path = url.path().replace("//", "/");
    *url = base.clone();
    url.set_path(&path);
    url.query_pairs_mut().extend_pairs(parts);
}

/// Success, or a refusal in the words of the protocol, which the session reads.
fn understood(response: &Response) -> bool {
    let json = response
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .is_some_and(|v| v.contains("json"));
    let passing = matches!(
        response.status(),
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    );
    response.status().is_success() || (json && !passing)
}

/// The answer with its body, which the library would read without a bound, and take for the
/// protocol's whatever it is.
async fn whole(response: Response, base: &Url) -> std::result::Result<Response, Error> {
    let host = base.host_str().unwrap_or_default();
    let (status, headers) = (response.status(), response.headers().clone());
    let what = format!("reading the answer of {host}");
    let body = http::body(&what, MAX_ANSWER_BYTES, response).await?;
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(Error::new(
            ErrorKind::Corrupt,
            format!(
                "{host} answered {status} with something that is not Snowflake's ({}); check \
                 snowflake.host, and whether a proxy answers in its place",
                said(&String::from_utf8_lossy(&body[..body.len().min(200)]))
            ),
        ));
    }
    let mut whole = ::http::Response::new(body);
    (*whole.status_mut(), *whole.headers_mut()) = (status, headers);
    Ok(whole.into())
}

fn refused(response: &Response, base: &Url) -> Error {
    let status = response.status();
    let host = base.host_str().unwrap_or_default();
    let (kind, advice) = match status {
        StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => (
            ErrorKind::NotFound,
            "; there is no such account: check snowflake.account and snowflake.host",
        ),
        StatusCode::UNAUTHORIZED => (ErrorKind::Denied, ""),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => (ErrorKind::Unavailable, ""),
        s if s.is_server_error() => (ErrorKind::Unavailable, "; try again later"),
        _ => (ErrorKind::InvalidInput, ""),
    };
    let leads = http::to_another_host(response);
    Error::new(kind, format!("{host} answered {status}{leads}{advice}"))
}

/// No answer. The URL is left out: it holds request ids only, but that is for others to promise.
fn unreachable_host(error: reqwest_middleware::Error, base: &Url) -> Error {
    let error = error.without_url();
    let host = base.host_str().unwrap_or_default();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let cause = cause.to_string();
    let kind = match http::is_untrusted(&cause) {
        true => ErrorKind::InvalidInput,
        false => ErrorKind::Unavailable,
    };
    let cause = http::with_advice(cause);
    Error::new(
        kind,
        format!(
            "{host} did not answer ({cause}); check the network, snowflake.account and \
             snowflake.host"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_go_where_the_options_say_under_our_id() {
        let theirs = "https://A.snowflakecomputing.com//session/token-request?requestId=theirs\
                      &request_guid=g&requestId=ours";
        let mut url = Url::parse(theirs).unwrap();
        point(&mut url, &Url::parse("http://127.0.0.1:9/").unwrap());
        assert_eq!(
            url.as_str(),
            "http://127.0.0.1:9/session/token-request?requestId=ours&request_guid=g"
        );
    }
}
