//! A result is read as it is wanted: little for a little, nothing after it is dropped, and an
//! error in the middle is an error.

use datafusion::arrow::array::AsArray;
use futures::StreamExt;

use super::{Source, session, shown};

/// A view of a thousand million rows, which no test would see the end of.
fn endless(source: &Source) {
    let table = source.table("small");
    source.run(&format!("CREATE TABLE {table} (n int, body text)"));
    source.run(&format!(
        "INSERT INTO {table} WITH RECURSIVE g(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM g WHERE \
         n < 1000) SELECT n, 'some text of some length' FROM g"
    ));
    source.run(&format!(
        "CREATE VIEW {} AS SELECT a.n, b.body FROM {table} a, {table} b, {table} c",
        source.table("endless")
    ));
}

#[tokio::test]
async fn a_little_is_read_for_a_little() {
    for source in Source::all("lazy") {
        endless(&source);
        let ctx = session();
        source.create(&ctx, "endless").await;
        // The filter stays here, so the LIMIT does, too.
        let sql = "SELECT n FROM endless WHERE upper(body) LIKE 'SOME%' LIMIT 1";
        assert_eq!(shown(&ctx, sql).await.lines().count(), 5);
        let plan = shown(&ctx, &format!("EXPLAIN {sql}")).await;
        assert!(
            !plan.contains("LIMIT 1,") && plan.contains("FilterExec"),
            "{plan}"
        );
    }
}

#[tokio::test]
async fn a_dropped_stream_ends_its_connection() {
    let Some(source) = Source::postgres("dropped") else {
        return;
    };
    endless(&source);
    source.run("DROP ROLE IF EXISTS dropped_reader");
    source.run("CREATE ROLE dropped_reader LOGIN PASSWORD 'dropped-password' SUPERUSER");
    let own = source
        .connection
        .replace("Uid=casebook", "Uid=dropped_reader");
    let (start, rest) = own.split_once("Pwd=").unwrap();
    let own = format!(
        "{start}Pwd=dropped-password;{}",
        rest.split_once(';').unwrap().1
    );
    let ctx = session();
    super::create(&ctx, "endless", "dropped.endless", &own, &[])
        .await
        .unwrap();
    let connections =
        || source.value("SELECT count(*) FROM pg_stat_activity WHERE usename = 'dropped_reader'");
    let frame = ctx.sql("SELECT n, body FROM endless").await.unwrap();
    let mut stream = frame.execute_stream().await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().num_rows(), 256);
    assert_eq!(connections(), "1");
    drop(stream);
    while connections() != "0" {
        tokio::task::yield_now().await;
    }
    source.run("DROP ROLE dropped_reader");
}

#[tokio::test]
async fn an_error_in_the_middle_is_an_error() {
    let Some(source) = Source::postgres("middle") else {
        return;
    };
    source.run("CREATE TABLE middle.t AS SELECT g AS id FROM generate_series(1, 5000) g");
    source.run(
        "CREATE VIEW middle.v AS SELECT id, 1 / (4000 - id) AS x, 'text' || id AS body FROM \
         middle.t",
    );
    let ctx = session();
    source.create(&ctx, "v").await;
    for columns in ["id, x", "id, x, body"] {
        let frame = ctx.sql(&format!("SELECT {columns} FROM v")).await.unwrap();
        let mut stream = frame.execute_stream().await.unwrap();
        let mut rows = 0;
        let error = loop {
            match stream.next().await.expect("the result ended short") {
                Ok(batch) => rows += batch.num_rows(),
                Err(error) => break error,
            }
        };
        assert!(rows > 0 && rows < 4000, "{rows}");
        assert!(error.to_string().contains("division by zero"), "{error}");
        assert!(stream.next().await.is_none());
    }
}

