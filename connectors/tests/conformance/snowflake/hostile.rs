//! A server, or what stands in its place, that says what is not so: the right rows or an error.

use serde_json::json;

use super::faults::{PART, collect, ids, rows, table};
use crate::fake::proxy::Proxy;
use crate::fake::snowflake::{Fake, Faults, Instead, PASSWORD};
use crate::fake::tls::Tls;

/// What reading and counting all rows say.
async fn refused(faults: Faults, parts: &[&str]) {
    let fake = Fake::start(rows(4), faults).await;
    for sql in ["SELECT id FROM t", "SELECT count(*) FROM t"] {
        let error = collect(&fake, sql).await.unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "{sql}: {error}");
        }
        assert!(error.contains("db.s.cases"), "{sql}: {error}");
    }
}

#[tokio::test]
async fn counts_that_do_not_go_together_are_refused() {
    for (said_rows, part) in [((1, 39), "40 rows, not 39"), ((2, 41), "40 rows, not 41")] {
        let faults = Faults {
            said_rows: Some(said_rows),
            says: Some(json!({"total": null})),
            ..Faults::default()
        };
        refused(faults, &["damaged", part]).await;
    }
    for (says, part) in [
        (json!({"total": 4 * PART + 1}), "40 rows, not 41"),
        (json!({"total": 4 * PART - 1}), "40 rows, not 39"),
        (json!({"total": PART}), "more in the chunks"),
        (json!({"rowsetBase64": ""}), "damaged"),
        (json!({"rowsetBase64": "%%%"}), "base64"),
        (json!({"rowtype": []}), "names no columns"),
        (json!({"rowtype": null}), "names no columns"),
    ] {
        let faults = Faults {
            says: Some(says),
            ..Faults::default()
        };
        refused(faults, &[part]).await;
    }
    // More than can be added up.
    let faults = Faults {
        said_rows: Some((1, usize::MAX)),
        ..Faults::default()
    };
    refused(faults, &["more in the chunks"]).await;
    let faults = Faults {
        same_link: Some(1),
        ..Faults::default()
    };
    refused(faults, &["lists a chunk twice"]).await;
    // What only leaves things out is no lie.
    let faults = Faults {
        says: Some(json!({"total": null})),
        ..Faults::default()
    };
    let fake = Fake::start(rows(4), faults).await;
    let all = collect(&fake, "SELECT id FROM t").await.unwrap();
    assert_eq!(ids(&all), (0..4 * PART).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_page_for_people_is_no_answer() {
    for at in ["login-request", "query-request", "/chunk/"] {
        let faults = Faults {
            instead: Some((at, Instead::Page)),
            ..Faults::default()
        };
        let fake = Fake::start(rows(3), faults).await;
        let error = collect(&fake, "SELECT id FROM t")
            .await
            .unwrap_err()
            .to_string();
        let part = match at {
            "/chunk/" => "damaged",
            _ => "snowflake.host",
        };
        assert!(error.contains(part), "{at}: {error}");
    }
}

#[tokio::test]
async fn password_and_token_go_to_nobody_else() {
    let other = Fake::start(rows(3), Faults::default()).await;
    for at in ["login-request", "query-request", "/chunk/"] {
        let to = format!("{}/session/v1/{at}", other.url);
        let faults = Faults {
            instead: Some((at, Instead::Moved(to))),
            ..Faults::default()
        };
        let fake = Fake::start(rows(3), faults).await;
        let error = collect(&fake, "SELECT id FROM t").await.unwrap_err();
        let error = format!("{error} {error:?}");
        assert!(!error.contains(PASSWORD), "{error}");
        if at != "/chunk/" {
            assert!(error.contains(&other.url), "{error}");
        }
    }
    assert_eq!(other.events(), Vec::<String>::new());
}

#[tokio::test]
async fn a_long_refusal_is_cut() {
    let faults = Faults {
        long_message: 30 << 20,
        ..Faults::default()
    };
    let fake = Fake::start(rows(1), faults).await;
    let error = collect(&fake, "SELECT id FROM t").await.unwrap_err();
    assert!(error.to_string().len() < 4000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_named_stands_before_every_request() {
    let fake = Fake::start(rows(2), Faults::default()).await;
    let proxy = Proxy::before(&fake.url).await;
    let more = format!(", 'snowflake.proxy' 'http://{}'", proxy.address);
    let ctx = table("http://account.example", PASSWORD, &more)
        .await
        .unwrap();
    let all = ctx.sql("SELECT id FROM t").await.unwrap().collect().await;
    assert_eq!(ids(&all.unwrap()).len() as i64, 2 * PART);
    let heads = proxy.heads();
    assert!(!heads.is_empty());
    for head in heads {
        assert!(head.contains(" http://"), "{head}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_of_ones_own_is_trusted_when_it_is_named() {
    let fake = Fake::start(rows(2), Faults::default()).await;
    let tls = Tls::before(&fake.url).await;
    let with = |file: &std::path::Path| format!(", 'tls.ca_file' '{}'", file.display());
    let ctx = table(&tls.url, PASSWORD, &with(&tls.ca_file))
        .await
        .unwrap();
    let all = ctx.sql("SELECT id FROM t").await.unwrap().collect().await;
    assert_eq!(ids(&all.unwrap()).len() as i64, 2 * PART);
    let before = fake.events();
    for more in [String::new(), with(&tls.other_ca_file)] {
        let error = table(&tls.url, PASSWORD, &more).await.err().unwrap();
        let error = error.to_string();
        for part in ["localhost", "tls.ca_file"] {
            assert!(error.contains(part), "{error}");
        }
    }
    assert_eq!(fake.events(), before);
}
