//! A statement that is stopped never passes for one that is done: every target, then a rerun.

use std::sync::Arc;
use std::time::Duration;

use casebook::{Casebook, ErrorKind};
use datafusion::prelude::SessionContext;

use crate::{number, run, session};

/// Documents of the tests.
const DOCUMENTS: usize = 24;
const CALL: &str = "docs_to_qa('docs', profile => 'legal', max_pairs_per_document => 2)";
const SHOWN: &str = "qa_id, doc_id, question, answer, status";

/// `docs.csv` with `count` short opinions.
pub(crate) fn write_documents(dir: &std::path::Path, count: usize) {
    let mut text = String::from("id,name,text\n");
    for i in 0..count {
        text.push_str(&format!(
            "d{i},Roe v. Acme {i},\"On May {day}, 19{year}, Roe filed a complaint against Acme {i} for \
             breach of contract. The district court granted summary judgment to Acme {i}. The \
             plaintiff paid {pay} dollars. We affirm the judgment.\"\n",
            day = i % 28 + 1,
            year = 50 + i % 40,
            pay = 100 + 7 * i,
        ));
    }
    std::fs::write(dir.join("docs.csv"), text).unwrap();
}

struct Setup {
    ctx: SessionContext,
    casebook: Arc<Casebook>,
    dir: tempfile::TempDir,
    /// The rows of the uninterrupted statement.
    whole: String,
}

impl Setup {
    async fn new() -> Self {
        let (ctx, casebook, dir) = session().await;
        write_documents(dir.path(), DOCUMENTS);
        let setup = |sql: String| sql.replace("DIR", dir.path().to_str().unwrap());
        for sql in [
            "CREATE EXTERNAL TABLE docs STORED AS CSV LOCATION 'DIR/docs.csv'".to_owned(),
            // Few at once, so that documents are done one after the other.
            "SET casebook.qa.look_ahead_documents = 2".to_owned(),
            format!("CREATE TABLE whole AS SELECT * FROM {CALL}"),
        ] {
            run(&ctx, &setup(sql)).await.unwrap();
        }
        let whole = rows(&ctx, "whole").await;
        Self {
            ctx,
            casebook,
            dir,
            whole,
        }
    }

    fn sql(&self, sql: &str) -> String {
        sql.replace("DIR", self.dir.path().to_str().unwrap())
            .replace("CALL", CALL)
    }

    async fn run(&self, sql: &str) -> String {
        let sql = self.sql(sql);
        run(&self.ctx, &sql)
            .await
            .unwrap_or_else(|e| panic!("{sql}: {e}"))
    }

    /// Stops `sql` when `documents` are done and `delay` has passed; its error.
    async fn stop(&self, sql: &str, documents: u64, delay: u64) -> casebook::Error {
        let done = || self.casebook.progress.documents.get();
        let (before, sql, ctx) = (done(), self.sql(sql), self.ctx.clone());
        let work = tokio::spawn(async move { run(&ctx, &sql).await });
        while done() < before + documents || !self.casebook.is_busy() {
            assert!(!work.is_finished(), "{:?}", work.await.unwrap());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_millis(delay)).await;
        self.casebook.cancel();
        match work.await.unwrap() {
            Ok(rows) => panic!("stopped after {documents} documents and {delay} ms, but: {rows}"),
            Err(error) => error,
        }
    }
}

async fn rows(ctx: &SessionContext, table: &str) -> String {
    let sql = format!("SELECT {SHOWN} FROM {table} ORDER BY qa_id");
    run(ctx, &sql).await.unwrap()
}

