//! INSERT through a warehouse.

use super::*;

const CREATE: [(&str, &str); 2] = [("table.create", "qa_pairs"), ("write.key", "qa_id")];

/// A query that yields `rows` pairs with questions of `length` characters.
fn pairs(rows: usize, length: usize) -> String {
    format!(
        "SELECT 'id-' || value AS qa_id, repeat('q', {length}) || value || '''\\' AS question, \
         CAST(value AS INT) AS chunk_no, CAST(value AS FLOAT) / 7 AS grounding FROM \
         generate_series(1, {rows})"
    )
}

async fn counted(fake: &Fake) -> String {
    let sql = "SELECT count(*), count(DISTINCT qa_id), sum(chunk_no), sum(length(question)) FROM \
               main.legal.qa";
    pretty_format_batches(&fake.rows(sql).await)
        .unwrap()
        .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_created_and_filled_once() {
    let fake = Fake::start().await;
    let ctx = session();
    create(&ctx, &fake, "qa", &CREATE).await.unwrap();
    // Nothing is made before the first INSERT; until then there are no rows.
    assert_has(&shown(&ctx, "SELECT count(*) FROM qa").await, &["| 0 "]);
    assert_eq!(
        shown(&ctx, "SELECT * FROM qa WHERE chunk_no > 1")
            .await
            .lines()
            .count(),
        2
    );
    assert_eq!(fake.get(|i| i.statements.len()), 0);
    let inserted = shown(&ctx, &format!("INSERT INTO qa {}", pairs(10, 5))).await;
    assert_has(&inserted, &["| 10"]);
    let made = fake.get(|i| i.statements[0].clone());
    assert_eq!(
        made,
        "CREATE TABLE IF NOT EXISTS `main`.`legal`.`qa` (`qa_id` STRING NOT NULL, `question` \
         STRING, `chunk_no` INTEGER, `grounding` FLOAT)"
    );
    // Few rows need one statement and no staging table.
    assert_eq!(fake.get(|i| i.statements.len()), 2);
    let again = shown(&ctx, &format!("INSERT INTO qa {}", pairs(12, 5))).await;
    assert_has(&again, &["| 2 "]);
    let all = "SELECT * FROM qa ORDER BY chunk_no";
    let local = session();
    local
        .sql(&format!("CREATE TABLE qa AS {}", pairs(12, 5)))
        .await
        .unwrap();
    assert_eq!(shown(&ctx, all).await, shown(&local, all).await);
    // The same key twice in one INSERT: one row if they are equal, refused if not.
    for other in ["('n', 'first', 2, 1.0)", "('n', NULL, 1, 1.0)"] {
        for insert in ["INSERT INTO", "INSERT OVERWRITE"] {
            let insert = format!("{insert} qa VALUES ('n', 'first', 1, 1.0), {other}");
            let error = query(&ctx, &insert).await.unwrap_err();
            let parts = ["main.legal.qa", "same qa_id, 'n'", "write.key"];
            assert_has(&message(&error), &parts);
        }
    }
    let equal = "INSERT INTO qa VALUES ('n', 'first', 1, 1.0), ('n', 'first', 1, 1.0)";
    assert_has(&shown(&ctx, equal).await, &["| 1 "]);
    let found = shown(&ctx, "SELECT count(*) FROM qa").await;
    assert_has(&found, &["| 13 "]);
    let error = query(&ctx, "INSERT INTO qa VALUES (NULL, 'q', 1, 1.0)")
        .await
        .unwrap_err();
    assert_has(&message(&error), &["no qa_id"]);
}

/// What the sink of the SQL systems does: it casts as the sinks of files do.
#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_a_column_does_not_hold_is_named_and_not_rounded() {
    let fake = Fake::start().await;
    let ctx = session();
    create(&ctx, &fake, "qa", &CREATE).await.unwrap();
    let insert = "INSERT INTO qa SELECT * FROM";
    for (rows, parts) in [
        (
            "VALUES ('a', 'q', 2.0, 1.0), ('b', 'q', 1.7, 1.0)",
            ["row 2 ", "'1.7'", "chunk_no"],
        ),
        (
            "VALUES ('b', 'q', true, 1.0)",
            ["row 1 ", "'true'", "chunk_no"],
        ),
        (
            "VALUES ('b', 'q', 1, 0.123456789)",
            ["row 1 ", "'0.123456789'", "grounding"],
        ),
        ("VALUES ('b', 'q', 'x', 0.1)", ["row 1 ", "'x'", "chunk_no"]),
        (
            "SELECT 'b', 'q', 1, 16777217",
            ["row 1 ", "'16777217'", "grounding"],
        ),
        (
            "SELECT 'b', 'q', 3000000000, 1",
            ["row 1 ", "'3000000000'", "chunk_no"],
        ),
        ("SELECT 'b', 'q', true, 1", ["chunk_no", "is Int32", "CAST"]),
    ] {
        let error = query(&ctx, &format!("INSERT INTO qa {rows}"))
            .await
            .unwrap_err();
        assert_has(&message(&error), &parts);
    }
    let error = query(&ctx, &format!("{insert} (SELECT 'b', 'q', 0.5, 1.0)")).await;
    assert_has(&message(&error.unwrap_err()), &["row 1 ", "'0.5'"]);
    assert_eq!(
        shown(&ctx, "SELECT * FROM qa").await.lines().count(),
        2,
        "a row was written"
    );
    let cast = "INSERT INTO qa SELECT 'b', 'q', CAST(1.7 AS INT), CAST(0.123456789 AS FLOAT)";
    assert_has(&shown(&ctx, cast).await, &["| 1 "]);
    let fine = "INSERT INTO qa VALUES ('c', 7, '7', 0.1)";
    assert_has(&shown(&ctx, fine).await, &["| 1 "]);
    // Rows of a program come in other layouts and widths.
    let rows = "SELECT arrow_cast('d', 'LargeUtf8') AS qa_id, arrow_cast('q', 'Utf8') AS question, \
                CAST(1 AS BIGINT) AS chunk_no, CAST(0.5 AS DOUBLE) AS grounding";
    let frame = ctx.sql(rows).await.unwrap();
    let options = datafusion::dataframe::DataFrameWriteOptions::new();
    frame.write_table("qa", options).await.unwrap();
    let found = shown(&ctx, "SELECT qa_id, chunk_no, grounding FROM qa ORDER BY 1").await;
    assert_has(
        &found,
        &[
            "| b     | 1        | 0.12345679 |",
            "| d     | 1        | 0.5",
        ],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_existing_table_with_other_columns_is_an_error() {
    let fake = Fake::start().await;
    fake.add_rows("qa", cases(1));
    let error = create(&session(), &fake, "qa", &CREATE).await.unwrap_err();
    assert_has(
        &message(&error),
        &["main.legal.qa", "qa_id is missing", "text is not declared"],
    );
    let error = create(
        &session(),
        &fake,
        "new",
        &[
            ("table.create", "qa_pairs"),
            ("databricks.warehouse_id", ""),
        ],
    )
    .await
    .unwrap_err();
    assert_has(
        &message(&error),
        &["no table main.legal.new", "databricks.warehouse_id"],
    );
    let error = create(&session(), &fake, "qa", &[("write.key", "idd")])
        .await
        .unwrap_err();
    assert_has(&message(&error), &["idd", "Did you mean 'id'?"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_dies_anywhere_can_run_again() {
    // 40 rows of 300 kB: some three statements' worth.
    let insert = format!("INSERT INTO qa {}", pairs(40, 300_000));
    let whole = {
        let (fake, ctx) = (Fake::start().await, session());
        create(&ctx, &fake, "qa", &CREATE).await.unwrap();
        query(&ctx, &insert).await.unwrap();
        (counted(&fake).await, fake.get(|i| i.statements.clone()))
    };
    let (whole, statements) = whole;
    assert_has(&whole, &["| 40 "]);
    assert!(statements.len() >= 6, "{statements:?}");
    assert_has(
        &statements[1],
        &["CREATE TABLE IF NOT EXISTS `main`.`legal`.`casebook_staging_"],
    );
    assert_has(statements.last().unwrap(), &["DROP TABLE IF EXISTS"]);
    for dies_at in 1..statements.len() {
        let (fake, ctx) = (Fake::start().await, session());
        create(&ctx, &fake, "qa", &CREATE).await.unwrap();
        fake.set(|inner| inner.dies_at = Some(dies_at));
        // The writer is gone, as after SIGKILL, once the server has stopped answering it.
        tokio::select! {
            done = query(&ctx, &insert) => {
                // Removing the staging table is no longer part of the INSERT.
                assert!(done.is_err() || dies_at + 1 == statements.len(), "{dies_at}");
            }
            () = fake.until(|i| i.statements.len() > dies_at) => {}
        }
        fake.set(|inner| inner.dies_at = None);
        let ctx = session();
        create(&ctx, &fake, "qa", &CREATE).await.unwrap();
        query(&ctx, &insert).await.unwrap();
        assert_eq!(counted(&fake).await, whole, "died at {dies_at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_insert_leaves_nothing_behind() {
    let (fake, ctx) = (Fake::start().await, session());
    create(&ctx, &fake, "qa", &CREATE).await.unwrap();
    let says = json!({"error_code": "BAD_REQUEST", "message": "[INSUFFICIENT_PERMISSIONS] no"});
    fake.set(|inner| inner.failing = Some(("MERGE".into(), says)));
    let insert = format!("INSERT INTO qa {}", pairs(40, 300_000));
    let error = query(&ctx, &insert).await.unwrap_err();
    assert_has(
        &message(&error),
        &["adding rows to main.legal.qa", "INSUFFICIENT_PERMISSIONS"],
    );
    let legal = fake.ctx.catalog("main").unwrap().schema("legal").unwrap();
    fake.until(|_| legal.table_names() == ["qa"]).await;
    assert_has(&counted(&fake).await, &["| 0 "]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_an_unsure_answer_is_an_error() {
    use crate::fake::databricks::Fault;
    let (fake, ctx) = (Fake::start().await, session());
    create(&ctx, &fake, "qa", &[("table.create", "qa_pairs")])
        .await
        .unwrap();
    query(&ctx, &format!("INSERT INTO qa {}", pairs(3, 5)))
        .await
        .unwrap();
    query(&ctx, &format!("INSERT INTO qa {}", pairs(3, 5)))
        .await
        .unwrap();
    assert_has(&counted(&fake).await, &["| 6 "]);
    fake.fail("POST /api/2.0/sql/statements", Fault::Status(502, None));
    let error = query(&ctx, &format!("INSERT INTO qa {}", pairs(3, 5)))
        .await
        .unwrap_err();
    assert_has(&message(&error), &["not sent again", "write.key"]);
    assert_has(&counted(&fake).await, &["| 6 "]);
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_in_the_wrong_order_are_noticed() {
    let (fake, ctx) = (Fake::start().await, session());
    create(&ctx, &fake, "qa", &CREATE).await.unwrap();
    let sql = "INSERT INTO qa SELECT question, qa_id, chunk_no, grounding FROM qa";
    let error = query(&ctx, sql).await.unwrap_err();
    assert_has(
        &message(&error),
        &["INSERT goes by position", "question would go into qa_id"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn staging_tables_of_dead_runs_are_removed() {
    let (fake, ctx) = (Fake::start().await, session());
    create(&ctx, &fake, "qa", &CREATE).await.unwrap();
    query(&ctx, &format!("INSERT INTO qa {}", pairs(3, 5)))
        .await
        .unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.unwrap().as_secs();
    let hours = |n: u64| now - n * 3600;
    let run = |c: char| c.to_string().repeat(32);
    let dead = format!("casebook_staging_{}_{}", hours(73), run('a'));
    // It runs for four days, and was alive an hour ago.
    let long = format!("casebook_staging_{}_{}", hours(96), run('b'));
    let sign = format!("{long}_alive_{}", hours(1));
    let fresh = format!("casebook_staging_{}_{}", hours(71), run('c'));
    for table in [&dead, &long, &sign, &fresh] {
        let sql = format!("CREATE TABLE main.legal.\"{table}\" AS VALUES (1)");
        fake.ctx.sql(&sql).await.unwrap().collect().await.unwrap();
    }
    let legal = fake.ctx.catalog("main").unwrap().schema("legal").unwrap();
    let tables = || {
        let mut names = legal.table_names();
        names.sort();
        names
    };
    let left = |more: &[&String]| {
        let mut names: Vec<String> = more.iter().map(|n| (*n).clone()).collect();
        names.push("qa".into());
        names.sort();
        names
    };
    // Also an INSERT that stages nothing looks for them.
    query(&ctx, &format!("INSERT INTO qa {}", pairs(4, 5)))
        .await
        .unwrap();
    assert_eq!(tables(), left(&[&long, &sign, &fresh]));
    let sooner = [CREATE[0], CREATE[1], ("staging.expire_hours", "2")];
    let ctx = session();
    create(&ctx, &fake, "qa", &sooner).await.unwrap();
    query(&ctx, &format!("INSERT INTO qa {}", pairs(40, 300_000)))
        .await
        .unwrap();
    assert_eq!(tables(), left(&[&long, &sign]));
    assert_has(&counted(&fake).await, &["| 40 "]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_with_a_key_wait_for_their_turn_where_another_writer_was_faster() {
    for (create_with, conflicts, done) in [(&CREATE[..], 2, true), (&CREATE[..1], 1, false)] {
        let (fake, ctx) = (Fake::start().await, session());
        create(&ctx, &fake, "qa", create_with).await.unwrap();
        // Without a key it is an INSERT, which is never tried again.
        let says = json!({"message": "[DELTA_CONCURRENT_APPEND] files were added"});
        fake.set(|inner| {
            inner.conflicts = conflicts;
            inner.failing = (!done).then(|| ("INSERT INTO `main`.`legal`.`qa`".into(), says));
        });
        let inserted = query(&ctx, &format!("INSERT INTO qa {}", pairs(3, 5))).await;
        let tried = |word: &str| {
            let all = fake.get(|i| i.statements.clone());
            all.iter().filter(|s| s.starts_with(word)).count()
        };
        match done {
            true => {
                inserted.unwrap();
                assert_has(&counted(&fake).await, &["| 3 "]);
                assert_eq!(tried("MERGE"), 3);
            }
            false => {
                let error = inserted.unwrap_err();
                assert_has(&message(&error), &["DELTA_CONCURRENT_APPEND", "write.key"]);
                assert_eq!(tried("INSERT INTO `main`.`legal`.`qa`"), 1);
            }
        }
    }
}
