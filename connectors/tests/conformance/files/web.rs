//! Files behind URLs that are signed: GET alone, the query always, and never shown.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::place::{ask, create, number, session};

const CONTENT: &str = "id,text\n1,one\n2,two\n";
const SIGNED: &str = "X-Amz-Expires=3600&sig=S3CRET%2Fx";

#[derive(Clone, Default)]
struct Server {
    seen: Arc<Mutex<Vec<String>>>,
    ignores_ranges: bool,
}

async fn answer(State(server): State<Server>, request: Request) -> Response {
    let line = format!("{} {}", request.method(), request.uri());
    server.seen.lock().unwrap().push(line);
    let uri = request.uri();
    if request.method() != "GET" || uri.query() != Some(SIGNED) {
        return StatusCode::FORBIDDEN.into_response();
    }
    if !["/x.csv", "/a%20b.csv", "/a%2Fb.csv", "/x.json"].contains(&uri.path()) {
        return StatusCode::NOT_FOUND.into_response();
    }
    let content = match uri.path() {
        "/x.json" => "{\"id\":1}\n{\"id\":2}\n",
        _ => CONTENT,
    };
    let range = |headers: &HeaderMap| {
        let range = headers.get(header::RANGE)?.to_str().ok()?;
        let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
        let to = to.parse::<usize>().unwrap_or(content.len() - 1);
        Some((from.parse::<usize>().ok()?, to.min(content.len() - 1)))
    };
    match range(request.headers()) {
        Some((from, to)) if !server.ignores_ranges => Response::builder()
            .status(StatusCode::PARTIAL_CONTENT)
            .header(
                header::CONTENT_RANGE,
                format!("bytes {from}-{to}/{}", content.len()),
            )
            .header(header::LAST_MODIFIED, "Wed, 01 Jan 2025 00:00:00 GMT")
            .body(Body::from(&content[from..=to]))
            .unwrap(),
        _ => content.into_response(),
    }
}

async fn serve(server: Server) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(answer).with_state(server);
    tokio::spawn(async move { axum::serve(listener, router).await });
    at
}

#[tokio::test(flavor = "multi_thread")]
async fn signed_urls_are_read_with_get_alone() {
    for ignores_ranges in [false, true] {
        let server = Server {
            ignores_ranges,
            ..Server::default()
        };
        let at = serve(server.clone()).await;
        let ctx = session(2);
        for (i, (format, path)) in [
            ("CSV", "/x.csv"),
            ("CSV", "/a%20b.csv"),
            ("CSV", "/a b.csv"),
            ("CSV", "/a%2Fb.csv"),
            ("JSON", "/x.json"),
        ]
        .into_iter()
        .enumerate()
        {
            let url = format!("{at}{path}?{SIGNED}");
            create(&ctx, &format!("t{i}"), format, &url, "")
                .await
                .unwrap();
            assert_eq!(
                number(&ctx, &format!("SELECT count(*) FROM t{i}")).await,
                2,
                "{path}"
            );
        }
        let plan = ask(&ctx, "EXPLAIN VERBOSE SELECT * FROM t0").await.unwrap();
        let error = create(&ctx, "n", "CSV", &format!("{at}/no.csv?{SIGNED}"), "").await;
        let wrong = create(&ctx, "w", "CSV", &format!("{at}/x.csv?sig=S3CRETwrong"), "").await;
        let (error, wrong) = (error.unwrap_err(), wrong.unwrap_err());
        assert!(error.contains("there is no object"), "{error}");
        for text in [plan, error, wrong] {
            assert!(!text.contains("S3CRET"), "{text}");
        }
        let seen = server.seen.lock().unwrap().clone();
        assert!(seen.iter().all(|line| line.starts_with("GET ")), "{seen:?}");
    }
}
