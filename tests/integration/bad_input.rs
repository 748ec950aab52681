//! Bad input: a clear error of the right kind, and nothing half-written.

use std::io::Write;

use casebook::ErrorKind;

use crate::{error, number, run, session};

/// Creates and reads a CSV table with these bytes; the error.
async fn csv_error(bytes: &[u8], options: &str) -> (ErrorKind, String) {
    let (ctx, _, dir) = session().await;
    let path = dir.path().join("bad.csv");
    std::fs::write(&path, bytes).unwrap();
    let create = format!(
        "CREATE EXTERNAL TABLE bad STORED AS CSV LOCATION '{}' {options}",
        path.display()
    );
    let failed = match run(&ctx, &create).await {
        Err(error) => error,
        Ok(_) => error(&ctx, "SELECT count(*), sum(length(text)) FROM bad").await,
    };
    (failed.kind(), failed.to_string())
}

#[tokio::test]
async fn broken_csv_names_the_record_and_the_byte() {
    let cases: [(&[u8], &str); 6] = [
        (b"id,text\n1,\"open\n2,fine\n", "record 2"),
        (b"id,text\n1,a\n2,b,c\n", "record 3 (byte 12) has 3 cells"),
        (b"id,text\n1,\xff\xfe\n", "csv.invalid_utf8"),
        (b"id,text\n1,\"a \\\"b\\\"\"\n", "('format.escape' '\\')"),
        (b"", "empty"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "not CSV but a PNG"),
    ];
    for (bytes, part) in cases {
        let (kind, message) = csv_error(bytes, "").await;
        assert_eq!(kind, ErrorKind::InvalidInput, "{message}");
        assert!(
            message.contains(part) && message.contains("bad.csv"),
            "{part}: {message}"
        );
    }
    let (_, message) = csv_error(b"id,text\n1,a\n", "OPTIONS ('csv.max_cel_bytes' '9')").await;
    assert!(
        message.contains("Did you mean 'csv.max_cell_bytes'?"),
        "{message}"
    );
}

#[tokio::test]
async fn an_unclosed_quote_in_a_large_file_is_found() {
    let mut bytes = b"id,text\n".to_vec();
    let filler = "word ".repeat(2000);
    for i in 0..2500 {
        let quote = if i == 1250 { "" } else { "\"" };
        writeln!(bytes, "{i},\"{filler}{quote}").unwrap();
    }
    assert!(bytes.len() > 25_000_000);
    let (kind, message) = csv_error(&bytes, "").await;
    assert_eq!(kind, ErrorKind::InvalidInput);
    assert!(message.contains("record 1252"), "{message}");
}

#[tokio::test]
async fn invalid_utf8_can_be_replaced() {
    let (ctx, _, dir) = session().await;
    let path = dir.path().join("latin.csv");
    std::fs::write(&path, b"id,text\n1,caf\xe9\n").unwrap();
    let create = format!(
        "CREATE EXTERNAL TABLE latin STORED AS CSV LOCATION '{}' \
         OPTIONS ('csv.invalid_utf8' 'replace')",
        path.display()
    );
    run(&ctx, &create).await.unwrap();
    assert!(
        run(&ctx, "SELECT text FROM latin")
            .await
            .unwrap()
            .contains("caf\u{fffd}")
    );
}

#[tokio::test]
async fn missing_things_are_named() {
    let (ctx, _, dir) = session().await;
    for (format, part) in [("CSV", "there is no file"), ("DELTA", "table.create")] {
        let path = dir.path().join("nowhere.csv");
        let sql = format!(
            "CREATE EXTERNAL TABLE t STORED AS {format} LOCATION '{}'",
            path.display()
        );
        let failed = error(&ctx, &sql).await;
        assert_eq!(failed.kind(), ErrorKind::NotFound);
        assert!(failed.to_string().contains(part), "{failed}");
    }
    let empty = dir.path().join("model");
    std::fs::create_dir(&empty).unwrap();
    let sql = format!(
        "SELECT * FROM docs_to_qa('cases', model => '{}')",
        empty.display()
    );
    let failed = error(&ctx, &sql).await;
    assert!(failed.to_string().contains("config.json"), "{failed}");
}

