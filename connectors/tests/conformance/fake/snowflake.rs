//! Snowflake's session and query protocol over results made for the test, with faults.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use datafusion::arrow::array::{ArrayRef, Int8Array, Int64Array, RecordBatch};
use datafusion::arrow::datatypes::{Field, Schema};
use datafusion::arrow::ipc::writer::StreamWriter;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

pub(crate) const PASSWORD: &str = "hunter2";
/// In every link; must never be seen in an error.
pub(crate) const SIGNATURE: &str = "sig-hunter3";
/// How long a test waits for an event before it fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// What goes wrong.
#[derive(Default, Clone)]
pub(crate) struct Faults {
    /// Even chunks end only after the odd one behind them.
    pub(crate) out_of_order: bool,
    /// Links of the first answer are refused for these chunks.
    pub(crate) expired_links: Vec<usize>,
    /// No link ever works.
    pub(crate) dead_links: bool,
    /// These chunks are answered 503 once.
    pub(crate) busy: Vec<usize>,
    /// The first token expires before the first statement.
    pub(crate) expired_session: bool,
    /// And it cannot be renewed.
    pub(crate) lost_session: bool,
    /// Times that the server says it is still at work.
    pub(crate) polls: usize,
    /// The statement never ends.
    pub(crate) never_done: bool,
    /// Only so many bytes of this chunk are sent.
    pub(crate) truncated: Option<(usize, usize)>,
    /// One row of each INSERT does not arrive.
    pub(crate) loses_rows: bool,
    /// The session ends with the first INSERT.
    pub(crate) ends_in_write: bool,
    /// What PUT is answered with, and how many rows COPY finds; without it no stage can be made.
    pub(crate) stage: Option<(Value, usize)>,
    /// Requests whose path contains the text are answered in another way.
    pub(crate) instead: Option<(&'static str, Instead)>,
    /// What the answer to a statement says of itself instead.
    pub(crate) says: Option<Value>,
    /// Rows that this chunk is said to have.
    pub(crate) said_rows: Option<(usize, usize)>,
    /// The link of this chunk leads to the one before it.
    pub(crate) same_link: Option<usize>,
    /// Statements fail with so many bytes of message.
    pub(crate) long_message: usize,
}

/// Another answer than the protocol's.
#[derive(Clone)]
pub(crate) enum Instead {
    /// A page for people, with the status of a success.
    Page,
    /// A redirect.
    Moved(String),
}

/// A result: the rows of the answer itself, then the chunks.
#[derive(Default)]
pub(crate) struct Rows {
    pub(crate) rowtype: Vec<Value>,
    pub(crate) parts: Vec<RecordBatch>,
}

pub(crate) struct Fake {
    pub(crate) url: String,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

struct Shared {
    url: String,
    faults: Faults,
    rows: Rows,
    events: Mutex<Vec<String>>,
    changed: Notify,
    token: AtomicUsize,
    polled: AtomicUsize,
    staged: AtomicUsize,
    results: Mutex<Vec<Answer>>,
    /// Links of answers before this one have expired.
    expired: AtomicUsize,
    /// Results are no longer kept.
    given_up: AtomicBool,
}

#[derive(Clone)]
struct Answer {
    rowtype: Vec<Value>,
    parts: Vec<Vec<u8>>,
    generation: usize,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Fake {
    pub(crate) async fn start(rows: Rows, faults: Faults) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            url: url.clone(),
            faults,
            rows,
            events: Mutex::default(),
            changed: Notify::new(),
            token: AtomicUsize::new(0),
            polled: AtomicUsize::new(0),
            staged: AtomicUsize::new(0),
            results: Mutex::default(),
            expired: AtomicUsize::new(0),
            given_up: AtomicBool::new(false),
        });
        let app = Router::new()
            .route("/", get(async || "Snowflake"))
            .route("/session/v1/login-request", post(login))
            .route("/session/token-request", post(renew))
            .route("/session", post(logout))
            .route("/queries/v1/query-request", post(query))
            .route("/queries/v1/abort-request", post(abort))
            .route("/queries/{id}/result", get(result))
            .route("/chunk/{id}/{part}", get(chunk))
            .layer(from_fn_with_state(Arc::clone(&shared), instead))
            .with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            url,
            shared,
            server,
        }
    }

    /// What happened, in order.
    pub(crate) fn events(&self) -> Vec<String> {
        self.shared.events.lock().unwrap().clone()
    }

    pub(crate) fn count(&self, prefix: &str) -> usize {
        let events = self.events();
        events.iter().filter(|e| e.starts_with(prefix)).count()
    }

    /// Makes all links that were given so far worthless.
    pub(crate) fn expire_links(&self) {
        let results = self.shared.results.lock().unwrap();
        let last = results.iter().map(|r| r.generation).max().unwrap_or(0);
        self.shared.expired.store(last + 1, Ordering::SeqCst);
    }

    /// Results are gone from now on.
    pub(crate) fn give_up_results(&self) {
        self.shared.given_up.store(true, Ordering::SeqCst);
    }

    /// Waits until something that starts with `prefix` has happened; returns it.
    pub(crate) async fn wait_for(&self, prefix: &str) -> String {
        let waited = tokio::time::timeout(PATIENCE, self.shared.wait_for(prefix)).await;
        waited.unwrap_or_else(|_| panic!("no '{prefix}' in {:?}", self.events()))
    }
}

