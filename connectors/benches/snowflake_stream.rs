//! A result of 300 MB in 30 chunks, read by Casebook and by snowflake-api's own `exec`: seconds and
//! peak resident memory, each in a process of its own, in turns.
//!
//! `cargo bench -p casebook-connectors --bench snowflake_stream`
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::print_stdout)] // it prints a table

use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Bytes;
use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use datafusion::arrow::ipc::writer::StreamWriter;
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;
use reqwest::{Request, Response};
use reqwest_middleware::{ClientBuilder, Middleware, Next};
use serde_json::{Value, json};
use snowflake_api::{AuthArgs, AuthType, PasswordArgs, QueryResult, SnowflakeApiBuilder};
use url::Url;

const CHUNKS: usize = 30;
const CHUNK_ROWS: usize = 2000;
/// Bytes of text in a row: a page of an opinion.
const TEXT_BYTES: usize = 5000;
const TURNS: usize = 5;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match &arguments[1..] {
        [reader, url] if reader == "casebook" => report(runtime.block_on(casebook(url))),
        [reader, url] if reader == "snowflake-api" => report(runtime.block_on(peer(url))),
        _ => runtime.block_on(compare()),
    }
}

/// Rows, seconds and peak memory on one line, for the parent.
fn report((rows, seconds): (usize, f64)) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status
        .lines()
        .find_map(|l| l.strip_prefix("VmHWM:"))
        .unwrap();
    let kilobytes = peak.trim().strip_suffix(" kB").unwrap().trim();
    println!("{rows} {seconds} {kilobytes}");
}

async fn compare() {
    let url = serve().await;
    let megabytes = (CHUNKS * CHUNK_ROWS * TEXT_BYTES) as f64 / 1e6;
    println!("{megabytes:.0} MB of text in {CHUNKS} chunks, {TURNS} turns each, medians");
    println!("| reader | seconds | MB/s | peak resident MB |");
    println!("|---|---|---|---|");
    let readers = ["casebook", "snowflake-api"];
    let mut runs: [Vec<(f64, f64)>; 2] = Default::default();
    for _ in 0..TURNS {
        for (reader, runs) in readers.iter().zip(&mut runs) {
            let (reader, url) = ((*reader).to_owned(), url.clone());
            let child = tokio::task::spawn_blocking(move || {
                let program = std::env::current_exe().unwrap();
                Command::new(program).args([reader, url]).output().unwrap()
            });
            let output = child.await.unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            let parts: Vec<f64> = text
                .split_whitespace()
                .map(|p| p.parse().unwrap())
                .collect();
            let [rows, seconds, kilobytes] = parts[..] else {
                panic!("{}", String::from_utf8_lossy(&output.stderr))
            };
            assert_eq!(rows as usize, CHUNKS * CHUNK_ROWS);
            runs.push((seconds, kilobytes / 1024.0));
        }
    }
    for (reader, runs) in readers.iter().zip(&runs) {
        let (seconds, peak) = (median(runs, |r| r.0), median(runs, |r| r.1));
        println!(
            "| {reader} | {seconds:.2} | {:.0} | {peak:.0} |",
            megabytes / seconds
        );
    }
}

fn median(runs: &[(f64, f64)], of: impl Fn(&(f64, f64)) -> f64) -> f64 {
    let mut values: Vec<f64> = runs.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn casebook(url: &str) -> (usize, f64) {
    let ctx = SessionContext::new();
    casebook_connectors::register(&ctx, &Default::default()).unwrap();
    let sql = format!(
        "CREATE EXTERNAL TABLE t STORED AS SNOWFLAKE LOCATION 'DB.S.T' OPTIONS (
           'snowflake.account' 'acct', 'snowflake.host' '{url}', 'snowflake.allow_http' 'true', 'snowflake.user' 'me',
           'snowflake.password' 'p')"
    );
    ctx.sql(&sql).await.unwrap().collect().await.unwrap();
    let begun = Instant::now();
    let frame = ctx.sql("SELECT * FROM t").await.unwrap();
    let stream = frame.execute_stream().await.unwrap();
    let rows = stream.try_fold(0, async |rows, batch| Ok(rows + batch.num_rows()));
    (rows.await.unwrap(), begun.elapsed().as_secs_f64())
}

