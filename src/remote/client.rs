//! One call after the other and many at once: turns, tries, deadlines. Every message leaves without
//! what signs in.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use casebook_connectors::http::{self, ClientSettings, Refusal};
use reqwest::header::CONTENT_TYPE;
use reqwest::{RequestBuilder, Url};
use tokio::time::Instant;

use super::answer::{self, Answer};
use super::fault::{Again, Fault};
use super::limit::Limit;
use super::request::{Chat, Form};
use super::spec::RemoteSpec;
use crate::config::Hidden;
use crate::error::{Error, ErrorKind, Result};

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer: a reply has a budget, and what stands around it is small.
const MOST_BYTES: usize = 8 << 20;
/// Tries of a call whose failure may be of the call itself.
const FEW: u32 = 4;
/// Wait before the second try; doubled for each further one.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// Longest wait between tries that the server did not ask for.
const MOST_WAIT: Duration = Duration::from_secs(30);

/// Asks one model at one server. Shared by all queries, so that the limit is one.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) spec: Arc<RemoteSpec>,
    http: reqwest::Client,
    url: Url,
    limit: Limit,
    hidden: Hidden,
    /// The server calls the budget `max_completion_tokens`.
    completion_tokens: AtomicBool,
    tries: AtomicU32,
}

impl Client {
    pub(super) fn new(spec: &Arc<RemoteSpec>) -> Result<Self> {
        let hidden = Hidden::default();
        for secret in spec.secrets() {
            hidden.note(secret.expose(), "***");
        }
        let ca_file = spec.ca_file.as_ref().map(|file| file.to_string_lossy());
        let http = http::client(&ClientSettings {
            connect_timeout: CONNECT_TIMEOUT,
            read_timeout: spec.request_timeout,
            ca_file: ca_file.as_deref(),
            proxy: spec.proxy.clone(),
        })
        .map_err(|e| Error::new(ErrorKind::Configuration, hidden.out_of(&e.to_string())))?;
        Ok(Self {
            http,
            url: spec.url("chat/completions"),
            limit: Limit::new(spec.max_concurrency, spec.request_timeout),
            hidden,
            completion_tokens: AtomicBool::new(false),
            tries: AtomicU32::new(0),
            spec: Arc::clone(spec),
        })
    }

    /// What the model is called in messages.
    pub(super) fn name(&self) -> String {
        format!("model {} at {}", self.spec.model(), self.spec.host())
    }

    /// The reply to `chat`, within the time that casebook.toml gives it. Dropping the future gives the
    /// call up.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a prompt that does not fit the model's context; another kind
    /// for everything else.
    pub(super) async fn ask(&self, chat: &Chat) -> Result<Answer> {
        self.ask_within(chat, self.spec.timeout).await
    }

    /// The reply to `chat`, with all tries and waits within `deadline`.
    pub(super) async fn ask_within(&self, chat: &Chat, deadline: Duration) -> Result<Answer> {
        // Of tries and of waits between them; not of the wait for a turn, which others make.
        let mut spent = Duration::ZERO;
        let mut tries = 0;
        loop {
            let Some(turn) = self.limit.turn().await else {
                return Err(Error::new(ErrorKind::Interrupted, "the program ends"));
            };
            let begun = Instant::now();
            let limit = self.spec.request_timeout.min(deadline - spent);
            let newer = self.completion_tokens.load(Ordering::Relaxed);
            let tried = tokio::time::timeout(limit, self.attempt(chat, newer)).await;
            let fault = match tried.unwrap_or_else(|_| Err(Fault::late(limit))) {
                Ok(answer) => {
                    turn.replied();
                    return Ok(answer);
                }
                Err(fault) => fault,
            };
            spent += begun.elapsed();
            tries += 1;
            let mut wait = self.wait(tries);
            match fault.again {
                Again::Slower(asked) => {
                    turn.refused(asked);
                    wait = asked.map_or(wait, |asked| asked.max(wait));
                }
                _ => drop(turn),
            }
            let goes_on = match fault.again {
                Again::Never => false,
                Again::Renamed => {
                    self.completion_tokens.store(true, Ordering::Relaxed);
                    wait = Duration::ZERO;
                    !newer
                }
                Again::AFewTimes => tries < FEW,
                Again::Later | Again::Slower(_) => true,
            };
            if !goes_on {
                return Err(self.failed(&fault));
            }
            if spent + wait >= deadline {
                let what = format!(
                    "no reply within {} s and {tries} tries; the last time {}",
                    deadline.as_secs_f64(),
                    fault.what
                );
                return Err(self.failed(&Fault { what, ..fault }));
            }
            tokio::time::sleep(wait).await;
            spent += wait;
        }
    }

    /// The body of what the server has at `path`; none if it has nothing there.
    pub(super) async fn get(&self, path: &str) -> Option<serde_json::Value> {
        let request = self.signed(self.http.get(self.spec.url(path)));
        let body = async {
            let response = request.send().await.ok()?;
            let response = response.error_for_status().ok()?;
            http::body("", MOST_BYTES, response).await.ok()
        };
        let body = tokio::time::timeout(CONNECT_TIMEOUT * 2, body)
            .await
            .ok()??;
        serde_json::from_slice(&body).ok()
    }

    /// An error that names the model, without secrets.
    fn failed(&self, fault: &Fault) -> Error {
        let what = self.hidden.out_of(&fault.what);
        Fault { what, ..*fault }.error(&self.name())
    }

    /// One try; the budget is called by its `newer` name, or not.
    async fn attempt(&self, chat: &Chat, newer: bool) -> Result<Answer, Fault> {
        let form = Form {
            model: self.spec.model(),
            omit: &self.spec.omit,
            more: &self.spec.body,
            completion_tokens: newer,
        };
        let body = form
            .body(chat)
            .map_err(|e| Fault::new(ErrorKind::Internal, e.to_string(), Again::Never))?;
        let request = self.http.post(self.url.clone());
        let request = request.header(CONTENT_TYPE, "application/json").body(body);
        let lost = |e| Fault::lost(&http::lost("the call", e));
        let response = self.signed(request).send().await.map_err(lost)?;
        if !response.status().is_success() {
            return Err(Fault::refused(&Refusal::read(response).await));
        }
        let body = http::body("the reply", MOST_BYTES, response).await;
        let body = body.map_err(|e| Fault::lost(&e))?;
        answer::read(&body).map_err(Fault::no_reply)
    }

    fn signed(&self, mut request: RequestBuilder) -> RequestBuilder {
        if let Some(key) = &self.spec.api_key {
            request = request.bearer_auth(key.expose());
        }
        for (name, value) in &self.spec.headers {
            request = request.header(name, value.expose());
        }
        request
    }

    /// The wait before try `tries + 1`: doubled each time, and never the same for many calls.
    fn wait(&self, tries: u32) -> Duration {
        let doubled = FIRST_WAIT.saturating_mul(1 << (tries - 1).min(16));
        let count = self.tries.fetch_add(1, Ordering::Relaxed);
        let spread = f64::from(count) * 0.618_033_988_75;
        doubled.min(MOST_WAIT).mul_f64(0.75 + 0.5 * spread.fract())
    }
}