impl Shared {
    fn note(&self, event: impl Into<String>) {
        self.events.lock().unwrap().push(event.into());
        self.changed.notify_waiters();
    }

    async fn wait_for(&self, prefix: &str) -> String {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let events = self.events.lock().unwrap().clone();
            if let Some(found) = events.into_iter().find(|e| e.starts_with(prefix)) {
                return found;
            }
            changed.await;
        }
    }

    fn token(&self) -> String {
        format!("token-{}", self.token.load(Ordering::SeqCst))
    }

    /// A refusal if the request's token is not the one that is valid.
    fn refusal(&self, headers: &HeaderMap) -> Option<Json<Value>> {
        let given = headers["authorization"].to_str().unwrap();
        let valid = match self.faults.expired_session || self.faults.lost_session {
            true => self.token.load(Ordering::SeqCst) > 0,
            false => true,
        };
        let same = given == format!("Snowflake Token=\"{}\"", self.token());
        match valid && same {
            true => None,
            false => {
                self.note("expired");
                Some(Json(json!({
                    "data": null, "code": "390112", "success": false,
                    "message": "Your session has expired. Please login again."
                })))
            }
        }
    }

    /// The answer to a statement of a write; None if it is none.
    fn write(&self, sql: &str, body: &Value) -> Option<Json<Value>> {
        let done = |rows: usize| {
            Some(Json(
                json!({"success": true, "data": {"rowset": [[rows.to_string()]]}}),
            ))
        };
        if sql.starts_with("SELECT COUNT(*)") {
            let count = self.staged.load(Ordering::SeqCst) as i64;
            let count: ArrayRef = Arc::new(Int64Array::from(vec![count]));
            let rows = ipc(&batch(vec![column("N", count, 0)]));
            return Some(Json(json!({"success": true, "data": {
                "rowtype": [rowtype("N", "fixed", 18, 0)], "total": 1,
                "rowsetBase64": base64::engine::general_purpose::STANDARD.encode(rows)}})));
        }
        if sql.starts_with("SELECT") {
            return None;
        }
        self.note(format!("write {sql}"));
        let to_stage = ["CREATE TEMPORARY STAGE", "PUT", "COPY INTO"];
        if let Some(step) = to_stage.iter().find(|s| sql.starts_with(*s)) {
            let Some((answer, rows)) = &self.faults.stage else {
                return Some(Json(
                    json!({"success": false, "code": "003001", "data": null,
                    "message": "SQL access control error:\nInsufficient privileges"}),
                ));
            };
            return match *step {
                "PUT" => Some(Json(json!({"success": true, "data": answer}))),
                "COPY INTO" => {
                    self.staged.fetch_add(*rows, Ordering::SeqCst);
                    done(*rows)
                }
                _ => done(0),
            };
        }
        let rows = body["bindings"]["1"]["value"]
            .as_array()
            .map_or(0, Vec::len);
        if rows > 0 && self.faults.ends_in_write {
            return Some(Json(
                json!({"success": false, "code": "390111", "data": null,
                "message": "Session no longer exists. New login required."}),
            ));
        }
        let arrived = rows - usize::from(rows > 0 && self.faults.loses_rows);
        self.staged.fetch_add(arrived, Ordering::SeqCst);
        done(rows)
    }

    /// The result `id` with links of its present generation.
    fn answer(&self, id: usize) -> Value {
        let answer = self.results.lock().unwrap()[id].clone();
        let rows = |part: usize| self.rows.parts[part].num_rows();
        let chunks: Vec<Value> = (1..answer.parts.len())
            .map(|part| {
                let g = answer.generation;
                let leads = match self.faults.same_link {
                    Some(chunk) if chunk + 1 == part => chunk,
                    _ => part,
                };
                let url = format!("{}/chunk/{id}/{leads}?g={g}&sig={SIGNATURE}", self.url);
                let said = self.faults.said_rows.filter(|(chunk, _)| chunk + 1 == part);
                let said = said.map_or(rows(part), |(_, rows)| rows);
                let size = answer.parts[part].len();
                json!({"url": url, "rowCount": said, "uncompressedSize": size,
                    "compressedSize": size / 4})
            })
            .collect();
        let total: usize = (0..answer.parts.len()).map(rows).sum();
        let inline = answer.parts.first().cloned().unwrap_or_default();
        let mut says = json!({
            "success": true, "code": null, "message": null,
            "data": {
                "queryId": id.to_string(),
                "rowtype": answer.rowtype,
                "rowsetBase64": base64::engine::general_purpose::STANDARD.encode(inline),
                "chunks": chunks,
                "chunkHeaders": {"x-header": "asked for"},
                "queryResultFormat": "arrow",
                "total": total,
                "returned": total,
                "somethingNew": {"nobody": "knows"},
            }
        });
        // Of a result only, not of a description of its columns.
        let changed = self.faults.says.iter().filter(|_| !answer.parts.is_empty());
        for (key, value) in changed.flat_map(|s| s.as_object().unwrap()) {
            says["data"][key] = value.clone();
        }
        says
    }
}

