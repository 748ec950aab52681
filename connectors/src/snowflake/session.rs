//! A session of Snowflake: signing in, tokens and their renewal, signing out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use reqwest::Client;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use reqwest_middleware::ClientBuilder;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use snowflake_api::connection::{Connection, ConnectionError, QueryType};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::edge::{Edge, MAX_ANSWER_BYTES};
use super::errors;
use super::login::credentials;
use super::messages::{Login, Query, QueryData, Renewal, Reply};
use super::settings::Settings;
use crate::error::{Error, ErrorKind, Result};
use crate::http::{self, ClientSettings, Retry};
use crate::secret::Secret;

/// A token is renewed so long before it expires.
const MARGIN: Duration = Duration::from_secs(60);
/// Validity of a token if the server does not say; Snowflake's is an hour.
const DEFAULT_VALIDITY_SECS: u64 = 3600;
/// How often a request may find its token refused before that is an error.
const MAX_REFUSALS: usize = 3;

/// What to do when the server has ended the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WhenLost {
    /// Nothing was kept in it: sign in again.
    SignInAgain,
    /// Its temporary tables are gone: an error.
    Fail,
}

/// A session; it starts with its first statement and ends when dropped.
pub(super) struct Session {
    pub(super) settings: Settings,
    pub(super) http: Client,
    connection: Connection,
    tokens: Mutex<Option<Tokens>>,
    sequence: AtomicU64,
    when_lost: WhenLost,
    /// The server has ended it, and nothing takes its place.
    ended: AtomicBool,
    /// How long an outage is waited for.
    pub(super) retry: Retry,
}

#[derive(Clone)]
struct Tokens {
    session: Secret,
    master: Secret,
    expires: Instant,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("host", &self.settings.base.host_str())
            .finish_non_exhaustive()
    }
}

impl Session {
    pub(super) fn new(settings: Settings, when_lost: WhenLost) -> Result<Arc<Self>> {
        let retry = match when_lost {
            WhenLost::SignInAgain => Retry::default(),
            WhenLost::Fail => Retry::patient(),
        };
        Self::trying(settings, when_lost, retry)
    }

    /// One that waits as long as `retry` says for a server that does not answer.
    pub(super) fn trying(
        settings: Settings,
        when_lost: WhenLost,
        retry: Retry,
    ) -> Result<Arc<Self>> {
        let http = http::client(&ClientSettings {
            connect_timeout: settings.connect_timeout,
            read_timeout: settings.read_timeout,
            ca_file: settings.ca_file.as_deref(),
            proxy: settings.proxy.clone(),
        })?;
        let edge = Edge {
            base: settings.base.clone(),
            retry: retry.clone(),
        };
        let client = ClientBuilder::new(http.clone()).with(edge).build();
        Ok(Arc::new(Self {
            settings,
            http,
            connection: Connection::new_with_middware(client),
            tokens: Mutex::default(),
            sequence: AtomicU64::default(),
            when_lost,
            ended: AtomicBool::default(),
            retry,
        }))
    }

    /// Signs in, if that was not done yet.
    pub(super) async fn start(&self) -> Result<()> {
        self.token().await.map(drop)
    }

    /// Sends a statement; its answer may be that it still runs.
    pub(super) async fn query(
        &self,
        mut query: Query<'_>,
        request_id: &str,
    ) -> Result<Reply<QueryData>> {
        query.sequence_id = self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        let query = &query;
        self.with_token(|token| async move {
            let ids = [("requestId", request_id)];
            self.post(QueryType::ArrowQuery, &ids, Some(&token), query)
                .await
        })
        .await
    }

