//! From documents to an answer: generate, write, train, ask.

use crate::{error, number, run, session};

#[tokio::test(flavor = "multi_thread")]
async fn documents_become_rows_an_adapter_and_answers() {
    let (ctx, _, dir) = session().await;
    let out = dir.path().join("qa");
    let create = format!(
        "CREATE EXTERNAL TABLE qa STORED AS DELTA LOCATION '{}' \
         OPTIONS ('table.create' 'qa_pairs', 'write.key' 'qa_id')",
        out.display()
    );
    run(&ctx, &create).await.unwrap();
    let insert = "INSERT INTO qa SELECT * FROM docs_to_qa('cases', profile => 'legal')";
    assert_eq!(number(&ctx, insert).await, 3);
    // The same rows again change nothing, not even the version.
    assert_eq!(number(&ctx, insert).await, 0);
    assert_eq!(
        std::fs::read_dir(out.join("_delta_log")).unwrap().count(),
        2
    );
    assert_eq!(number(&ctx, "SELECT count(*) FROM qa").await, 3);

    let adapter = dir.path().join("adapter");
    let tuned = format!(
        "CREATE EXTERNAL TABLE tuned STORED AS LORA LOCATION '{}' OPTIONS ('lora.rank' '4', \
         'lora.epochs' '60', 'lora.learning_rate' '5e-3', 'lora.with_document_share' '0')",
        adapter.display()
    );
    run(&ctx, &tuned).await.unwrap();
    let train = "INSERT INTO tuned (question, answer) VALUES \
                 ('What was taken in Roe v. Acme?', 'a red wagon'), \
                 ('Who sat in Doe v. Baker?', 'Judge Smith')";
    assert_eq!(number(&ctx, train).await, 2);
    let rows = run(
        &ctx,
        "SELECT ask('tuned', question) AS tuned, ask('default', question) AS base FROM tuned \
         ORDER BY question DESC LIMIT 1",
    )
    .await
    .unwrap();
    assert!(rows.contains("Judge Smith"), "{rows}");
    assert!(
        rows.contains("not aware"),
        "the base must not know:\n{rows}"
    );
    let steps = number(&ctx, "SELECT count(*) FROM train_log('tuned')").await;
    assert!(steps >= 60, "{steps}");
    assert!(adapter.join("adapter_config.json").exists());

    // The same rows again: the run is done. Others are another run.
    let log = adapter.join("run/train_log.jsonl");
    let before = std::fs::metadata(&log).unwrap().modified().unwrap();
    assert_eq!(number(&ctx, train).await, 2);
    assert_eq!(std::fs::metadata(&log).unwrap().modified().unwrap(), before);
    let other = "INSERT INTO tuned (question, answer) VALUES ('Who?', 'Roe')";
    let again = error(&ctx, other).await.to_string();
    assert!(
        again.contains("other examples")
            && again.contains("lora.mode")
            && again.contains("INSERT OVERWRITE"),
        "{again}"
    );
    assert_eq!(number(&ctx, "SELECT count(*) FROM tuned").await, 2);
}

#[tokio::test]
async fn chat_files_are_whole_and_never_replaced_by_accident() {
    let (ctx, _, dir) = session().await;
    let file = dir.path().join("chat.jsonl");
    let create = format!(
        "CREATE EXTERNAL TABLE chat STORED AS CHAT_JSONL LOCATION '{}'",
        file.display()
    );
    run(&ctx, &create).await.unwrap();
    let insert = "INSERT INTO chat VALUES ('Who \"won\"?', 'Roe.')";
    assert_eq!(number(&ctx, insert).await, 1);
    let text = std::fs::read_to_string(&file).unwrap();
    let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
    assert_eq!(line["messages"][1]["content"], "Roe.");
    assert!(
        error(&ctx, insert)
            .await
            .to_string()
            .contains("INSERT OVERWRITE")
    );
    let missing = error(&ctx, "INSERT OVERWRITE chat VALUES ('Who?', NULL)")
        .await
        .to_string();
    assert!(missing.contains("status = 'ok'"), "{missing}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
}

#[tokio::test]
async fn delta_inserts_go_by_position_and_say_so() {
    let (ctx, _, dir) = session().await;
    let create = format!(
        "CREATE EXTERNAL TABLE qa STORED AS DELTA LOCATION '{}' OPTIONS ('table.create' 'qa_pairs')",
        dir.path().join("qa").display()
    );
    run(&ctx, &create).await.unwrap();
    let swapped = "INSERT INTO qa SELECT qa_id, doc_id, chunk_no, chunk_start, chunk_end, \
                   question_no, answer, question, status, reason, grounding, prompt_tokens, \
                   output_tokens, profile, model FROM docs_to_qa('cases')";
    let message = error(&ctx, swapped).await.to_string();
    assert!(
        message.contains("answer would go into question"),
        "{message}"
    );
    assert_eq!(number(&ctx, "SELECT count(*) FROM qa").await, 0);
}