type App = State<Arc<Shared>>;

async fn instead(State(s): App, request: Request, next: Next) -> Response {
    match &s.faults.instead {
        Some((part, instead)) if request.uri().path().contains(part) => match instead {
            Instead::Page => {
                let page = "<!DOCTYPE html><html><body>Please sign in</body></html>";
                ([("content-type", "text/html")], page).into_response()
            }
            Instead::Moved(to) => {
                (StatusCode::TEMPORARY_REDIRECT, [("location", to.clone())]).into_response()
            }
        },
        _ => next.run(request).await,
    }
}

async fn login(State(s): App, Json(body): Json<Value>) -> Json<Value> {
    if body["data"]["PASSWORD"] != PASSWORD {
        return Json(
            json!({"success": false, "code": "390100", "data": {"nextAction": "RETRY"},
            "message": "Incorrect username or password was specified."}),
        );
    }
    s.note("login");
    if s.events
        .lock()
        .unwrap()
        .iter()
        .filter(|e| *e == "login")
        .count()
        > 1
    {
        s.token.fetch_add(1, Ordering::SeqCst);
    }
    Json(
        json!({"success": true, "data": {"token": s.token(), "masterToken": "master",
        "validityInSeconds": 3600, "masterValidityInSeconds": 14400}}),
    )
}

async fn renew(State(s): App, headers: HeaderMap, Json(body): Json<Value>) -> Json<Value> {
    assert_eq!(headers["authorization"], "Snowflake Token=\"master\"");
    assert_eq!(body["requestType"], "RENEW");
    if s.faults.lost_session {
        s.note("not renewed");
        return Json(json!({"success": false, "code": "390114", "data": null,
            "message": "Authentication token has expired."}));
    }
    s.token.fetch_add(1, Ordering::SeqCst);
    s.note("renewed");
    Json(
        json!({"success": true, "data": {"sessionToken": s.token(), "masterToken": "master",
        "validityInSecondsST": 3600}}),
    )
}

async fn logout(State(s): App) -> Json<Value> {
    s.note("logout");
    Json(json!({"success": true}))
}

async fn query(
    State(s): App,
    headers: HeaderMap,
    Query(parameters): Query<HashMap<String, String>>,
    Json(body): Json<Value>,
) -> Json<Value> {
    if let Some(refusal) = s.refusal(&headers) {
        return refusal;
    }
    let sql = body["sqlText"].as_str().unwrap();
    let describe = body["describeOnly"].as_bool().unwrap_or(false);
    if sql.contains("\"t\"") {
        return Json(
            json!({"success": false, "code": "002003", "data": {"sqlState": "42S02"},
            "message": "SQL compilation error:\nObject does not exist or not authorized."}),
        );
    }
    if let Some(reply) = s.write(sql, &body) {
        return reply;
    }
    let (rowtype, parts) = select(&s.rows, sql, describe);
    let id = {
        let mut results = s.results.lock().unwrap();
        results.push(Answer {
            rowtype,
            parts,
            generation: 0,
        });
        results.len() - 1
    };
    if describe {
        s.note("describe");
        return Json(s.answer(id));
    }
    s.note(format!("query {} {sql}", parameters["requestId"]));
    if s.faults.long_message > 0 {
        let message = "no ".repeat(s.faults.long_message / 3);
        return Json(json!({"success": false, "code": "001003", "data": null, "message": message}));
    }
    match s.faults.polls > 0 || s.faults.never_done {
        true => running(id),
        false => Json(s.answer(id)),
    }
}

fn running(id: usize) -> Json<Value> {
    Json(
        json!({"success": true, "code": "333334", "message": "Asynchronous execution",
        "data": {"queryId": id.to_string(), "getResultUrl": format!("/queries/{id}/result")}}),
    )
}