    /// Asks for the result at `path`, which the server gave.
    pub(super) async fn result(&self, path: &str) -> Result<Reply<QueryData>> {
        let what = "asking Snowflake for a result";
        let url = self.settings.base.join(path);
        let url = url.map_err(|e| Error::while_doing(what, e))?;
        if url.origin() != self.settings.base.origin() {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!("{what}: it is said to be on another host, which gets no token"),
            ));
        }
        let url = &url;
        self.with_token(|token| async move {
            let header = authorization(&token)?;
            let make = || {
                let request = self.http.get(url.clone());
                let request = request.header(ACCEPT, "application/snowflake");
                request
                    .query(&[("requestId", Uuid::new_v4().to_string())])
                    .header(AUTHORIZATION, header.clone())
            };
            let body = http::fetch(what, &self.retry, MAX_ANSWER_BYTES, make).await?;
            serde_json::from_slice(&body).map_err(|e| Error::while_doing(what, e))
        })
        .await
    }

    /// A request that stops the statement sent under `request_id`; None before signing in.
    pub(super) fn abort(&self, request_id: &str) -> Option<reqwest::RequestBuilder> {
        let token = self.tokens.try_lock().ok()?.as_ref()?.session.clone();
        let url = self.settings.base.join("queries/v1/abort-request").ok()?;
        let ours = Uuid::new_v4().to_string();
        let request = self.http.post(url).query(&[("requestId", ours)]);
        let request = request.header(ACCEPT, "application/snowflake");
        let body = json!({"sqlText": "", "requestId": request_id});
        Some(
            request
                .header(AUTHORIZATION, authorization(&token).ok()?)
                .json(&body),
        )
    }

    /// True once the server has ended it and nothing takes its place.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Runs `ask` with a token; with another one if the server says that it is no longer valid.
    async fn with_token<T, F>(&self, ask: impl Fn(Secret) -> F) -> Result<Reply<T>>
    where
        F: Future<Output = Result<Reply<T>>>,
    {
        let mut token = self.token().await?;
        for _ in 0..MAX_REFUSALS {
            let reply = ask(token.clone()).await?;
            let lost = errors::SESSION_LOST.contains(&reply.code());
            if !lost && reply.code() != errors::EXPIRED {
                return Ok(reply);
            }
            token = self.refresh(&token, lost).await?;
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            "Snowflake keeps refusing the session's token; try again later",
        ))
    }

    /// A valid token.
    async fn token(&self) -> Result<Secret> {
        let mut tokens = self.tokens.lock().await;
        // The old ones stay until there are others: after a renewal that failed, or that nobody
        // waits for any more, they are what the session can still be renewed with.
        let fresh = match &*tokens {
            None => self.sign_in().await?,
            Some(old) if old.expires <= Instant::now() + MARGIN => self.renew(old).await?,
            Some(valid) => return Ok(valid.session.clone()),
        };
        Ok(tokens.insert(fresh).session.clone())
    }

    /// The token after `stale`, which the server refused; another request may have got it already.
    /// It is renewed, or that of a new session if the old one is `lost`.
    async fn refresh(&self, stale: &Secret, lost: bool) -> Result<Secret> {
        let mut tokens = self.tokens.lock().await;
        let fresh = match &*tokens {
            Some(other) if other.session != *stale => return Ok(other.session.clone()),
            Some(old) if !lost => self.renew(old).await?,
            _ => self.restart().await?,
        };
        Ok(tokens.insert(fresh).session.clone())
    }

    async fn restart(&self) -> Result<Tokens> {
        match self.when_lost {
            WhenLost::SignInAgain => self.sign_in().await,
            WhenLost::Fail => {
                self.ended.store(true, Ordering::Relaxed);
                Err(Error::new(
                    ErrorKind::Unavailable,
                    "Snowflake ended the session of this write, and its staged rows with it",
                ))
            }
        }
    }

    async fn renew(&self, old: &Tokens) -> Result<Tokens> {
        let body = json!({
            "oldSessionToken": old.session.expose(),
            "requestType": "RENEW",
        });
        let reply: Reply<Renewal> = self
            .post(QueryType::TokenRequest, &[], Some(&old.master), &body)
            .await?;
        let data = reply.data.filter(|_| reply.success);
        match data.and_then(|d| Some((d.session_token?, d.master_token, d.validity_in_seconds))) {
            Some((session, master, validity)) => Ok(Tokens {
                session,
                master: master.unwrap_or_else(|| old.master.clone()),
                expires: expiry(validity),
            }),
            // The master token has expired, too.
            None => self.restart().await,
        }
    }

    async fn sign_in(&self) -> Result<Tokens> {
        let settings = &self.settings;
        let mut place = vec![];
        for (key, value) in [
            ("warehouse", &settings.warehouse),
            ("databaseName", &settings.database),
            ("schemaName", &settings.schema),
            ("roleName", &settings.role),
        ] {
            place.extend(value.as_deref().map(|v| (key, v)));
        }
        let body = json!({ "data": credentials(settings).await? });
        let reply: Reply<Login> = self
            .post(QueryType::LoginRequest, &place, None, &body)
            .await?;
        if !reply.success {
            return Err(errors::sign_in(settings, &reply));
        }
        let data = reply.data;
        let Some((session, master, validity)) =
            data.and_then(|d| Some((d.token?, d.master_token, d.validity_in_seconds)))
        else {
            return Err(Error::new(
                ErrorKind::Corrupt,
                "signing in to Snowflake: the answer holds no token",
            ));
        };
        Ok(Tokens {
            master: master.unwrap_or_else(|| session.clone()),
            session,
            expires: expiry(validity),
        })
    }

    async fn post<T: DeserializeOwned>(
        &self,
        query_type: QueryType,
        parameters: &[(&str, &str)],
        token: Option<&Secret>,
        body: &impl serde::Serialize,
    ) -> Result<Reply<T>> {
        let header = token.map(|t| format!("Snowflake Token=\"{}\"", t.expose()));
        // The host that the library makes of the account is replaced at the edge.
        let sent =
            self.connection
                .request(query_type, "account", parameters, header.as_deref(), body);
        sent.await.map_err(failed)
    }
}

