//! A server of the chat completions API that works or does wrong as a test says, for many callers at
//! once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio::sync::watch;

/// What becomes of a call.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// It is answered.
    Answer,
    /// It is answered with this usage.
    Usage(Value),
    /// It is answered by another model.
    As(&'static str),
    /// A status with headers and a body.
    Status(u16, Vec<(&'static str, String)>, String),
    /// A success with this body.
    Body(String),
    /// The answer breaks off after so many bytes.
    Cut(usize),
    /// It is never answered.
    Silence,
    /// It is answered when so many calls are there at once.
    Together(usize),
}

/// A call as it came.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) body: Value,
    pub(crate) headers: HeaderMap,
    pub(crate) uri: Uri,
    /// It was answered with a reply, whole.
    pub(crate) is_answered: bool,
}

impl Call {
    /// What the user's turn says.
    pub(crate) fn user(&self) -> &str {
        let messages = self.body["messages"].as_array().unwrap();
        messages.last().unwrap()["content"].as_str().unwrap()
    }

    /// True for what a session asks to find out which model answers.
    pub(crate) fn is_greeting(&self) -> bool {
        self.user().starts_with("Answer with one word")
    }
}

type Script = Box<dyn Fn(usize, &Value) -> Act + Send + Sync>;

struct Inner {
    script: Mutex<Script>,
    calls: Mutex<Vec<Call>>,
    in_flight: watch::Sender<usize>,
    most: AtomicUsize,
    /// Which calls are answered; the others are held.
    gate: watch::Sender<Gate>,
}

/// So many calls of a run are answered: of the one that says to be this one in `x-run`, or of any.
#[derive(Debug, Clone)]
struct Gate {
    run: Option<String>,
    left: usize,
}

impl Gate {
    fn lets(&self, run: &str) -> bool {
        self.left > 0 && self.run.as_deref().is_none_or(|this| this == run)
    }
}

/// A running server; it ends with its runtime.
#[derive(Clone)]
pub(crate) struct Endpoint {
    pub(crate) url: String,
    inner: Arc<Inner>,
}

impl Endpoint {
    /// A server that answers every call.
    pub(crate) async fn start() -> Self {
        let inner = Arc::new(Inner {
            script: Mutex::new(Box::new(|_, _| Act::Answer)),
            calls: Mutex::default(),
            in_flight: watch::Sender::new(0),
            most: AtomicUsize::new(0),
            gate: watch::Sender::new(Gate {
                run: None,
                left: usize::MAX,
            }),
        });
        let app = Router::new()
            .route("/v1/chat/completions", post(answer))
            .route("/v1/models", get(models))
            .with_state(Arc::clone(&inner));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, inner }
    }

    /// As a source of [models].
    pub(crate) fn source(&self) -> String {
        format!("openai:{}", self.url)
    }

    /// What becomes of call number n (from 0), which the body may decide as well. Greetings are
    /// answered, and not counted.
    pub(crate) fn script(&self, script: impl Fn(usize, &Value) -> Act + Send + Sync + 'static) {
        *self.inner.script.lock().unwrap() = Box::new(script);
    }

    /// Answers `count` calls of the run that says to be `run`, greetings not counted, and holds all
    /// others.
    pub(crate) fn answer_only(&self, run: &str, count: usize) {
        let run = Some(run.to_owned());
        self.inner.gate.send_replace(Gate { run, left: count });
    }

    /// All calls but greetings.
    pub(crate) fn calls(&self) -> Vec<Call> {
        let calls = self.inner.calls.lock().unwrap();
        calls.iter().filter(|c| !c.is_greeting()).cloned().collect()
    }

    /// All calls.
    pub(crate) fn all_calls(&self) -> Vec<Call> {
        self.inner.calls.lock().unwrap().clone()
    }

    /// How often each call was answered, by its body.
    pub(crate) fn answered(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for call in self.calls().iter().filter(|call| call.is_answered) {
            *counts.entry(call.body.to_string()).or_default() += 1;
        }
        counts
    }

    /// Most calls that were there at once.
    pub(crate) fn most_at_once(&self) -> usize {
        self.inner.most.load(Ordering::SeqCst)
    }

    /// Forgets the calls so far.
    pub(crate) fn forget(&self) {
        self.inner.calls.lock().unwrap().clear();
        self.inner.most.store(0, Ordering::SeqCst);
    }
}

/// A call that is there; gone when it is dropped, as when its caller hangs up.
struct Present<'a>(&'a Inner);

