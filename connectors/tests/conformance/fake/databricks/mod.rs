//! A workspace after the public REST documentation: OAuth, Unity Catalog 2.1, the SQL Statement
//! Execution API 2.0 and the storage behind its links, with faults on request.
//!
//! Its warehouse is a DataFusion session: statements are run as they come, but for the few words
//! that DataFusion lacks (see [`Fake::translated`]).

mod unity;
mod warehouse;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use datafusion::arrow::array::{ArrayRef, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::ipc::writer::StreamWriter;
use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, MemorySchemaProvider};
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};
use serde_json::{Value, json};
use tokio::sync::Notify;
use url::form_urlencoded;

/// Secrets that no message may hold.
pub(crate) const SECRETS: &[&str] = &[
    "dapi-hidden",
    "oauth-hidden",
    "hidden-signature",
    "hidden-key",
];
pub(crate) const TOKEN: &str = "dapi-hidden";
pub(crate) const CLIENT: (&str, &str) = ("principal", "oauth-hidden-secret");

type Vend = Box<dyn Fn(u32, &str) -> (StatusCode, Value) + Send>;

/// What the server is asked to do wrong.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// An error status, with a Retry-After if given.
    Status(u16, Option<&'static str>),
    /// A page for people, with the status of a success.
    Page,
    /// A redirect.
    Moved(String),
    /// An error status with many megabytes of text.
    Long(u16, usize),
}

#[derive(Default)]
pub(crate) struct Inner {
    /// Tables with files, views and the like, as the catalog describes them.
    tables: BTreeMap<String, Value>,
    vends: HashMap<String, Vend>,
    /// Bearer tokens that are good.
    tokens: HashSet<String>,
    pub(crate) token_lifetime_secs: u64,
    pub(crate) issued: u32,
    faults: VecDeque<(String, Fault)>,
    /// `METHOD path`, in order.
    pub(crate) requests: Vec<String>,
    /// (table id, operation)
    pub(crate) vended: Vec<(String, String)>,
    /// Statements as they came.
    pub(crate) statements: Vec<String>,
    pub(crate) cancelled: Vec<String>,
    results: HashMap<String, Vec<(usize, Bytes)>>,
    answers: HashMap<String, Value>,
    /// Looks at a statement until it has ended.
    pub(crate) polls: u32,
    left: HashMap<String, u32>,
    pub(crate) truncated: bool,
    /// Statements containing the first text fail with this error.
    pub(crate) failing: Option<(String, Value)>,
    /// So many MERGEs fail, because another writer is faster.
    pub(crate) conflicts: u32,
    /// Statement that ends the server's life: from it on everything is answered with 503.
    pub(crate) dies_at: Option<usize>,
    pub(crate) rows_per_chunk: usize,
    /// Chunks whose first link has expired.
    pub(crate) expired: HashSet<u32>,
    links: HashMap<(String, u32), u32>,
    /// Links up to these have expired, by [`Fake::expire_links`].
    dead: HashMap<(String, u32), u32>,
    /// Results are no longer kept.
    pub(crate) given_up: bool,
    /// The chunk whose link leads to the one before it.
    pub(crate) same_link: Option<u32>,
    /// What the manifest says instead; none: there is no manifest.
    pub(crate) manifest: Option<Option<Value>>,
    /// What becomes of the rows of a chunk, by its number.
    pub(crate) chunk: Option<fn(usize, RecordBatch) -> RecordBatch>,
    /// Chunk 0 is held back until this chunk has been asked for.
    pub(crate) first_waits_for: Option<u32>,
    pub(crate) downloaded: Vec<u32>,
    /// Bytes cut off the end of each chunk.
    pub(crate) cut: usize,
    /// The byte of each chunk of which a bit is turned.
    pub(crate) turned: Option<usize>,
    /// How many chunks the manifest says there are, if not as many as there are.
    pub(crate) chunk_count: Option<u64>,
}

pub(crate) struct Fake {
    pub(crate) url: String,
    pub(crate) ctx: SessionContext,
    pub(crate) inner: Mutex<Inner>,
    asked: Notify,
}