#[tokio::test]
async fn targets_that_cannot_be_written_are_named() {
    let (ctx, _, dir) = session().await;
    let below_a_file = dir.path().join("cases.csv").join("qa");
    for format in ["DELTA LOCATION", "LORA LOCATION"] {
        let create = format!(
            "CREATE EXTERNAL TABLE t STORED AS {format} '{}' {}",
            below_a_file.display(),
            if format.starts_with("DELTA") {
                "OPTIONS ('table.create' 'qa_pairs')"
            } else {
                ""
            }
        );
        let failed = match run(&ctx, &create).await {
            Err(error) => error,
            Ok(_) => error(&ctx, "INSERT INTO t (question, answer) VALUES ('q?', 'a')").await,
        };
        let failed = failed.to_string();
        let said = ["is a file", "is no directory"]
            .iter()
            .any(|part| failed.contains(part));
        assert!(said && failed.contains("cases.csv"), "{failed}");
        run(&ctx, "DROP TABLE IF EXISTS t").await.unwrap();
    }
}

#[tokio::test]
async fn training_without_examples_is_refused_and_leaves_no_adapter() {
    let (ctx, _, dir) = session().await;
    let path = dir.path().join("adapter");
    let create = format!(
        "CREATE EXTERNAL TABLE t STORED AS LORA LOCATION '{}'",
        path.display()
    );
    run(&ctx, &create).await.unwrap();
    let none = "INSERT INTO t (question, answer) SELECT name, court FROM cases WHERE false";
    assert!(
        error(&ctx, none)
            .await
            .to_string()
            .contains("no training examples")
    );
    assert!(!path.join("adapter_config.json").exists());
    assert_eq!(number(&ctx, "SELECT count(*) FROM t").await, 0);
    let option = create.replace("TABLE t", "TABLE u") + " OPTIONS ('lora.rnak' '4')";
    assert!(error(&ctx, &option).await.to_string().contains("lora.rank"));
}

/// The bundled model as a directory.
fn model_directory(dir: &std::path::Path) -> std::path::PathBuf {
    let path = dir.join("model");
    std::fs::create_dir(&path).unwrap();
    for (name, content) in casebook_tiny::FILES {
        std::fs::write(path.join(name), content).unwrap();
    }
    path
}

#[tokio::test]
async fn damaged_model_directories_are_named_with_the_file() {
    let weights = "model.safetensors";
    let config = |from: &str, to: &str| {
        let text = casebook_tiny::FILES
            .iter()
            .find(|(name, _)| *name == "config.json")
            .map(|(_, content)| String::from_utf8_lossy(content).into_owned())
            .unwrap();
        assert!(text.contains(from), "{text}");
        text.replace(from, to).into_bytes()
    };
    let cases: [(&str, Option<Vec<u8>>, &str); 6] = [
        ("tokenizer.json", None, "tokenizer.json"),
        (weights, None, "safetensors"),
        (weights, Some(vec![1; 100]), weights),
        ("config.json", Some(b"{".to_vec()), "config.json"),
        (
            "config.json",
            Some(config("LlamaForCausalLM", "GPTBigCodeForCausalLM")),
            "GPTBigCodeForCausalLM",
        ),
        (
            "config.json",
            Some(config(
                "\"intermediate_size\": 768",
                "\"intermediate_size\": 700",
            )),
            "700",
        ),
    ];
    for (file, content, part) in cases {
        let (ctx, _, dir) = session().await;
        let model = model_directory(dir.path());
        match content {
            None => std::fs::remove_file(model.join(file)).unwrap(),
            Some(content) => std::fs::write(model.join(file), content).unwrap(),
        }
        for sql in [
            "SELECT * FROM docs_to_qa('cases', model => 'DIR')",
            "SELECT ask('DIR', 'Who?')",
        ] {
            let failed = error(&ctx, &sql.replace("DIR", &model.display().to_string())).await;
            let message = failed.to_string();
            assert!(message.contains(part), "{part}: {message}");
            assert_ne!(failed.kind(), ErrorKind::Internal, "{message}");
        }
    }
}