async fn peer(url: &str) -> (usize, f64) {
    let client = ClientBuilder::new(reqwest::Client::new())
        .with(Redirect(Url::parse(url).unwrap()))
        .build();
    let api = SnowflakeApiBuilder::new(AuthArgs {
        account_identifier: "acct".into(),
        warehouse: None,
        database: None,
        schema: None,
        username: "me".into(),
        role: None,
        auth_type: AuthType::Password(PasswordArgs {
            password: "p".into(),
        }),
    });
    let api = api.with_client(client).build().unwrap();
    let begun = Instant::now();
    let QueryResult::Arrow(batches) = api.exec("SELECT * FROM T").await.unwrap() else {
        panic!("no Arrow")
    };
    let rows = batches.iter().map(|b| b.num_rows()).sum();
    (rows, begun.elapsed().as_secs_f64())
}

/// Sends the peer's requests, which can only go to snowflakecomputing.com, to our server.
struct Redirect(Url);

#[async_trait::async_trait]
impl Middleware for Redirect {
    async fn handle(
        &self,
        mut request: Request,
        extensions: &mut http::Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        let url = request.url_mut();
        url.set_scheme(self.0.scheme()).unwrap();
        url.set_host(self.0.host_str()).unwrap();
        url.set_port(self.0.port()).unwrap();
        next.run(request, extensions).await
    }
}

#[derive(Clone)]
struct Served {
    url: Arc<str>,
    chunk: Bytes,
}

/// A server of one result, whose chunks are all the same bytes.
async fn serve() -> String {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..CHUNK_ROWS as i64));
    let texts = (0..CHUNK_ROWS).map(|i| format!("{i:0>TEXT_BYTES$}"));
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
    let batch = RecordBatch::try_from_iter([("ID", ids), ("TEXT", texts)]).unwrap();
    let mut writer = StreamWriter::try_new(vec![], &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    let chunk = Bytes::from(writer.into_inner().unwrap());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let served = Served {
        url: url.as_str().into(),
        chunk,
    };
    let app = Router::new()
        .route("/session/v1/login-request", post(async || Json(login())))
        .route("/session", post(async || Json(json!({"success": true}))))
        .route("/queries/v1/query-request", post(query))
        .route("/chunk", get(async |State(s): State<Served>| s.chunk))
        .with_state(served);
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    url
}

fn login() -> Value {
    json!({"success": true, "code": null, "message": null, "data": {
        "sessionId": 1, "token": "t", "masterToken": "m", "serverVersion": "9", "parameters": [],
        "sessionInfo": {"roleName": "R"}, "masterValidityInSeconds": 14400,
        "validityInSeconds": 3600}})
}

async fn query(State(s): State<Served>, Json(body): Json<Value>) -> Json<Value> {
    let described = body["describeOnly"] == true;
    let chunks = if described { 0 } else { CHUNKS };
    let chunk = json!({"url": format!("{}/chunk", s.url), "rowCount": CHUNK_ROWS,
        "uncompressedSize": s.chunk.len(), "compressedSize": s.chunk.len()});
    let column = |name: &str, kind: &str| {
        json!({"name": name, "type": kind, "nullable": true, "precision": 18, "scale": 0,
            "length": null, "byteLength": null})
    };
    Json(
        json!({"success": true, "code": null, "message": null, "data": {
        "parameters": [], "rowtype": [column("ID", "fixed"), column("TEXT", "text")],
        "rowsetBase64": "", "total": chunks * CHUNK_ROWS, "returned": chunks * CHUNK_ROWS,
        "queryId": "q", "finalRoleName": "R", "statementTypeId": 4096, "version": 1,
        "queryResultFormat": "arrow", "chunks": vec![chunk; chunks]}}),
    )
}
