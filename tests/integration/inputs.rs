//! Every way to name the input of docs_to_qa, in every kind of statement.

use crate::{error, number, run, session};

const COUNT: &str = "SELECT count(*) FROM";

#[tokio::test(flavor = "current_thread")]
async fn the_input_may_be_named_in_many_ways() {
    let (ctx, _, _dir) = session().await;
    run(
        &ctx,
        "CREATE VIEW texts AS SELECT id, name, text FROM cases WHERE id <> 'c'",
    )
    .await
    .unwrap();
    for input in [
        "'cases'",
        "cases",
        "public.cases",
        "'datafusion.public.cases'",
        "'texts'",
        "((SELECT id, name, text FROM cases WHERE court = 'First Circuit'))",
        "cases, profile => 'legal', questions_per_chunk => 1",
    ] {
        let sql = format!("{COUNT} docs_to_qa({input}) WHERE doc_id = 'a'");
        assert_eq!(number(&ctx, &sql).await, 1, "{input}");
    }
    let cte = format!("WITH some AS (SELECT * FROM cases WHERE id = 'b') {COUNT} docs_to_qa(some)");
    assert_eq!(number(&ctx, &cte).await, 1);
    assert_eq!(
        number(&ctx, &format!("{COUNT} TABLE(docs_to_qa('cases'))")).await,
        3
    );
}

#[tokio::test]
async fn rows_are_declared_and_complete() {
    let (ctx, _, _dir) = session().await;
    let rows = run(
        &ctx,
        "SELECT doc_id, chunk_start, status, reason, court FROM docs_to_qa('cases', keep => 'court') \
         WHERE doc_id = 'c'",
    )
    .await
    .unwrap();
    assert!(
        rows.contains("empty_text") && rows.contains("First Circuit"),
        "{rows}"
    );
    let all = ctx.sql("SELECT * FROM docs_to_qa('cases')").await.unwrap();
    assert_eq!(
        all.schema().as_arrow(),
        casebook::schema::qa_pairs().as_ref()
    );
}

#[tokio::test]
async fn kept_columns_are_filtered_in_the_input_and_limits_reach_generation() {
    let (ctx, _, _dir) = session().await;
    let plan = run(
        &ctx,
        "EXPLAIN SELECT question FROM docs_to_qa('cases', keep => 'court') \
         WHERE court = 'First Circuit' AND status = 'ok' LIMIT 2",
    )
    .await
    .unwrap();
    let (qa, below) = plan.split_once("QaExec").unwrap();
    assert!(
        !qa.contains("FilterExec") && !plan.contains("RepartitionExec"),
        "{plan}"
    );
    assert!(
        below.contains("fetch=2") && below.contains("FilterExec: court"),
        "{plan}"
    );
}

#[tokio::test]
async fn the_same_call_gives_the_same_rows() {
    let (ctx, _, _dir) = session().await;
    let sql = "SELECT qa_id, question, answer, status FROM docs_to_qa('cases', seed => 3)";
    assert_eq!(run(&ctx, sql).await.unwrap(), run(&ctx, sql).await.unwrap());
    let other = sql.replace("seed => 3", "seed => 4");
    assert_ne!(
        run(&ctx, sql).await.unwrap(),
        run(&ctx, &other).await.unwrap()
    );
}