#[tokio::test]
async fn what_does_not_fit_the_context_is_a_row_or_a_clear_error() {
    let (ctx, _, _dir) = session().await;
    let rows = run(
        &ctx,
        "SELECT status, reason FROM docs_to_qa((SELECT 'x' AS id, 'The court held.' AS text, \
         repeat('Long Name ', 4000) AS name))",
    )
    .await
    .unwrap();
    assert!(rows.contains("too_long"), "{rows}");
    let failed = error(&ctx, "SELECT ask('default', repeat('why ', 9000))").await;
    assert!(failed.to_string().contains("too_long"), "{failed}");
    assert_eq!(failed.kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn null_and_empty_texts_are_rows_with_a_reason() {
    let (ctx, _, _dir) = session().await;
    let rows = run(
        &ctx,
        "SELECT doc_id, status, reason FROM docs_to_qa((SELECT 'n' AS id, CAST(NULL AS VARCHAR) AS \
         text UNION ALL SELECT 'e', '' UNION ALL SELECT 'b', '  ')) ORDER BY doc_id",
    )
    .await
    .unwrap();
    for id in ["n", "e", "b"] {
        let line = rows.lines().find(|l| l.contains(&format!("| {id} ")));
        let line = line.unwrap_or_else(|| panic!("no row for {id}: {rows}"));
        assert!(
            line.contains("rejected") && line.contains("empty"),
            "{line}"
        );
    }
}

#[tokio::test]
async fn rows_without_an_id_are_told_apart_by_what_they_have() {
    let (ctx, _, _dir) = session().await;
    let documents = async |values: &str| {
        let sql = format!(
            "SELECT count(*), count(DISTINCT qa_id), count(DISTINCT doc_id) FROM docs_to_qa((SELECT name, \
             CAST(text AS VARCHAR) AS text FROM (VALUES {values}) AS v(name, text)), title => 'name', text => 'text', \
             max_pairs_per_document => 1)"
        );
        let rows = run(&ctx, &sql).await.unwrap();
        let cells = rows.lines().nth(3).unwrap().split('|');
        let cells = cells.map(str::trim).filter(|cell| !cell.is_empty());
        cells.map(str::to_owned).collect::<Vec<_>>().join(" ")
    };
    // Null, empty, blank; and the same below another title.
    let textless = "('A', ''), ('A', NULL), ('A', ' '), ('B', ''), ('B', NULL), (NULL, NULL)";
    assert_eq!(documents(textless).await, "6 6 6");
    // Nothing tells these two apart: they are one.
    assert_eq!(documents("('A', NULL), ('A', NULL)").await, "2 1 1");
    // A document without an id is its text, whatever stands above it.
    let texts = documents("('A', ' x'), ('B', ' x'), ('A', 'x')").await;
    assert!(texts.ends_with(" 2"), "{texts}");
}

/// The bundled model with another chat template.
pub(crate) fn model_with_template(dir: &std::path::Path, template: &str) -> std::path::PathBuf {
    let model = model_directory(dir);
    let path = model.join("tokenizer_config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
    config["chat_template"] = template.into();
    std::fs::write(&path, config.to_string()).unwrap();
    model
}

#[tokio::test]
async fn a_model_that_fails_for_a_few_documents_does_not_end_well() {
    let (ctx, _, dir) = session().await;
    let template = "{{ raise_exception('this template is broken') }}";
    let model = model_with_template(dir.path(), template);
    let call = format!("docs_to_qa('cases', model => '{}')", model.display());
    for limit in ["", " LIMIT 1", " LIMIT 100"] {
        let failed = error(&ctx, &format!("SELECT * FROM {call}{limit}")).await;
        assert!(
            failed.to_string().contains("this template is broken"),
            "{limit}: {failed}"
        );
    }
    let create = format!("CREATE TABLE failed AS SELECT * FROM {call}");
    error(&ctx, &create).await;
    assert!(!run(&ctx, "SHOW TABLES").await.unwrap().contains("failed"));
}