/// When to stop: spread over the run, between documents and within.
const MOMENTS: [(u64, u64); 4] = [(0, 30), (1, 0), (3, 17), (6, 5)];

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_target_is_whole_after_a_rerun() {
    let setup = Setup::new().await;
    let delta = "STORED AS DELTA LOCATION 'DIR/TABLE'";
    let csv = "STORED AS CSV LOCATION 'DIR/TABLE/'";
    let key = "'write.key' 'qa_id'";
    let version = "'write.app_id' 'nightly', 'write.version' '7'";
    // (format, options, verb, a stopped run keeps whole documents)
    let kinds = [
        (delta, key, "INTO", true),
        (delta, "", "INTO", false),
        (delta, "", "OVERWRITE", false),
        (delta, key, "OVERWRITE", false),
        (delta, version, "INTO", false),
        (delta, "KEY, VERSION", "INTO", false),
        (delta, "KEY, 'write.rejects' 'separate'", "INTO", true),
        (csv, key, "INTO", true),
        (csv, "", "INTO", false),
        (csv, version, "INTO", false),
    ];
    for (n, (format, options, verb, keeps)) in kinds.into_iter().enumerate() {
        let options = options.replace("KEY", key).replace("VERSION", version);
        let comma = if options.is_empty() { "" } else { ", " };
        let (documents, delay) = MOMENTS[n % MOMENTS.len()];
        let table = format!("t{n}");
        let what = format!("{verb} {format} {options}, stopped after {documents}");
        setup
            .run(&format!(
                "CREATE EXTERNAL TABLE {table} {} OPTIONS ('table.create' 'qa_pairs'{comma}{options})",
                format.replace("TABLE", &table)
            ))
            .await;
        let overwrites = verb == "OVERWRITE";
        if overwrites {
            let old = format!("INSERT INTO {table} SELECT * FROM {CALL} LIMIT 3");
            setup.run(&old).await;
        }
        let before = rows(&setup.ctx, &table).await;
        let insert = format!("INSERT {verb} {table} SELECT * FROM {CALL}");
        let error = setup.stop(&insert, documents, delay).await;
        assert_eq!(error.kind(), ErrorKind::Interrupted, "{what}: {error}");
        let after = rows(&setup.ctx, &table).await;
        if keeps {
            let torn = format!(
                "SELECT count(*) FROM (SELECT doc_id, count(*) AS n FROM {table} GROUP BY doc_id) t \
                 JOIN (SELECT doc_id, count(*) AS n FROM whole {} GROUP BY doc_id) w \
                 ON t.doc_id = w.doc_id WHERE t.n <> w.n",
                if options.contains("rejects") {
                    "WHERE status = 'ok'"
                } else {
                    ""
                }
            );
            assert_eq!(number(&setup.ctx, &torn).await, 0, "{what}: {after}");
            if documents > 1 {
                assert_ne!(after, before, "{what}: finished documents are kept");
            }
        } else {
            assert_eq!(after, before, "{what}");
        }
        setup.run(&insert).await;
        let end = match options.contains("rejects") {
            false => rows(&setup.ctx, &table).await,
            true => {
                let beside = format!(
                    "CREATE EXTERNAL TABLE rejects STORED AS DELTA LOCATION 'DIR/{table}_rejects'"
                );
                setup.run(&beside).await;
                let both = format!("(SELECT * FROM {table} UNION ALL SELECT * FROM rejects)");
                rows(&setup.ctx, &both).await
            }
        };
        assert_eq!(end, setup.whole, "{what}");
        if !options.is_empty() && !overwrites {
            assert_eq!(number(&setup.ctx, &setup.sql(&insert)).await, 0, "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn training_files_and_adapters_are_of_the_whole_statement() {
    let setup = Setup::new().await;
    let accepted = "SELECT count(*) FROM whole WHERE status = 'ok'";
    let accepted = number(&setup.ctx, accepted).await;
    assert!(accepted > 3);
    setup
        .run("CREATE EXTERNAL TABLE chat STORED AS CHAT_JSONL LOCATION 'DIR/chat.jsonl'")
        .await;
    setup
        .run(
            "CREATE EXTERNAL TABLE tuned STORED AS LORA LOCATION 'DIR/adapter' OPTIONS \
             ('lora.rank' '2', 'lora.epochs' '1', 'lora.with_document_share' '0')",
        )
        .await;
    for (table, file) in [
        ("chat (question, answer)", "chat.jsonl"),
        ("tuned (question, answer)", "adapter/run/examples.jsonl"),
    ] {
        let insert =
            format!("INSERT INTO {table} SELECT question, answer FROM CALL WHERE status = 'ok'");
        let path = setup.dir.path().join(file);
        for (documents, delay) in MOMENTS {
            let error = setup.stop(&insert, documents, delay).await;
            assert_eq!(error.kind(), ErrorKind::Interrupted, "{table}: {error}");
            assert!(!path.exists(), "{table}");
        }
        let left: Vec<_> = std::fs::read_dir(path.parent().unwrap())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.contains("tmp"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
        setup.run(&insert).await;
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert_eq!(lines as i64, accepted, "{table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_is_stopped_is_an_error_and_the_next_one_is_whole() {
    let setup = Setup::new().await;
    for query in [
        "SELECT count(*) FROM CALL",
        "SELECT * FROM CALL ORDER BY qa_id LIMIT 3",
        "SELECT * FROM CALL WHERE status = 'ok' LIMIT 1000",
        "CREATE TABLE half AS SELECT * FROM CALL",
        "SELECT ask('default', question) FROM CALL WHERE question IS NOT NULL",
    ] {
        let error = setup.stop(query, 1, 3).await;
        assert_eq!(error.kind(), ErrorKind::Interrupted, "{query}: {error}");
    }
    assert!(setup.run("SHOW TABLES").await.contains("whole"));
    assert!(!setup.run("SHOW TABLES").await.contains("half"));
    let all = number(&setup.ctx, "SELECT count(*) FROM whole").await;
    // Nothing runs: nothing is stopped, and what follows is not.
    setup.casebook.cancel();
    let count = format!("SELECT count(*) FROM {CALL}");
    assert_eq!(number(&setup.ctx, &count).await, all);
}

#[cfg(unix)]
mod signals {
    use std::io::{BufRead, BufReader};
    use std::path::Path;
    use std::process::{Child, Command, Stdio};
    use std::time::Instant;

    use super::*;

    /// The program on `sql`, once it has printed its first line.
    fn start(dir: &Path, sql: &str) -> Child {
        let mut child = Command::new(env!("CARGO_BIN_EXE_casebook"))
            .args(["sql", "-q", &format!("SELECT 1 AS ready; {sql}")])
            .current_dir(dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        // A reader that goes away would end the program.
        std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
        child
    }

    fn send(child: &Child, signal: &str) {
        let pid = child.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(sent.success());
    }

    fn end(mut child: Child, within: Duration) -> Option<i32> {
        let begun = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status.code();
            }
            if begun.elapsed() > within {
                child.kill().ok();
                panic!("still running after {within:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    const TABLES: &str = "CREATE EXTERNAL TABLE docs STORED AS CSV LOCATION 'docs.csv'; \
        CREATE EXTERNAL TABLE qa STORED AS DELTA LOCATION 'qa' \
        OPTIONS ('table.create' 'qa_pairs', 'write.key' 'qa_id');";

    #[test]
    fn the_three_signals_stop_alike_and_a_rerun_completes() {
        let dir = tempfile::tempdir().unwrap();
        write_documents(dir.path(), 500);
        let sql = format!("{TABLES} INSERT INTO qa SELECT * FROM {CALL}");
        for (signal, wait) in [("-INT", 900), ("-TERM", 1500), ("-HUP", 400)] {
            let child = start(dir.path(), &sql);
            std::thread::sleep(Duration::from_millis(wait));
            send(&child, signal);
            assert_eq!(end(child, Duration::from_secs(16)), Some(130), "{signal}");
        }
        let child = start(dir.path(), &sql);
        assert_eq!(end(child, Duration::from_secs(300)), Some(0));
        let check = format!(
            "{TABLES} SELECT 'rows', count(*), count(DISTINCT qa_id) FROM qa; \
             SELECT 'rows', count(*), count(DISTINCT qa_id) FROM {CALL}"
        );
        let output = Command::new(env!("CARGO_BIN_EXE_casebook"))
            .args(["sql", "-q", &check])
            .current_dir(dir.path())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<&str> = text.lines().filter(|l| l.starts_with("| rows")).collect();
        assert_eq!(lines.len(), 2, "{text}");
        let cells = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(cells(lines[0]), cells(lines[1]));
    }

    #[test]
    fn a_program_that_is_to_survive_its_terminal_does() {
        let dir = tempfile::tempdir().unwrap();
        let endless = "SELECT count(*) FROM range(0, 10000000) a, range(0, 10000000) b \
                       WHERE a.value * 3 = b.value * b.value + 1 OR a.value + b.value = -1";
        let child = Command::new("nohup")
            .args([env!("CARGO_BIN_EXE_casebook"), "sql", "-q", endless])
            .current_dir(dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut child = child.unwrap();
        std::thread::sleep(Duration::from_millis(1500));
        send(&child, "-HUP");
        std::thread::sleep(Duration::from_millis(3500));
        assert!(child.try_wait().unwrap().is_none(), "nohup was not heeded");
        send(&child, "-TERM");
        assert_eq!(end(child, Duration::from_secs(10)), Some(130));
    }

    #[test]
    fn what_does_not_listen_is_ended_and_a_second_signal_ends_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let endless = "SELECT count(*) FROM range(0, 10000000) a, range(0, 10000000) b \
                       WHERE a.value * 3 = b.value * b.value + 1 OR a.value + b.value = -1";
        let child = start(dir.path(), endless);
        std::thread::sleep(Duration::from_millis(300));
        send(&child, "-INT");
        assert_eq!(end(child, Duration::from_secs(10)), Some(130));

        let large = "SELECT * FROM docs_to_qa((SELECT repeat('The court held so. ', 2700000 + value) \
                     AS text FROM range(0, 1))) LIMIT 1";
        let child = start(dir.path(), large);
        std::thread::sleep(Duration::from_millis(1500));
        send(&child, "-INT");
        assert_eq!(end(child, Duration::from_secs(10)), Some(130));

        // A chat template that never ends keeps every thread of the engine busy.
        let round = "{% for a in range(9999) %}".repeat(4);
        let template = format!("{round}x{}", "{% endfor %}".repeat(4));
        crate::bad_input::model_with_template(dir.path(), &template);
        write_documents(dir.path(), 30);
        let looping = "CREATE EXTERNAL TABLE docs STORED AS CSV LOCATION 'docs.csv'; \
                       SELECT * FROM docs_to_qa('docs', model => 'model'); ";
        for (signals, within) in [(1, 16), (2, 2)] {
            let child = start(dir.path(), looping);
            std::thread::sleep(Duration::from_millis(1500));
            for _ in 0..signals {
                send(&child, "-INT");
                std::thread::sleep(Duration::from_millis(200));
            }
            assert_eq!(end(child, Duration::from_secs(within)), Some(130));
        }
    }
}