/// A request that got no answer. What the edge says of it has a kind, which the library wraps so that
/// no cause shows it.
fn failed(error: ConnectionError) -> Error {
    const WHAT: &str = "talking to Snowflake";
    let inner = match error {
        ConnectionError::RequestMiddlewareError(reqwest_middleware::Error::Middleware(e)) => e,
        other => return Error::while_doing(WHAT, other),
    };
    match inner.downcast::<Error>() {
        Ok(own) => Error::while_doing(WHAT, own),
        Err(other) => Error::while_doing(WHAT, other),
    }
}

fn authorization(token: &Secret) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Snowflake Token=\"{}\"", token.expose()))
        .map_err(|_| {
            Error::new(
                ErrorKind::Corrupt,
                "Snowflake's token is not a header value",
            )
        })?;
    value.set_sensitive(true);
    Ok(value)
}

fn expiry(validity_in_seconds: Option<i64>) -> Instant {
    let now = Instant::now();
    let seconds = validity_in_seconds.and_then(|s| u64::try_from(s).ok());
    // A server that gives no limit says a negative one, or one beyond what the clock can count; an
    // hour is right for it as well.
    let until = seconds.and_then(|s| now.checked_add(Duration::from_secs(s)));
    until.unwrap_or(now + Duration::from_secs(DEFAULT_VALIDITY_SECS))
}

impl Drop for Session {
    /// Signs out, which also removes the session's temporary tables.
    fn drop(&mut self) {
        let Some(tokens) = self.tokens.get_mut().take() else {
            return;
        };
        let (Ok(runtime), Ok(url), Ok(header)) = (
            tokio::runtime::Handle::try_current(),
            self.settings.base.join("session?delete=true"),
            authorization(&tokens.session),
        ) else {
            return;
        };
        let request = self.http.post(url).header(AUTHORIZATION, header);
        let request = request.json(&Value::Null);
        runtime.spawn(request.send());
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::atomic::AtomicU32;

    use axum::http::StatusCode;
    use axum::routing::post;
    use axum::{Json, Router};
    use tokio::sync::Notify;

    use super::*;
    use crate::snowflake::tests::settings;

    /// The address at which `app` answers from now on.
    pub(in crate::snowflake) async fn serve(app: Router) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        url
    }

    #[tokio::test]
    async fn a_renewal_that_fails_or_is_dropped_is_done_again_in_the_same_session() {
        let logins = Arc::new(AtomicU32::new(0));
        let renewals = Arc::new(AtomicU32::new(0));
        let waits = Arc::new(Notify::new());
        let counted = Arc::clone(&logins);
        let login = async move || {
            counted.fetch_add(1, Ordering::SeqCst);
            // Due to be renewed from the beginning.
            Json(
                json!({"success": true, "data": {"token": "first", "masterToken": "master",
                "validityInSeconds": 1}}),
            )
        };
        let (counted, waiting) = (Arc::clone(&renewals), Arc::clone(&waits));
        let renew = async move || match counted.fetch_add(1, Ordering::SeqCst) {
            0 => (StatusCode::SERVICE_UNAVAILABLE, Json(json!({}))),
            1 => {
                waiting.notify_one();
                std::future::pending().await
            }
            _ => {
                let data = json!({"sessionToken": "second", "validityInSecondsST": 3600});
                (StatusCode::OK, Json(json!({"success": true, "data": data})))
            }
        };
        let app = Router::new()
            .route("/session/v1/login-request", post(login))
            .route("/session/token-request", post(renew));
        let once = Retry {
            attempts: 1,
            ..Retry::default()
        };
        let session = Session::trying(settings(&serve(app).await), WhenLost::Fail, once).unwrap();
        session.start().await.unwrap();
        let error = session.start().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        tokio::select! {
            done = session.start() => panic!("{done:?}"),
            () = waits.notified() => {}
        }
        assert_eq!(session.token().await.unwrap().expose(), "second");
        assert!(!session.has_ended());
        assert_eq!(logins.load(Ordering::SeqCst), 1);
        assert_eq!(renewals.load(Ordering::SeqCst), 3);
    }

    #[test]
    fn no_validity_that_a_server_says_is_beyond_the_clock() {
        for said in [None, Some(-1), Some(0), Some(i64::MAX)] {
            let until = expiry(said).saturating_duration_since(Instant::now());
            assert!(
                until <= Duration::from_secs(DEFAULT_VALIDITY_SECS),
                "{said:?}"
            );
        }
        assert!(expiry(Some(7200)) > Instant::now() + Duration::from_secs(7000));
    }
}
