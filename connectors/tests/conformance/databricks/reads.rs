//! Tables that are read through a warehouse.

use casebook_connectors::{Error, ErrorKind};
use futures::StreamExt;
use proptest::prelude::*;

use super::*;
use crate::fake::databricks::Fault;

/// A view of `batch`.
async fn view(batch: RecordBatch) -> (Arc<Fake>, SessionContext) {
    let fake = Fake::start().await;
    fake.add_rows("cases", batch);
    fake.add_info("cases", json!({"table_type": "VIEW"}));
    let ctx = session();
    create(&ctx, &fake, "cases", &[]).await.unwrap();
    (fake, ctx)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_is_read_through_the_warehouse() {
    let (fake, ctx) = view(cases(2500)).await;
    let plan = shown(
        &ctx,
        "EXPLAIN SELECT text FROM cases WHERE id < 3 AND text <> 'it''s' LIMIT 2",
    )
    .await;
    assert_has(
        &plan,
        &[
            "table=main.legal.cases",
            "warehouse=wh1",
            "because it is a view",
            "SELECT `text` FROM `main`.`legal`.`cases` WHERE",
            ":p1",
            "LIMIT 2",
        ],
    );
    assert!(!plan.contains("FilterExec"), "{plan}");
    assert_no_secret(&plan);
    // Planning runs nothing.
    assert_eq!(fake.get(|i| i.statements.len()), 0);
    let all = query(&ctx, "SELECT * FROM cases").await.unwrap();
    let all = datafusion::arrow::compute::concat_batches(&cases(0).schema(), &all).unwrap();
    assert_eq!(all, cases(2500));
    assert_has(&shown(&ctx, "SELECT count(*) FROM cases").await, &["2500"]);
    // The catalog vends nothing for a view, and is not asked.
    assert_eq!(fake.get(|i| i.vended.len()), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_the_way_is_said_where_there_is_no_warehouse() {
    let fake = Fake::start().await;
    fake.add_rows("cases", cases(1));
    let check = async |info: Value, expected: &str| {
        fake.add_info("cases", info);
        let ctx = session();
        let error = create(&ctx, &fake, "cases", &[("databricks.warehouse_id", "")]).await;
        let error = error.unwrap_err();
        assert_has(
            &message(&error),
            &["main.legal.cases", expected, "databricks.warehouse_id"],
        );
        let error = create(&ctx, &fake, "cases", &[("databricks.read", "files")]).await;
        assert_has(
            &message(&error.unwrap_err()),
            &[expected, "'databricks.read' 'auto'"],
        );
        create(&ctx, &fake, "cases", &[]).await.unwrap();
        let plan = shown(&ctx, "EXPLAIN SELECT * FROM cases").await;
        assert_has(&plan, &["WarehouseScan", expected]);
    };
    check(json!({"table_type": "VIEW"}), "is a view").await;
    check(
        json!({"table_type": "MATERIALIZED_VIEW"}),
        "is a materialized view",
    )
    .await;
    check(
        json!({"table_type": "STREAMING_TABLE"}),
        "is a streaming table",
    )
    .await;
    check(
        json!({"row_filter": {"function_name": "f"}}),
        "has a row filter",
    )
    .await;
    check(
        json!({"data_source_format": "ICEBERG"}),
        "has the format ICEBERG",
    )
    .await;
    check(
        json!({"properties": {"delta.feature.typeWidening": "supported"}}),
        "has the Delta feature typeWidening",
    )
    .await;
    // A managed table whose credentials are refused.
    check(json!({}), "EXTERNAL USE SCHEMA").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_result_keeps_its_schema() {
    let (_fake, ctx) = view(cases(10)).await;
    let frame = ctx.sql("SELECT * FROM cases WHERE id < 0").await.unwrap();
    let schema = Arc::clone(frame.schema().inner());
    assert_eq!(schema.fields(), cases(0).schema().fields());
    let rows: usize = frame
        .collect()
        .await
        .unwrap()
        .iter()
        .map(|b| b.num_rows())
        .sum();
    assert_eq!(rows, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_come_in_order_whichever_is_first() {
    let (fake, ctx) = view(cases(2500)).await;
    fake.set(|inner| {
        inner.rows_per_chunk = 100;
        inner.polls = 2;
        // The first chunk is held back until the third is asked for.
        inner.first_waits_for = Some(2);
        inner.expired = [1, 24].into();
    });
    fake.fail("GET /storage", Fault::Status(503, None));
    fake.fail("GET /storage", Fault::Status(429, Some("0")));
    fake.fail(
        "GET /api/2.0/sql/statements/",
        Fault::Status(429, Some("0")),
    );
    fake.fail("POST /api/2.0/sql/statements", Fault::Status(500, None));
    let all = query(&ctx, "SELECT * FROM cases").await.unwrap();
    let all = datafusion::arrow::compute::concat_batches(&cases(0).schema(), &all).unwrap();
    assert_eq!(all, cases(2500));
}

#[tokio::test(flavor = "multi_thread")]
async fn few_rows_read_little() {
    let (fake, ctx) = view(cases(2500)).await;
    fake.set(|inner| inner.rows_per_chunk = 10);
    let frame = ctx.sql("SELECT * FROM cases").await.unwrap();
    let mut stream = frame.execute_stream().await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().num_rows(), 10);
    drop(stream);
    // 250 chunks: one was read, some were on their way.
    let downloaded = fake.get(|inner| inner.downloaded.len());
    assert!(downloaded <= 8, "{downloaded}");
    // A LIMIT that stays here, because a filter does.
    let some = "SELECT id FROM cases WHERE id % 2 = 0 LIMIT 12";
    assert_eq!(shown(&ctx, some).await.lines().count(), 12 + 4);
    let more = fake.get(|inner| inner.downloaded.len()) - downloaded;
    assert!(more <= 10, "{more}");
    query(&ctx, "SELECT * FROM cases LIMIT 1").await.unwrap();
    let last = fake.get(|inner| inner.statements.last().cloned()).unwrap();
    assert!(last.ends_with("LIMIT 1"), "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_query_is_cancelled_on_the_server() {
    let (fake, ctx) = view(cases(10)).await;
    fake.set(|inner| inner.polls = u32::MAX);
    let frame = ctx.sql("SELECT * FROM cases").await.unwrap();
    let mut stream = frame.execute_stream().await.unwrap();
    tokio::select! {
        _ = stream.next() => panic!("the statement never ends"),
        () = fake.until(|inner| inner.requests.iter().any(|r| r.contains("statements/st-1"))) => {}
    }
    drop(stream);
    fake.until(|inner| inner.cancelled == ["st-1"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_can_have_a_time_limit() {
    let fake = Fake::start().await;
    fake.add_rows("cases", cases(1));
    fake.set(|inner| inner.polls = u32::MAX);
    let ctx = session();
    let limit = [
        ("databricks.read", "warehouse"),
        ("databricks.query_timeout_secs", "1"),
    ];
    create(&ctx, &fake, "cases", &limit).await.unwrap();
    let error = query(&ctx, "SELECT * FROM cases").await.unwrap_err();
    assert_has(
        &message(&error),
        &["databricks.query_timeout_secs", "cancelled"],
    );
    fake.until(|inner| inner.cancelled == ["st-1"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_result_is_ever_short() {
    let (fake, ctx) = view(cases(500)).await;
    fake.set(|inner| inner.rows_per_chunk = 100);
    let check = async |kind: ErrorKind, parts: &[&str]| {
        let error = query(&ctx, "SELECT * FROM cases").await.unwrap_err();
        assert_has(&message(&error), parts);
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(inner) = cause {
            if let Some(own) = inner.downcast_ref::<Error>() {
                return assert_eq!(own.kind(), kind, "{own}");
            }
            cause = inner.source();
        }
        panic!("no error of ours in {error:?}");
    };
    fake.set(|inner| inner.truncated = true);
    check(
        ErrorKind::Exhausted,
        &["main.legal.cases", "cut the result off"],
    )
    .await;
    fake.set(|inner| {
        inner.truncated = false;
        inner.cut = 300;
    });
    check(ErrorKind::Corrupt, &["chunk 0 is damaged"]).await;
    fake.set(|inner| {
        inner.cut = 0;
        let says = json!({"error_code": "BAD_REQUEST", "message": "[DIVIDE_BY_ZERO] oh"});
        inner.failing = Some(("SELECT".into(), says));
    });
    check(
        ErrorKind::InvalidInput,
        &["warehouse wh1", "[DIVIDE_BY_ZERO] oh"],
    )
    .await;
    // A link that stays bad: the storage's answer, which repeats signatures, is not shown.
    fake.set(|inner| inner.failing = None);
    // More than the five chunks try links together, so that no chunk is lucky.
    for _ in 0..20 {
        fake.fail("GET /storage", Fault::Status(403, None));
    }
    check(
        ErrorKind::Unavailable,
        &["downloading chunk", "refuses the link"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_versions_are_selected_by_the_warehouse() {
    let fake = Fake::start().await;
    fake.add_rows("cases", cases(1));
    let ctx = session();
    let more = [("databricks.read", "warehouse"), ("delta.version", "3")];
    create(&ctx, &fake, "cases", &more).await.unwrap();
    let plan = shown(&ctx, "EXPLAIN SELECT id FROM cases").await;
    assert_has(&plan, &["FROM `main`.`legal`.`cases` VERSION AS OF 3"]);
    let error = query(&ctx, "INSERT INTO cases VALUES (1, 'a')")
        .await
        .unwrap_err();
    assert_has(&message(&error), &["old version"]);
}

fn predicates() -> impl Strategy<Value = String> {
    let number = (
        prop::sample::select(vec!["=", "<>", "<", "<=", ">", ">="]),
        -2..40i64,
    )
        .prop_map(|(op, n)| format!("id {op} {n}"));
    let text = (
        prop::sample::select(vec!["=", "<>", "<", ">=", "LIKE", "NOT LIKE"]),
        prop::sample::select(vec![
            "text 3%",
            "text 1 ''quoted'' \\ é%",
            "",
            "%x",
            "text 7",
            "_",
        ]),
    )
        .prop_map(|(op, t)| format!("text {op} '{t}'"));
    let list = prop::collection::vec(0..30i64, 1..4).prop_map(|n| {
        format!(
            "id IN ({})",
            n.iter().map(i64::to_string).collect::<Vec<_>>().join(", ")
        )
    });
    let null = prop::sample::select(vec![
        "text IS NULL",
        "id IS NOT NULL",
        "length(text) > 30",
        "id % 2 = 0",
    ])
    .prop_map(str::to_owned);
    let leaf = prop_oneof![number, text, list, null];
    leaf.prop_recursive(3, 8, 2, |inner| {
        (
            inner.clone(),
            inner,
            prop::sample::select(vec!["AND", "OR", "AND NOT"]),
        )
            .prop_map(|(a, b, op)| format!("({a} {op} ({b}))"))
    })
}

#[test]
fn filters_find_the_rows_that_ours_would() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let (fake, ctx) = runtime.block_on(view(cases(40)));
    let local = session();
    local.register_batch("cases", cases(40)).unwrap();
    let config = ProptestConfig::with_cases(60);
    proptest!(config, |(predicate in predicates(), limit in 0..50usize)| {
        let sql = format!("SELECT id FROM cases WHERE {predicate} ORDER BY id LIMIT {limit}");
        runtime.block_on(async {
            assert_eq!(shown(&ctx, &sql).await, shown(&local, &sql).await, "{sql}");
        });
    });
    // Some of it was done by the warehouse.
    assert!(fake.get(|i| i.statements.iter().any(|s| s.contains(" WHERE "))));
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_chunks_are_errors_that_name_the_table() {
    let (fake, ctx) = view(cases(20)).await;
    let mut refused = 0;
    // The stream of twenty rows has some two thousand bytes.
    for at in (0..2000).step_by(9) {
        fake.set(|inner| inner.turned = Some(at));
        if let Err(error) = query(&ctx, "SELECT * FROM cases").await {
            assert_has(&message(&error), &["main.legal.cases"]);
            refused += 1;
        }
    }
    assert!(refused > 20, "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_count_of_chunks_is_only_a_word_of_the_server() {
    let (fake, ctx) = view(cases(20)).await;
    // Four thousand million chunks, of which the first is there.
    fake.set(|inner| inner.chunk_count = Some(1 << 32));
    let begun = std::time::Instant::now();
    let error = query(&ctx, "SELECT * FROM cases").await.unwrap_err();
    assert_has(&message(&error), &["main.legal.cases", "chunk 1"]);
    assert!(begun.elapsed().as_secs() < 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_texts_than_a_statement_takes_are_compared_here() {
    let (fake, ctx) = view(cases(400)).await;
    let list = |from: usize, count: usize| {
        let text = |i: usize| {
            let texts = cases(400);
            let texts = datafusion::common::cast::as_string_view_array(texts.column(1)).unwrap();
            format!("'{}'", texts.value(i).replace('\'', "''"))
        };
        (from..from + count)
            .map(text)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let all = format!(
        "SELECT count(*) FROM cases WHERE text IN ({})",
        list(50, 300)
    );
    assert_has(&shown(&ctx, &all).await, &["| 300 "]);
    let two = format!(
        "SELECT count(*) FROM cases WHERE text NOT IN ({}) AND text NOT IN ({})",
        list(0, 120),
        list(120, 120)
    );
    assert_has(&shown(&ctx, &two).await, &["| 160 "]);
    let few = format!("SELECT id FROM cases WHERE text IN ({})", list(7, 100));
    assert_eq!(shown(&ctx, &few).await.lines().count(), 104);
    let last = fake.get(|i| i.statements.last().cloned()).unwrap();
    assert_has(&last, &[":p100"]);
}