#[tokio::test]
async fn order_by_is_kept() {
    for source in Source::all("ordered") {
        let table = source.table("t");
        source.run(&format!("CREATE TABLE {table} (id int, body text)"));
        source.run(&format!(
            "INSERT INTO {table} WITH RECURSIVE g(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM g \
             WHERE n < 2000) SELECT n * 7919 % 2003, 'b' || n FROM g"
        ));
        let ctx = session();
        source.create(&ctx, "t").await;
        let table = shown(&ctx, "SELECT id FROM t ORDER BY id DESC").await;
        let ids: Vec<i32> = table
            .lines()
            .filter_map(|l| l.trim_matches(['|', ' ']).parse().ok())
            .collect();
        assert_eq!(ids.len(), 2000);
        assert!(ids.is_sorted_by(|a, b| a > b));
    }
}

/// A connection string of a role that only one test uses, so that the server's list of sessions
/// tells what that test's reader does.
fn own_role(source: &Source, role: &str) -> String {
    source.run(&format!("DROP ROLE IF EXISTS {role}"));
    source.run(&format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'own-password' SUPERUSER"
    ));
    let own = source
        .connection
        .replace("Uid=casebook", &format!("Uid={role}"));
    let (start, rest) = own.split_once("Pwd=").unwrap();
    let (_, rest) = rest.split_once(';').unwrap();
    format!("{start}Pwd=own-password;{rest}")
}

#[tokio::test]
async fn a_dropped_query_stops_at_the_source() {
    let Some(source) = Source::postgres("given_up") else {
        return;
    };
    // Nothing comes for ten minutes: the driver sits in one call.
    source.run("CREATE VIEW given_up.slow AS SELECT 1 AS n, pg_sleep(600)::text AS body");
    let own = own_role(&source, "given_up_reader");
    let ctx = session();
    super::create(&ctx, "slow", "given_up.slow", &own, &[])
        .await
        .unwrap();
    let running = || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND \
                   usename = 'given_up_reader'";
        source.value(sql)
    };
    let frame = ctx.sql("SELECT n, body FROM slow").await.unwrap();
    let mut stream = frame.execute_stream().await.unwrap();
    let patience = std::time::Duration::from_millis(100);
    let begun = std::time::Instant::now();
    while running() == "0" {
        assert!(begun.elapsed().as_secs() < 20, "it never ran");
        let polled = tokio::time::timeout(patience, stream.next()).await;
        assert!(polled.is_err(), "a row came");
    }
    drop(stream);
    let begun = std::time::Instant::now();
    while running() != "0" {
        assert!(begun.elapsed().as_secs() < 20, "it still runs");
        tokio::time::sleep(patience).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_statement_keeps_no_transaction_open() {
    let Some(source) = Source::postgres("slow_reader") else {
        return;
    };
    source.run(
        "CREATE TABLE slow_reader.t AS SELECT g AS id, repeat('text ', 1000) || g AS body FROM \
         generate_series(1, 20000) g",
    );
    let own = own_role(&source, "slow_reader_reader");
    // Between two FETCHes a transaction is idle, during one it is active: what counts is that it
    // has begun and has not ended.
    let open = || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'slow_reader_reader' AND \
                   xact_start IS NOT NULL";
        source.value(sql)
    };
    let ctx = session();
    for (name, max_bytes, ends) in [("kept", "1000000000", true), ("not_kept", "0", false)] {
        let options = [("spool.after_secs", "1"), ("spool.max_bytes", max_bytes)];
        super::create(&ctx, name, "slow_reader.t", &own, &options)
            .await
            .unwrap();
        let frame = ctx
            .sql(&format!("SELECT id, body FROM {name}"))
            .await
            .unwrap();
        let mut stream = frame.execute_stream().await.unwrap();
        let mut rows = stream.next().await.unwrap().unwrap().num_rows();
        let begun = std::time::Instant::now();
        while open() != "0" && begun.elapsed().as_secs() < if ends { 30 } else { 4 } {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        assert_eq!(open() == "0", ends, "{name}");
        let mut last = 0;
        while let Some(batch) = stream.next().await {
            let batch = batch.unwrap();
            rows += batch.num_rows();
            let ids = batch
                .column(0)
                .as_primitive::<datafusion::arrow::datatypes::Int32Type>();
            assert!(ids.value(0) > last);
            last = ids.value(ids.len() - 1);
        }
        assert_eq!((rows, last), (20_000, 20_000), "{name}");
    }
}
