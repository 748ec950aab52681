//! A pair and the text it is about stay together, whatever becomes of the source.

use crate::{error, number, run, session};

const CALL: &str = "docs_to_qa('docs', profile => 'legal', max_pairs_per_document => 2, \
                    keep_document => true, \"checks.ungrounded\" => false)";

const LONG: &str = "On May 3, 1992, Roe filed a complaint against Acme for breach of contract. The \
    district court granted summary judgment to Acme. We affirm the judgment of the district court.";
const SHORT: &str = "Roe lost.";
const LONGER: &str = "This opinion was amended after a petition for rehearing in 1995. On June 9, \
    1994, Roe filed another complaint against Acme for breach of contract. The district court \
    granted summary judgment to Acme. We affirm the judgment of the district court in all respects.";

#[tokio::test]
async fn the_document_is_what_the_model_read() {
    let (ctx, _, _dir) = session().await;
    let rows = run(
        &ctx,
        "SELECT replace(document, chr(10), '/') AS d, doc_id FROM docs_to_qa('cases', \
         keep => 'court', keep_document => true) ORDER BY doc_id",
    )
    .await
    .unwrap();
    assert!(
        rows.contains(
            "| Case: Doe v. Baker/Court: Second Circuit/Date: 1994-04-02/Citation: 2 F.3d 8//Doe was \
             convicted of mail fraud"
        ),
        "{rows}"
    );
    let empty = rows.lines().find(|l| l.ends_with("| c      |")).unwrap();
    assert!(
        empty.trim_matches(['|', ' ', 'c']).is_empty(),
        "no text was read: {rows}"
    );
    let names = ctx
        .sql("SELECT * FROM docs_to_qa('cases', keep => 'court', keep_document => true)")
        .await
        .unwrap();
    let names: Vec<String> = names
        .schema()
        .fields()
        .iter()
        .map(|f| f.name().clone())
        .collect();
    assert_eq!(names[15..], ["document", "court"]);
    for (arguments, part) in [
        ("keep_document => 1", "true or false"),
        (
            "keep_document => true, keep_document => true",
            "given twice",
        ),
        ("keep => 'document'", "its columns are"),
    ] {
        let message = error(
            &ctx,
            &format!("SELECT * FROM docs_to_qa('cases', {arguments})"),
        )
        .await
        .to_string();
        assert!(message.contains(part), "{arguments}: {message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_document_neither_breaks_nor_corrupts_training() {
    let (ctx, _, dir) = session().await;
    let write = |rows: &[(&str, &str)]| {
        let mut text = String::from("id,name,text\n");
        for (id, body) in rows {
            text.push_str(&format!("{id},Roe v. Acme,\"{body}\"\n"));
        }
        std::fs::write(dir.path().join("docs.csv"), text).unwrap();
    };
    write(&[("a", LONG), ("b", LONG)]);
    let setup = |sql: &str| sql.replace("DIR", dir.path().to_str().unwrap());
    for sql in [
        "CREATE EXTERNAL TABLE docs STORED AS CSV LOCATION 'DIR/docs.csv'",
        "CREATE EXTERNAL TABLE qa STORED AS DELTA LOCATION 'DIR/qa' \
         OPTIONS ('table.create' 'qa_pairs_with_document', 'write.key' 'qa_id')",
    ] {
        run(&ctx, &setup(sql)).await.unwrap();
    }
    let generate = format!("INSERT INTO qa SELECT * FROM {CALL}");
    let mut before = 0;
    for (n, rows) in [
        vec![("a", LONG), ("b", LONG)],
        vec![("a", SHORT), ("b", LONG)],
        vec![("a", LONGER), ("b", LONG)],
        vec![("a", LONG), ("a", LONGER), ("b", LONG), ("b", LONG)],
    ]
    .into_iter()
    .enumerate()
    {
        write(&rows);
        run(&ctx, &generate).await.unwrap();
        let pairs = number(&ctx, "SELECT count(*) FROM qa WHERE status = 'ok'").await;
        assert!(pairs >= before && pairs > 0);
        before = pairs;
        let create = format!(
            "CREATE EXTERNAL TABLE tuned{n} STORED AS LORA LOCATION 'DIR/adapter{n}' OPTIONS \
             ('lora.rank' '2', 'lora.epochs' '1', 'lora.with_document_share' '1')"
        );
        run(&ctx, &setup(&create)).await.unwrap();
        let train = format!(
            "INSERT INTO tuned{n} (doc_id, question, answer, document) \
             SELECT doc_id, question, answer, document FROM qa WHERE status = 'ok'"
        );
        assert_eq!(number(&ctx, &train).await, pairs, "{rows:?}");
        // Each example has the passage of its own pair.
        let other = format!(
            "SELECT count(*) FROM tuned{n} t LEFT ANTI JOIN qa q ON t.doc_id = q.doc_id AND \
             t.question = q.question AND t.answer = q.answer AND t.document = q.document"
        );
        assert_eq!(number(&ctx, &other).await, 0, "{rows:?}");
    }
    let texts = "SELECT count(DISTINCT document) FROM qa WHERE doc_id = 'a' AND status = 'ok'";
    assert!(
        number(&ctx, texts).await >= 2,
        "old and new texts stand side by side"
    );
}

#[tokio::test]
async fn ids_keep_their_digits_or_are_refused() {
    let (ctx, _, _dir) = session().await;
    let call = |id: &str| {
        format!("SELECT doc_id FROM docs_to_qa((SELECT {id} AS id, 'It is so.' AS text)) LIMIT 1")
    };
    for id in [
        "9007199254740993",
        "18446744073709551615",
        "12345678901234567890.123",
    ] {
        let typed = match id.contains('.') {
            true => format!("CAST('{id}' AS DECIMAL(30, 3))"),
            false => format!("CAST('{id}' AS BIGINT UNSIGNED)"),
        };
        let rows = run(&ctx, &call(&typed)).await.unwrap();
        assert!(rows.contains(&format!("| {id} ")), "{rows}");
    }
    for id in [
        "CAST(7 AS DOUBLE)",
        "CAST(7 AS REAL)",
        "arrow_cast(7.0, 'Float16')",
    ] {
        let message = error(&ctx, &call(id)).await.to_string();
        assert!(
            message.contains("id column id has type Float")
                && message.contains("CAST(\"id\" AS BIGINT)"),
            "{message}"
        );
    }
    let message = error(&ctx, &call("make_array(1, 2)")).await.to_string();
    assert!(message.contains("not one value"), "{message}");
}

#[tokio::test]
async fn columns_of_any_name_can_be_named() {
    let (ctx, _, _dir) = session().await;
    let input = "((SELECT 'k' AS \"The Id\", 'It is so.' AS \"a.text\", 'x' AS \"Two Words\", 'y' AS \
                 \"two words\", 'z' AS \"one, two\", 'T' AS \"Über.title\", 'w' AS \"it's\"))";
    let call = |arguments: &str| format!("docs_to_qa({input}, text => 'a.text', {arguments})");
    let all = call(
        "id => 'The Id', title => ['Über.title'], \
         keep => ['Two Words', 'two words', 'one, two', 'it''s', 'The Id']",
    );
    let sql = format!(
        "SELECT \"Two Words\", \"two words\", \"one, two\", \"it''s\", \"The Id\", doc_id FROM {all} \
         WHERE \"one, two\" = 'z' AND \"Two Words\" = 'x' LIMIT 1"
    )
    .replace("\"it''s\"", "\"it's\"");
    let rows = run(&ctx, &sql).await.unwrap();
    let cells: Vec<&str> = rows
        .lines()
        .nth(3)
        .unwrap()
        .split_whitespace()
        .filter(|c| *c != "|")
        .collect();
    assert_eq!(cells, ["x", "y", "z", "w", "k", "k"], "{rows}");
    let none = format!("SELECT count(*) FROM {all} WHERE \"two words\" = 'x'");
    assert_eq!(number(&ctx, &none).await, 0);
    for (arguments, part) in [
        ("id => 'TWO WORDS'", "ambiguous: 2 columns"),
        ("keep => 'one, two'", "'one' is not in the input"),
        ("keep => ['Two Words', 'Two Words']", "listed twice"),
        (
            "id => 'the_id'",
            "its columns are The Id, a.text, Two Words",
        ),
        ("keep => [1 + 1]", "needs a literal"),
    ] {
        let message = error(&ctx, &format!("SELECT * FROM {}", call(arguments)))
            .await
            .to_string();
        assert!(message.contains(part), "{arguments}: {message}");
    }
}

#[tokio::test]
async fn arguments_beyond_reason_are_refused_with_it() {
    let (ctx, _, _dir) = session().await;
    for (argument, part) in [
        (
            "questions_per_chunk => 1000000000",
            "from 1 to 1000: each is",
        ),
        ("questions_per_chunk => 0", "from 1 to 1000"),
        (
            "max_chunk_tokens => 9223372036854775807",
            "no model has a longer context",
        ),
        (
            "max_answer_tokens => 9223372036854775807",
            "no model has a longer context",
        ),
        (
            "max_question_tokens => 99999999999999999999",
            "max_question_tokens",
        ),
        ("overlap_tokens => -1", "overlap_tokens"),
        (
            "overlap_tokens => 9223372036854775807",
            "is 9223372036854775807; it must be a whole number from 0 to 1048576",
        ),
        ("\"question_sampling.temperature\" => 'NaN'", "temperature"),
        (
            "\"question_sampling.temperature\" => -0.5",
            "temperature is -0.5",
        ),
        ("\"answer_sampling.top_p\" => 0", "top_p"),
        (
            "\"checks.min_grounding\" => -1",
            "a number from 0 to 1: it is a share",
        ),
        ("seed => -3", "seed"),
    ] {
        let sql = format!("SELECT * FROM docs_to_qa('cases', {argument})");
        let message = error(&ctx, &sql).await.to_string();
        assert!(message.contains(part), "{argument}: {message}");
    }
    for (sql, part) in [
        (
            "SELECT chunk_text('a', 9223372036854775807, 0)",
            "may be at most",
        ),
        ("SELECT chunk_text('a', 10, -1)", "must not be negative"),
        ("SELECT chunk_text('a', 10, 10)", "greater than overlap"),
    ] {
        let message = error(&ctx, sql).await.to_string();
        assert!(message.contains(part), "{sql}: {message}");
    }
}
