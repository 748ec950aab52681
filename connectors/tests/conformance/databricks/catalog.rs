//! Signing in and finding tables.

use casebook_connectors::{CONNECTORS, CheckRequest};

use super::*;
use crate::fake::databricks::{CLIENT, Fault};

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_is_denied_and_not_shown() {
    let fake = Fake::start().await;
    fake.add_rows("cases", cases(1));
    let wrong = [("databricks.token", "dapi-hidden-wrong")];
    let error = create(&session(), &fake, "cases", &wrong)
        .await
        .unwrap_err();
    assert_has(
        &message(&error),
        &["main.legal.cases", "401", "check the token"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn oauth_tokens_are_kept_while_they_are_good() {
    let fake = Fake::start().await;
    fake.add_rows("cases", cases(3));
    let machine = [
        ("databricks.token", ""),
        ("databricks.client_id", CLIENT.0),
        ("databricks.client_secret", CLIENT.1),
        ("databricks.read", "warehouse"),
    ];
    let ctx = session();
    create(&ctx, &fake, "cases", &machine).await.unwrap();
    assert_eq!(
        query(&ctx, "SELECT * FROM cases").await.unwrap()[0].num_rows(),
        3
    );
    assert_eq!(fake.get(|inner| inner.issued), 1);
    // Revoked before its time: one new token, and the query goes on.
    fake.revoke();
    assert_eq!(
        query(&ctx, "SELECT * FROM cases").await.unwrap()[0].num_rows(),
        3
    );
    assert_eq!(fake.get(|inner| inner.issued), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn oauth_tokens_that_expire_are_renewed() {
    let fake = Fake::start().await;
    fake.add_rows("cases", cases(3));
    fake.set(|inner| inner.token_lifetime_secs = 0);
    let machine = [
        ("databricks.token", ""),
        ("databricks.client_id", CLIENT.0),
        ("databricks.client_secret", CLIENT.1),
        ("databricks.read", "warehouse"),
    ];
    let ctx = session();
    create(&ctx, &fake, "cases", &machine).await.unwrap();
    query(&ctx, "SELECT * FROM cases").await.unwrap();
    // Each call of the API asked for its own: the table, the statement.
    assert_eq!(fake.get(|inner| inner.issued), 2);

    let wrong = [
        ("databricks.token", ""),
        ("databricks.client_id", CLIENT.0),
        ("databricks.client_secret", "oauth-hidden-wrong"),
    ];
    let error = create(&session(), &fake, "cases", &wrong)
        .await
        .unwrap_err();
    assert_has(&message(&error), &["principal", "databricks.client_secret"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_table_is_named_with_its_neighbours() {
    let fake = Fake::start().await;
    for name in ["cases", "opinions", "statutes", "judges", "zoning"] {
        fake.add_rows(name, cases(1));
    }
    let ctx = session();
    // Found on the last of the pages.
    let error = create(&ctx, &fake, "zonings", &[]).await.unwrap_err();
    assert_has(
        &message(&error),
        &["'zonings'", "Did you mean 'zoning'?", "cases"],
    );
    let error = create_at(&ctx, &fake, "c", "main.legl.cases", &[])
        .await
        .unwrap_err();
    assert_has(
        &message(&error),
        &["no schema 'legl'", "Did you mean 'legal'?"],
    );
    let error = create_at(&ctx, &fake, "c", "mian.legal.cases", &[])
        .await
        .unwrap_err();
    assert_has(
        &message(&error),
        &["no catalog 'mian'", "Did you mean 'main'?"],
    );
    create(&ctx, &fake, "cases", &[]).await.unwrap();
    let error = query(&ctx, "SELECT txt FROM cases").await.unwrap_err();
    assert_has(&message(&error), &["txt", "cases.text"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn passing_troubles_pass() {
    let fake = Fake::start().await;
    fake.add_rows("cases", cases(1));
    fake.fail(
        "GET /api/2.1/unity-catalog/tables",
        Fault::Status(429, Some("0")),
    );
    fake.fail(
        "GET /api/2.1/unity-catalog/tables",
        Fault::Status(503, None),
    );
    create(&session(), &fake, "cases", &[]).await.unwrap();
    let asked = fake.get(|i| i.requests.iter().filter(|r| r.contains("/tables/")).count());
    assert_eq!(asked, 3);
}

async fn steps(fake: &Fake, table: &str, more: &[(&str, &str)]) -> Vec<(&'static str, String)> {
    let connector = CONNECTORS.iter().find(|c| c.name == "DATABRICKS").unwrap();
    let request = CheckRequest {
        location: format!("main.legal.{table}"),
        options: options(fake, more).into(),
        write: true,
    };
    let steps = connector.check(request).await;
    let text = |step: casebook_connectors::CheckStep| match step.result {
        Ok(found) => (step.name, found),
        Err(error) => (step.name, format!("failed: {}", message(&error))),
    };
    steps.into_iter().map(text).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn check_names_the_step_that_fails() {
    let fake = Fake::start().await;
    let dir = tempfile::tempdir().unwrap();
    delta_cases(dir.path(), 5, 5).await;
    let location = format!("file://{}", dir.path().display());
    fake.add_files("cases", &location, no_keys);
    let all = [
        "options",
        "reach",
        "sign in",
        "find table",
        "open",
        "read",
        "write",
    ];
    let names = |steps: &[(&'static str, String)]| steps.iter().map(|s| s.0).collect::<Vec<_>>();

    let files = steps(&fake, "cases", &[]).await;
    assert_eq!(names(&files), all, "{files:?}");
    assert!(
        files.iter().all(|s| !s.1.starts_with("failed")),
        "{files:?}"
    );
    assert_eq!(files[4].1, "as files");
    assert_eq!(files[5].1, "1 row");
    // The scratch file is gone.
    let left = std::fs::read_dir(dir.path()).unwrap();
    assert_eq!(
        left.filter(|e| e.as_ref().unwrap().path().is_file())
            .count(),
        1
    );

    fake.add_rows("managed", cases(2));
    let managed = steps(&fake, "managed", &[]).await;
    assert_eq!(names(&managed), all, "{managed:?}");
    assert!(managed[4].1.contains("EXTERNAL USE SCHEMA"), "{managed:?}");
    assert!(managed[6].1.contains("casebook_check_"), "{managed:?}");

    let last = async |table: &str, more: &[(&str, &str)]| {
        let steps = steps(&fake, table, more).await;
        let last = steps.last().unwrap().clone();
        assert!(last.1.starts_with("failed"), "{steps:?}");
        last.0
    };
    assert_eq!(
        last("cases", &[("databricks.token", "dapi-hidden-wrong")]).await,
        "sign in"
    );
    assert_eq!(last("casses", &[]).await, "find table");
    assert_eq!(
        last("managed", &[("databricks.warehouse_id", "")]).await,
        "open"
    );
    let host = [("databricks.host", "http://127.0.0.1:9")];
    assert_eq!(last("cases", &host).await, "reach");
    assert_eq!(last("cases", &[("databricks.hots", "x")]).await, "options");
}