impl Fake {
    /// A workspace with the empty schema main.legal.
    pub(crate) async fn start() -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = SessionConfig::new()
            .with_target_partitions(1)
            .set_str("datafusion.sql_parser.dialect", "databricks");
        let ctx = SessionContext::new_with_config(config);
        let catalog = Arc::new(MemoryCatalogProvider::new());
        catalog
            .register_schema("legal", Arc::new(MemorySchemaProvider::new()))
            .unwrap();
        ctx.register_catalog("main", catalog);
        let fake = Arc::new(Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            ctx,
            inner: Mutex::new(Inner {
                tokens: HashSet::from([TOKEN.to_owned()]),
                token_lifetime_secs: 3600,
                rows_per_chunk: 1000,
                ..Inner::default()
            }),
            asked: Notify::new(),
        });
        let app = Router::new()
            .fallback(answer)
            .layer(DefaultBodyLimit::disable())
            .with_state(Arc::clone(&fake));
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        fake
    }

    pub(crate) fn set<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        change(&mut self.inner.lock().unwrap())
    }

    pub(crate) fn get<T>(&self, what: impl FnOnce(&Inner) -> T) -> T {
        what(&self.inner.lock().unwrap())
    }

    /// The next request whose `METHOD path` contains `matching` fails.
    pub(crate) fn fail(&self, matching: &str, fault: Fault) {
        self.set(|inner| inner.faults.push_back((matching.to_owned(), fault)));
    }

    /// Rows that the warehouse knows as main.legal.`name`.
    pub(crate) fn add_rows(&self, name: &str, batch: RecordBatch) {
        let table = MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap();
        let name = format!("main.legal.{name}");
        self.ctx
            .register_table(name.as_str(), Arc::new(table))
            .unwrap();
    }

    /// An entry of the catalog; what `info` does not say is taken from the warehouse.
    pub(crate) fn add_info(&self, name: &str, info: Value) {
        self.set(|inner| inner.tables.insert(name.to_owned(), info));
    }

    /// An external Delta table; `vend` is given the number of the call and the operation.
    pub(crate) fn add_files(
        &self,
        name: &str,
        location: &str,
        vend: impl Fn(u32, &str) -> (StatusCode, Value) + Send + 'static,
    ) {
        self.add_info(
            name,
            json!({"table_id": format!("id-{name}"), "table_type": "EXTERNAL",
                "data_source_format": "DELTA", "storage_location": location}),
        );
        let id = format!("id-{name}");
        self.set(|inner| inner.vends.insert(id, Box::new(vend)));
    }

    /// The rows that the warehouse holds as main.legal.`name`.
    pub(crate) async fn rows(&self, sql: &str) -> Vec<RecordBatch> {
        self.ctx.sql(sql).await.unwrap().collect().await.unwrap()
    }

    async fn storage(&self, path: &[&str], headers: &HeaderMap) -> Response {
        let [id, chunk, number] = path else {
            return error(404, "", "no such path");
        };
        assert!(
            headers.get("authorization").is_none(),
            "the token went to the storage"
        );
        assert_eq!(headers["x-encryption-key"], "hidden-key");
        let chunk: u32 = chunk.parse().unwrap();
        let wait = {
            let mut inner = self.inner.lock().unwrap();
            let last_dead = inner.dead.get(&((*id).to_owned(), chunk));
            let dead = last_dead.is_some_and(|last| number.parse::<u32>().unwrap() <= *last);
            if inner.given_up {
                return error(404, "NOT_FOUND", "the result is gone");
            }
            if dead || (inner.expired.contains(&chunk) && *number == "1") {
                let says = "<Error><Code>AccessDenied</Code>hidden-signature</Error>";
                return (StatusCode::FORBIDDEN, says).into_response();
            }
            inner.downloaded.push(chunk);
            inner.first_waits_for.filter(|_| chunk == 0)
        };
        self.asked.notify_waiters();
        if let Some(other) = wait {
            loop {
                let asked = self.asked.notified();
                if self.get(|inner| inner.downloaded.contains(&other)) {
                    break;
                }
                asked.await;
            }
        }
        let chunk = self.get(|inner| inner.results[*id].get(chunk as usize).cloned());
        match chunk {
            Some((_, bytes)) => bytes.into_response(),
            None => (StatusCode::NOT_FOUND, "no such chunk").into_response(),
        }
    }

    fn issue(&self, headers: &HeaderMap, body: &str) -> Response {
        // The client's name and secret, as HTTP's basic authentication writes them.
        let basic = "Basic cHJpbmNpcGFsOm9hdXRoLWhpZGRlbi1zZWNyZXQ=";
        if headers["authorization"] != basic {
            return (
                StatusCode::UNAUTHORIZED,
                axum::Json(json!({"error": "invalid_client"})),
            )
                .into_response();
        }
        assert_eq!(body, "grant_type=client_credentials&scope=all-apis");
        let mut inner = self.inner.lock().unwrap();
        inner.issued += 1;
        let token = format!("oauth-hidden-{}", inner.issued);
        inner.tokens.insert(token.clone());
        axum::Json(json!({"access_token": token, "token_type": "Bearer",
            "expires_in": inner.token_lifetime_secs}))
        .into_response()
    }

    /// Makes all links that were given so far worthless.
    pub(crate) fn expire_links(&self) {
        self.set(|inner| inner.dead = inner.links.clone());
    }

    /// Makes all tokens worthless.
    pub(crate) fn revoke(&self) {
        self.set(|inner| inner.tokens.clear());
    }
}

impl Fault {
    fn answer(self) -> Response {
        match self {
            Self::Status(status, retry_after) => {
                let mut answer = error(status, "FAULT", "as asked");
                if let Some(seconds) = retry_after {
                    let headers = answer.headers_mut();
                    headers.insert("retry-after", seconds.parse().unwrap());
                }
                answer
            }
            Self::Page => {
                let page = "<!DOCTYPE html><html><body>Please sign in</body></html>";
                ([("content-type", "text/html")], page).into_response()
            }
            Self::Moved(to) => (StatusCode::TEMPORARY_REDIRECT, [("location", to)]).into_response(),
            Self::Long(status, bytes) => {
                let status = StatusCode::from_u16(status).unwrap();
                (status, "no, ".repeat(bytes / 4)).into_response()
            }
        }
    }
}