impl<'a> Present<'a> {
    fn new(inner: &'a Inner) -> Self {
        inner.in_flight.send_modify(|n| *n += 1);
        let now = *inner.in_flight.borrow();
        inner.most.fetch_max(now, Ordering::SeqCst);
        Self(inner)
    }
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        self.0.in_flight.send_modify(|n| *n -= 1);
    }
}

async fn models() -> axum::Json<Value> {
    axum::Json(json!({"object": "list", "data": [{"id": "small", "max_model_len": 4096}]}))
}

async fn answer(
    State(inner): State<Arc<Inner>>,
    headers: HeaderMap,
    uri: Uri,
    body: Bytes,
) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap();
    let run = headers.get("x-run").cloned();
    let run = run.unwrap_or_else(|| HeaderValue::from_static(""));
    let call = Call {
        body: body.clone(),
        headers,
        uri,
        is_answered: false,
    };
    let (at, number) = {
        let mut calls = inner.calls.lock().unwrap();
        let number = calls.iter().filter(|call| !call.is_greeting()).count();
        calls.push(call);
        (calls.len() - 1, number)
    };
    let answered = |model: &str, usage: &Value| {
        if let Some(call) = inner.calls.lock().unwrap().get_mut(at) {
            call.is_answered = true;
        }
        reply(&body, model, usage)
    };
    let is_greeting = inner.calls.lock().unwrap()[at].is_greeting();
    if is_greeting {
        return whole(answered("small-2026", &usage(&body)));
    }
    let present = Present::new(&inner);
    let run = run.to_str().unwrap_or_default();
    let mut gate = inner.gate.subscribe();
    loop {
        gate.wait_for(|gate| gate.lets(run)).await.unwrap();
        let took = inner.gate.send_if_modified(|gate| {
            let lets = gate.lets(run);
            gate.left -= usize::from(lets);
            lets
        });
        if took {
            break;
        }
    }
    let act = (inner.script.lock().unwrap())(number, &body);
    let response = match act {
        Act::Answer => whole(answered("small-2026", &usage(&body))),
        Act::Usage(usage) => whole(answered("small-2026", &usage)),
        Act::As(model) => whole(answered(model, &usage(&body))),
        Act::Status(status, headers, body) => {
            let mut response = Response::builder().status(StatusCode::from_u16(status).unwrap());
            for (name, value) in headers {
                response = response.header(name, value);
            }
            response.body(Body::from(body)).unwrap()
        }
        Act::Body(body) => body.into_response(),
        Act::Cut(bytes) => {
            let text = reply(&body, "small-2026", &usage(&body)).to_string();
            let first = Bytes::from(text[..bytes.min(text.len())].to_owned());
            let parts: Vec<std::io::Result<Bytes>> =
                vec![Ok(first), Err(std::io::Error::other("cut"))];
            Body::from_stream(futures::stream::iter(parts)).into_response()
        }
        Act::Silence => std::future::pending().await,
        Act::Together(count) => {
            let mut present = inner.in_flight.subscribe();
            let there = present.wait_for(|n| *n >= count);
            let there = tokio::time::timeout(Duration::from_secs(60), there).await;
            assert!(there.is_ok(), "never {count} calls at once");
            whole(answered("small-2026", &usage(&body)))
        }
    };
    drop(present);
    response
}

fn whole(body: Value) -> Response {
    axum::Json(body).into_response()
}

/// The usage of an honest server that does not say what it had read before: a token for each word.
fn usage(body: &Value) -> Value {
    let words = |text: &Value| text.as_str().unwrap_or_default().split_whitespace().count();
    let messages = body["messages"].as_array().unwrap();
    let prompt: usize = messages.iter().map(|m| words(&m["content"])).sum();
    let output = text(body).split_whitespace().count();
    json!({"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output})
}

fn reply(body: &Value, model: &str, usage: &Value) -> Value {
    json!({
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": model,
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": text(body)},
            "finish_reason": "stop",
        }],
        "usage": usage,
    })
}

/// A question that no other call gets, or the answer that the document has.
fn text(body: &Value) -> String {
    let messages = body["messages"].as_array().unwrap();
    let user = messages.last().unwrap()["content"].as_str().unwrap();
    let sentence = |start: &str| {
        let at = user.find(start)?;
        user[at..].split(". ").next().map(str::to_owned)
    };
    match user.contains("Question: ") || user.contains("question:") {
        true => sentence("On May 3")
            .or_else(|| sentence("Doe was convicted"))
            .unwrap_or_else(|| "The judgment was affirmed.".to_owned()),
        false => {
            let name = user.lines().next().unwrap_or_default();
            let name = name.rsplit(": ").next().unwrap_or_default();
            format!(
                "What did the court hold in {name} on point {}?",
                body["seed"]
            )
        }
    }
}