async fn result(State(s): App, Path(id): Path<usize>, headers: HeaderMap) -> Json<Value> {
    if let Some(refusal) = s.refusal(&headers) {
        return refusal;
    }
    s.note("result");
    if s.given_up.load(Ordering::SeqCst) {
        return Json(json!({"success": false, "code": "000710", "data": null,
            "message": "Result for query has expired"}));
    }
    if s.faults.never_done || s.polled.fetch_add(1, Ordering::SeqCst) + 1 < s.faults.polls {
        return running(id);
    }
    s.results.lock().unwrap()[id].generation += 1;
    Json(s.answer(id))
}

async fn abort(State(s): App, Json(body): Json<Value>) -> Json<Value> {
    s.note(format!("abort {}", body["requestId"].as_str().unwrap()));
    Json(json!({"success": true}))
}

async fn chunk(
    State(s): App,
    Path((id, part)): Path<(usize, usize)>,
    Query(parameters): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> (StatusCode, Vec<u8>) {
    assert_eq!(headers["x-header"], "asked for");
    assert!(
        !headers.contains_key("authorization"),
        "a token for a stranger"
    );
    let index = part - 1;
    let first_time = {
        let events = s.events.lock().unwrap();
        !events.contains(&format!("busy {index}"))
    };
    if s.faults.busy.contains(&index) && first_time {
        s.note(format!("busy {index}"));
        return (StatusCode::SERVICE_UNAVAILABLE, b"slow down".to_vec());
    }
    let expired = parameters["g"] == "0" && s.faults.expired_links.contains(&index);
    let generation: usize = parameters["g"].parse().unwrap();
    let expired = expired
        || generation < s.expired.load(Ordering::SeqCst)
        || s.given_up.load(Ordering::SeqCst);
    if expired || s.faults.dead_links {
        s.note(format!("refused {index}"));
        let body = format!("<Error>Request has expired: {SIGNATURE}</Error>");
        return (StatusCode::FORBIDDEN, body.into_bytes());
    }
    s.note(format!("begun {index}"));
    let (mut bytes, parts) = {
        let results = s.results.lock().unwrap();
        (results[id].parts[part].clone(), results[id].parts.len())
    };
    if s.faults.out_of_order && index % 2 == 0 && part + 1 < parts {
        s.wait_for(&format!("ended {}", index + 1)).await;
    }
    if let Some((cut, length)) = s.faults.truncated
        && cut == index
    {
        bytes.truncate(length);
    }
    s.note(format!("ended {index}"));
    (StatusCode::OK, bytes)
}

/// The columns that `sql` names, or all; a column that the table lacks counts rows.
fn select(rows: &Rows, sql: &str, describe: bool) -> (Vec<Value>, Vec<Vec<u8>>) {
    let list = sql.strip_prefix("SELECT ").unwrap();
    let list = list.split(" FROM ").next().unwrap();
    let all = |batch: &RecordBatch| match list {
        "*" => batch.clone(),
        "1 AS \"one\"" => {
            let ones: ArrayRef = Arc::new(Int8Array::from(vec![1; batch.num_rows()]));
            RecordBatch::try_from_iter([("one", ones)]).unwrap()
        }
        list => {
            let names = list.split(", ").map(|n| n.trim_matches('"'));
            let places: Vec<usize> = names.map(|n| batch.schema().index_of(n).unwrap()).collect();
            batch.project(&places).unwrap()
        }
    };
    let parts = match describe {
        true => vec![],
        false => rows.parts.iter().map(|b| ipc(&all(b))).collect(),
    };
    let rowtype = match list {
        "*" => rows.rowtype.clone(),
        "1 AS \"one\"" => vec![rowtype("one", "fixed", 1, 0)],
        list => {
            let names = list.split(", ").map(|n| n.trim_matches('"'));
            let find = |n: &str| {
                rows.rowtype
                    .iter()
                    .find(|r| r["name"] == n)
                    .unwrap()
                    .clone()
            };
            names.map(find).collect()
        }
    };
    (rowtype, parts)
}

pub(crate) fn rowtype(name: &str, kind: &str, precision: i64, scale: i64) -> Value {
    json!({"name": name, "type": kind, "precision": precision, "scale": scale, "nullable": true,
        "length": null, "byteLength": null, "collation": null, "ext": "unknown"})
}

fn ipc(batch: &RecordBatch) -> Vec<u8> {
    let mut writer = StreamWriter::try_new(vec![], &batch.schema()).unwrap();
    writer.write(batch).unwrap();
    writer.finish().unwrap();
    writer.into_inner().unwrap()
}

/// A column with its scale in the metadata, as Snowflake sends it.
pub(crate) fn column(name: &str, array: ArrayRef, scale: i64) -> (Field, ArrayRef) {
    let metadata = HashMap::from([("scale".to_owned(), scale.to_string())]);
    let field = Field::new(name, array.data_type().clone(), true).with_metadata(metadata);
    (field, array)
}

pub(crate) fn batch(columns: Vec<(Field, ArrayRef)>) -> RecordBatch {
    let (fields, arrays): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}