async fn answer(
    State(fake): State<Arc<Fake>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let request = format!("{method} {}", uri.path());
    let fault = {
        let mut inner = fake.inner.lock().unwrap();
        inner.requests.push(request.clone());
        let at = inner
            .faults
            .iter()
            .position(|(part, _)| request.contains(part));
        at.and_then(|at| inner.faults.remove(at))
    };
    if let Some((_, fault)) = fault {
        return fault.answer();
    }
    let path: Vec<&str> = uri.path().trim_matches('/').split('/').collect();
    let query = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let query: HashMap<String, String> = query.into_owned().collect();
    match &path[..] {
        ["storage", rest @ ..] => return fake.storage(rest, &headers).await,
        ["oidc", "v1", "token"] => {
            return fake.issue(&headers, std::str::from_utf8(&body).unwrap());
        }
        _ => {}
    }
    let token = headers
        .get("authorization")
        .and_then(|v| v.to_str().ok())
        .unwrap_or("");
    let token = token.strip_prefix("Bearer ").unwrap_or("");
    if !fake.get(|inner| inner.tokens.contains(token)) {
        return error(401, "UNAUTHENTICATED", "the token is not valid");
    }
    let json = || serde_json::from_slice::<Value>(&body).unwrap();
    match (&method, &path[..]) {
        (&Method::GET, ["api", "2.1", "unity-catalog", "tables", name]) => {
            let name = name.strip_prefix("main.legal.").unwrap_or("");
            match fake.info(name).await {
                Some(info) => axum::Json(info).into_response(),
                None => error(404, "TABLE_DOES_NOT_EXIST", "the table does not exist"),
            }
        }
        (&Method::GET, ["api", "2.1", "unity-catalog", kind]) => fake.page(kind, &query),
        (&Method::POST, ["api", "2.1", "unity-catalog", "temporary-table-credentials"]) => {
            fake.vend(&json())
        }
        (&Method::POST, ["api", "2.0", "sql", "statements"]) => fake.execute(&json()).await,
        (&Method::GET, ["api", "2.0", "sql", "statements", id]) => fake.look(id),
        (
            &Method::GET,
            [
                "api",
                "2.0",
                "sql",
                "statements",
                id,
                "result",
                "chunks",
                chunk,
            ],
        ) => {
            if fake.get(|inner| inner.given_up) {
                return error(404, "NOT_FOUND", "the result is gone");
            }
            let link = fake.link(id, chunk.parse().unwrap());
            axum::Json(json!({"external_links": [link]})).into_response()
        }
        (&Method::POST, ["api", "2.0", "sql", "statements", id, "cancel"]) => {
            fake.set(|inner| inner.cancelled.push((*id).to_owned()));
            fake.asked.notify_waiters();
            axum::Json(json!({})).into_response()
        }
        _ => error(404, "ENDPOINT_NOT_FOUND", &request),
    }
}

impl Fake {
    /// Waits until the server has been asked for what `seen` looks for.
    pub(crate) async fn until(&self, seen: impl Fn(&Inner) -> bool) {
        loop {
            let asked = self.asked.notified();
            if self.get(&seen) {
                return;
            }
            tokio::select! {
                () = asked => {}
                () = tokio::time::sleep(std::time::Duration::from_millis(20)) => {}
            }
        }
    }
}

fn error(status: u16, code: &str, message: &str) -> Response {
    let body = json!({"error_code": code, "message": message});
    (StatusCode::from_u16(status).unwrap(), axum::Json(body)).into_response()
}

/// Columns as the catalog and the manifests describe them.
fn columns(schema: &SchemaRef) -> Value {
    let column = |(i, field): (usize, &Arc<Field>)| {
        let (name, text) = match field.data_type() {
            DataType::Int64 => ("LONG", "bigint"),
            DataType::Int32 => ("INT", "int"),
            DataType::Int16 => ("SHORT", "smallint"),
            DataType::Float32 => ("FLOAT", "float"),
            DataType::Float64 => ("DOUBLE", "double"),
            DataType::Boolean => ("BOOLEAN", "boolean"),
            DataType::Date32 => ("DATE", "date"),
            DataType::Timestamp(_, Some(_)) => ("TIMESTAMP", "timestamp"),
            DataType::Timestamp(_, None) => ("TIMESTAMP_NTZ", "timestamp_ntz"),
            DataType::Decimal128(..) => ("DECIMAL", "decimal(12,2)"),
            DataType::Binary => ("BINARY", "binary"),
            _ => ("STRING", "string"),
        };
        json!({"name": field.name(), "type_name": name, "type_text": text, "position": i,
            "type_precision": 12, "type_scale": 2})
    };
    schema.fields().iter().enumerate().map(column).collect()
}