#[tokio::test]
async fn other_dialects_and_statements_reach_it() {
    let (ctx, _, dir) = session().await;
    for dialect in ["PostgreSQL", "Snowflake"] {
        run(
            &ctx,
            &format!("SET datafusion.sql_parser.dialect = '{dialect}'"),
        )
        .await
        .unwrap();
        let sql = format!("{COUNT} docs_to_qa('cases', profile => 'legal') WHERE doc_id = 'b'");
        assert_eq!(number(&ctx, &sql).await, 1, "{dialect}");
    }
    run(&ctx, "SET datafusion.sql_parser.dialect = 'Generic'")
        .await
        .unwrap();
    run(
        &ctx,
        "CREATE TABLE made AS SELECT * FROM docs_to_qa('cases')",
    )
    .await
    .unwrap();
    assert_eq!(number(&ctx, &format!("{COUNT} made")).await, 3);
    run(
        &ctx,
        "CREATE VIEW later AS SELECT * FROM docs_to_qa('cases')",
    )
    .await
    .unwrap();
    assert_eq!(number(&ctx, &format!("{COUNT} later")).await, 3);
    let out = dir.path().join("out.parquet");
    run(
        &ctx,
        &format!(
            "COPY (SELECT * FROM docs_to_qa('cases')) TO '{}'",
            out.display()
        ),
    )
    .await
    .unwrap();
    assert!(out.exists());
}

#[tokio::test]
async fn the_plain_table_function_is_the_same_table() {
    use casebook::functions::docs_to_qa::udtf::DocsToQaFunction;
    use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl};
    use datafusion::logical_expr::lit;
    let (ctx, casebook, _dir) = session().await;
    let function = DocsToQaFunction::new(casebook);
    let (args, state) = ([lit("cases"), lit("profile=legal")], ctx.state());
    let table = function
        .call_with_args(TableFunctionArgs::new(&args, &state))
        .unwrap();
    let frame = ctx.read_table(table).unwrap();
    assert_eq!(frame.count().await.unwrap(), 3);
}

#[tokio::test]
async fn what_is_not_supported_says_what_to_do_instead() {
    let (ctx, _, _dir) = session().await;
    for (sql, part) in [
        (
            "SELECT * FROM docs_to_qa('cases') TABLESAMPLE (10 ROWS)",
            "sample the documents",
        ),
        (
            "SELECT * FROM docs_to_qa('cases') WITH ORDINALITY",
            "question_no",
        ),
        ("SELECT * FROM cases, LATERAL docs_to_qa(text)", "LATERAL"),
        ("SELECT * FROM docs_to_qa('case')", "Did you mean 'cases'?"),
        ("SELECT * FROM docs_to_qa()", "first argument"),
        (
            "SELECT * FROM docs_to_qa('cases', 'legal')",
            "profile => 'legal'",
        ),
        (
            "SELECT * FROM docs_to_qa('cases', profile => 'leagl')",
            "legal",
        ),
        (
            "SELECT * FROM docs_to_qa('cases', questions_per_chnk => 2)",
            "questions_per_chunk",
        ),
        (
            "SELECT * FROM docs_to_qa('cases', model => 'nowhere')",
            "builtin:tiny",
        ),
        (
            "SELECT * FROM docs_to_qa('cases', text => 'txt')",
            "its columns are",
        ),
        (
            "SELECT * FROM docs_to_qa('cases', keep => 'answer')",
            "answer",
        ),
        (
            "SELECT * FROM docs_to_qa((SELECT id FROM cases))",
            "no text column",
        ),
        (
            "SELECT * FROM docs_to_qa((SELECT text, text AS body FROM cases))",
            "2 candidate text columns",
        ),
    ] {
        let message = error(&ctx, sql).await.to_string();
        assert!(message.contains(part), "{sql}\n{message}");
    }
}

#[tokio::test]
async fn chunks_and_slices_agree() {
    let (ctx, _, _dir) = session().await;
    let rows = run(
        &ctx,
        "SELECT id, text_slice(text, c['chunk_start'], c['chunk_end']) = c['text'] AS same FROM \
         (SELECT id, text, unnest(chunk_text(text, 24, 4)) AS c FROM cases WHERE id = 'a')",
    )
    .await
    .unwrap();
    assert!(
        rows.matches("true").count() >= 2 && !rows.contains("false"),
        "{rows}"
    );
    let message = error(&ctx, "SELECT text_slice(text, 0, 100000) FROM cases")
        .await
        .to_string();
    assert!(message.contains("not a part of this text"), "{message}");
}
