//! What goes wrong says what it was and what to do, and never a secret.

use casebook_connectors::{CONNECTORS, CheckRequest};
use datafusion::error::DataFusionError;

use super::{Source, create, session, shown};

/// All that an error can show.
fn all(error: &DataFusionError) -> String {
    format!("{error} {error:?}")
}

/// The password of a connection string.
fn password(connection: &str) -> &str {
    let (_, rest) = connection.split_once("Pwd=").unwrap();
    rest.split_once(';').unwrap().0
}

/// `location` with a connection string, and what the error says.
async fn refused(location: &str, connection: &str, options: &[(&str, &str)]) -> String {
    let ctx = session();
    let created = create(&ctx, "t", location, connection, options).await;
    all(&created.unwrap_err())
}

#[tokio::test]
async fn each_failure_says_what_to_do() {
    let Some(source) = Source::postgres("failures") else {
        return;
    };
    source.run("CREATE TABLE failures.t (id int)");
    let good = &source.connection;
    let secret = password(good);
    let check = |message: String, expected: &[&str]| {
        assert!(
            expected.iter().all(|part| message.contains(part)),
            "{message}"
        );
        assert!(
            !message.contains(secret) && !message.contains("wr0ng"),
            "{message}"
        );
    };
    let wrong = good.replace(secret, "wr0ng-password");
    check(
        refused("failures.t", &wrong, &[]).await,
        &["login was refused", "odbc.password"],
    );
    let closed = good.replace("Port=", "Port=1;X=");
    check(
        refused("failures.t", &closed, &[]).await,
        &["check host, port"],
    );
    let absent = good.replace("Database=postgres", "Database=nowhere");
    check(
        refused("failures.t", &absent, &[]).await,
        &["name of the database"],
    );
    let driver = good.replace("PostgreSQL Unicode", "No Such Driver");
    check(
        refused("failures.t", &driver, &[]).await,
        &["installed: ", "No Such Driver"],
    );
    check(
        refused("failures.none", good, &[]).await,
        &["failures", "none", "LOCATION"],
    );
    check(refused("a.b.c.d", good, &[]).await, &["schema.table"]);
    check(
        refused("failures.t", good, &[("odbc.pasword", "x")]).await,
        &["odbc.password"],
    );
    check(
        refused("failures.t", good, &[("aws.region", "x")]).await,
        &["odbc.dsn"],
    );
    check(
        refused("failures.t", good, &[("write.key", "ix")]).await,
        &["write.key", "id"],
    );
}

#[tokio::test]
async fn a_column_that_is_gone_is_named() {
    for source in Source::all("gone") {
        let table = source.table("t");
        source.run(&format!("CREATE TABLE {table} (id int, body text)"));
        let ctx = session();
        source.create(&ctx, "t").await;
        let unknown = ctx.sql("SELECT boddy FROM t").await.unwrap_err();
        assert!(unknown.to_string().contains("boddy"), "{unknown}");
        source.run(&format!("ALTER TABLE {table} RENAME COLUMN body TO text"));
        let read = ctx.sql("SELECT body FROM t").await.unwrap().collect().await;
        let error = all(&read.unwrap_err());
        assert!(
            error.contains("body") && error.contains("create the external table"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_given_up() {
    let Some(source) = Source::postgres("timeout") else {
        return;
    };
    source.run("CREATE VIEW timeout.v AS SELECT 1 AS id, pg_sleep(600)::text AS t");
    let ctx = session();
    let options = [("odbc.query_timeout_secs", "1")];
    source.create_with(&ctx, "v", "v", &options).await.unwrap();
    let error = ctx
        .sql("SELECT * FROM v")
        .await
        .unwrap()
        .collect()
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("odbc.query_timeout_secs"),
        "{error}"
    );
}

#[tokio::test]
async fn plans_and_providers_show_no_secret() {
    let Some(source) = Source::postgres("secrets") else {
        return;
    };
    source.run("CREATE TABLE secrets.t (id int, body text)");
    let ctx = session();
    source.create(&ctx, "t").await;
    let secret = password(&source.connection);
    let provider = ctx.table_provider("t").await.unwrap();
    let insert = "EXPLAIN VERBOSE INSERT INTO t SELECT * FROM t WHERE id > 1";
    let plan = ctx
        .sql("SELECT * FROM t")
        .await
        .unwrap()
        .create_physical_plan()
        .await
        .unwrap();
    for shown in [
        shown(&ctx, "EXPLAIN VERBOSE SELECT * FROM t").await,
        shown(&ctx, insert).await,
        format!("{provider:?} {plan:?}"),
    ] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[tokio::test]
async fn check_names_the_step_that_fails() {
    let Some(source) = Source::postgres("checked") else {
        return;
    };
    source.run("CREATE TABLE checked.t (id int)");
    let odbc = CONNECTORS.iter().find(|c| c.name == "ODBC").unwrap();
    let good = &source.connection;
    let secret = password(good);
    let steps = async |connection: &str, location: &str| {
        let request = CheckRequest {
            location: location.into(),
            options: [("odbc.connection_string".to_owned(), connection.to_owned())].into(),
            write: true,
        };
        let steps = odbc.check(request).await;
        let failed = steps.iter().find(|s| s.result.is_err()).map(|s| s.name);
        let names: Vec<_> = steps.iter().map(|s| s.name).collect();
        (failed, names)
    };
    let (failed, names) = steps(good, "checked.t").await;
    assert_eq!(failed, None);
    let all = [
        "options", "driver", "reach", "sign in", "system", "read", "write",
    ];
    assert_eq!(names, all);
    let left = "SELECT count(*) FROM pg_tables WHERE schemaname = 'checked'";
    assert_eq!(source.value(left), "1");
    for (connection, location, step) in [
        ("Driver={x", "t", "options"),
        (
            &good.replace("PostgreSQL Unicode", "No Such Driver"),
            "checked.t",
            "driver",
        ),
        (&good.replace("Port=", "Port=1;X="), "checked.t", "reach"),
        (&good.replace(secret, "wr0ng"), "checked.t", "sign in"),
        (good, "checked.none", "read"),
    ] {
        let (failed, names) = steps(connection, location).await;
        assert_eq!(failed, Some(step));
        assert_eq!(names.last(), Some(&step));
    }
}
