//! A statement that is stopped never passes for one that is done: every target, then a rerun.

use std::sync::Arc;
use std::time::Duration;

use casebook::{Casebook, ErrorKind};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::prelude::SessionContext;
use tokio::sync::watch;

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

/// Documents that come one by one, and only as many as the test lets through: a statement on them is
/// not done before it is stopped, however fast or slow the machine is.
#[derive(Debug)]
struct Gated {
    documents: Vec<RecordBatch>,
    schema: SchemaRef,
    gate: watch::Receiver<usize>,
}

impl PartitionStream for Gated {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (documents, gate) = (self.documents.clone(), self.gate.clone());
        let next = move |i: usize| {
            let (next, mut gate) = (documents.get(i).cloned(), gate.clone());
            async move {
                let document = next?;
                gate.wait_for(|open| i < *open).await.ok()?;
                Some((Ok(document), i + 1))
            }
        };
        let rows = futures::stream::unfold(0, next);
        let schema = Arc::clone(&self.schema);
        Box::pin(RecordBatchStreamAdapter::new(schema, rows))
    }
}

struct Setup {
    ctx: SessionContext,
    casebook: Arc<Casebook>,
    dir: tempfile::TempDir,
    /// How many documents there are at most.
    gate: watch::Sender<usize>,
    /// The rows of the uninterrupted statement.
    whole: String,
}

impl Setup {
    async fn new() -> Self {
        let (ctx, casebook, dir) = session().await;
        write_documents(dir.path(), DOCUMENTS);
        let path = dir.path().join("docs.csv").display().to_string();
        let create = format!("CREATE EXTERNAL TABLE file STORED AS CSV LOCATION '{path}'");
        run(&ctx, &create).await.unwrap();
        let file = ctx.table("file").await.unwrap().collect().await.unwrap();
        let cut = |batch: &RecordBatch| {
            let rows = 0..batch.num_rows();
            rows.map(|i| batch.slice(i, 1)).collect::<Vec<_>>()
        };
        let (gate, let_through) = watch::channel(DOCUMENTS);
        let documents = Gated {
            documents: file.iter().flat_map(cut).collect(),
            schema: file[0].schema(),
            gate: let_through,
        };
        assert_eq!(documents.documents.len(), DOCUMENTS);
        let table = StreamingTable::try_new(file[0].schema(), vec![Arc::new(documents)]);
        ctx.register_table("docs", Arc::new(table.unwrap()))
            .unwrap();
        for sql in [
            // Few at once, so that documents are done one after the other.
            "SET casebook.qa.look_ahead_documents = 2".to_owned(),
            format!("CREATE TABLE whole AS SELECT * FROM {CALL}"),
        ] {
            run(&ctx, &sql).await.unwrap();
        }
        let whole = rows(&ctx, "whole").await;
        Self {
            ctx,
            casebook,
            dir,
            gate,
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

    /// Stops `sql` when `documents` are done and the next one is begun; its error.
    async fn stop(&self, sql: &str, documents: usize) -> casebook::Error {
        let progress = &self.casebook.progress;
        let (done, begun) = (progress.documents.get(), progress.documents_started.get());
        self.gate.send_replace(documents + 1);
        let (statement, ctx) = (self.sql(sql), self.ctx.clone());
        let work = tokio::spawn(async move { run(&ctx, &statement).await });
        while progress.documents.get() < done + documents as u64
            || progress.documents_started.get() <= begun + documents as u64
        {
            assert!(!work.is_finished(), "{:?}", work.await.unwrap());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.casebook.cancel();
        let stopped = work.await.unwrap();
        self.gate.send_replace(DOCUMENTS);
        match stopped {
            Ok(rows) => panic!("{sql}: stopped after {documents} documents, but: {rows}"),
            Err(error) => error,
        }
    }
}

async fn rows(ctx: &SessionContext, table: &str) -> String {
    let sql = format!("SELECT {SHOWN} FROM {table} ORDER BY qa_id");
    run(ctx, &sql).await.unwrap()
}

/// After how many documents to stop.
const MOMENTS: [usize; 4] = [0, 1, 3, 6];

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
        let documents = MOMENTS[n % MOMENTS.len()];
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
        let error = setup.stop(&insert, documents).await;
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
        for documents in MOMENTS {
            let error = setup.stop(&insert, documents).await;
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
        let error = setup.stop(query, 1).await;
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
    use std::process::{Child, ChildStdout, Command, Stdio};
    use std::sync::mpsc;
    use std::time::Instant;

    use super::*;
    use crate::project::{program, said};

    /// A run of the program.
    struct Run {
        child: Child,
        stdout: BufReader<ChildStdout>,
        /// Lines of its standard error.
        errors: mpsc::Receiver<String>,
    }

    impl Run {
        /// The program on `sql`, once it has printed the line `ready`.
        fn start(dir: &Path, sql: &str, ready: &str) -> Self {
            let sql = format!("SELECT 1 AS ready; {sql}");
            let mut child = program(dir, &["sql", "--format", "csv", &sql])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let mut stdout = BufReader::new(child.stdout.take().unwrap());
            let mut line = String::new();
            while line.trim_end() != ready {
                line.clear();
                assert!(stdout.read_line(&mut line).unwrap() > 0, "never {ready}");
            }
            let stderr = BufReader::new(child.stderr.take().unwrap());
            let (send, errors) = mpsc::channel();
            std::thread::spawn(move || {
                for line in stderr.lines().map_while(Result::ok) {
                    send.send(line).ok();
                }
            });
            Self {
                child,
                stdout,
                errors,
            }
        }

        /// Waits for a line of its standard error.
        fn says(&self, wanted: impl Fn(&str) -> bool) {
            let mut said = vec![];
            loop {
                match self.errors.recv_timeout(Duration::from_secs(120)) {
                    Ok(line) if wanted(&line) => return,
                    Ok(line) => said.push(line),
                    Err(e) => panic!("{e}: {said:?}"),
                }
            }
        }

        /// Waits until it has worked for a second, on what it began with its first line.
        fn works(&mut self) {
            let path = format!("/proc/{}/stat", self.child.id());
            let ticks = || {
                let stat = std::fs::read_to_string(&path).unwrap_or_default();
                let after_name = stat.rsplit(')').next().unwrap_or_default();
                let times = after_name.split_whitespace().skip(11).take(2);
                times.map(|n| n.parse::<u64>().unwrap()).sum::<u64>()
            };
            if !Path::new(&path).exists() {
                // Not Linux, which says it.
                std::thread::sleep(Duration::from_secs(2));
                return;
            }
            let begun = ticks();
            // In hundredths of a second.
            while ticks() < begun + 100 {
                assert!(self.child.try_wait().unwrap().is_none(), "it has ended");
                std::thread::sleep(Duration::from_millis(10));
            }
        }

        fn send(&self, signal: &str) {
            let pid = self.child.id().to_string();
            let sent = Command::new("kill").args([signal, &pid]).status().unwrap();
            assert!(sent.success());
        }

        fn end(mut self, within: Duration) -> Option<i32> {
            let begun = Instant::now();
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    // Held open till here: a reader that goes away would end it, too.
                    drop(self.stdout);
                    return status.code();
                }
                if begun.elapsed() > within {
                    self.child.kill().ok();
                    panic!("still running after {within:?}");
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    const TABLES: &str = "CREATE EXTERNAL TABLE docs STORED AS CSV LOCATION 'docs.csv'; \
        CREATE EXTERNAL TABLE qa STORED AS DELTA LOCATION 'qa' \
        OPTIONS ('table.create' 'qa_pairs', 'write.key' 'qa_id');";

    /// For work that ends by itself; it is only there so that a test ends that fails.
    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn the_three_signals_stop_alike_and_a_rerun_completes() {
        let dir = tempfile::tempdir().unwrap();
        write_documents(dir.path(), 500);
        let sql = format!("{TABLES} INSERT INTO qa SELECT * FROM {CALL}");
        let read = |query: &str| {
            let sql = format!("{TABLES} {query}");
            let output = program(dir.path(), &["sql", "-q", "--format", "csv", &sql]).output();
            let text = said(&output.unwrap(), 0);
            text.lines().last().unwrap().to_owned()
        };
        let counts = "SELECT count(*), count(DISTINCT qa_id), count(DISTINCT doc_id) FROM";
        for signal in ["-INT", "-TERM", "-HUP"] {
            let run = Run::start(dir.path(), &sql, "ready");
            // A line of progress, when some documents are done.
            run.says(|line| {
                line.starts_with("generating: ") && !line.starts_with("generating: 0 ")
            });
            run.send(signal);
            assert_eq!(run.end(LONG), Some(130), "{signal}");
            let kept = read("SELECT count(DISTINCT doc_id) FROM qa");
            assert_ne!(kept, "0", "{signal}");
        }
        assert_eq!(Run::start(dir.path(), &sql, "ready").end(LONG), Some(0));
        let whole = read(&format!("{counts} {CALL}"));
        assert_eq!(read(&format!("{counts} qa")), whole);
    }

    #[test]
    fn a_program_that_is_to_survive_its_terminal_does() {
        let dir = tempfile::tempdir().unwrap();
        // More than a pipe holds: it is not done before the test reads on.
        let rows = 200_000;
        let sql = format!("SELECT * FROM range(0, {rows})");
        let mut child = Command::new("nohup")
            .args([env!("CARGO_BIN_EXE_casebook"), "sql", "-q"])
            .args(["--format", "csv", &sql])
            .current_dir(dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let pid = child.id().to_string();
        let sent = Command::new("kill").args(["-HUP", &pid]).status();
        assert!(sent.unwrap().success());
        assert_eq!(stdout.lines().count(), rows);
        assert_eq!(
            child.wait().unwrap().code(),
            Some(0),
            "nohup was not heeded"
        );
    }

    #[test]
    fn what_does_not_listen_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let endless = "SELECT count(*) FROM range(0, 10000000) a, range(0, 10000000) b \
                       WHERE a.value * 3 = b.value * b.value + 1 OR a.value + b.value = -1";
        let large = "SELECT * FROM docs_to_qa((SELECT repeat('The court held so. ', 2700000 + value) \
                     AS text FROM range(0, 1))) LIMIT 1";
        // A chat template that never ends keeps every thread of the engine busy.
        let round = "{% for a in range(9999) %}".repeat(4);
        let template = format!("{round}x{}", "{% endfor %}".repeat(4));
        crate::bad_input::model_with_template(dir.path(), &template);
        write_documents(dir.path(), 30);
        let looping = "CREATE EXTERNAL TABLE docs STORED AS CSV LOCATION 'docs.csv'; \
                       SELECT * FROM docs_to_qa('docs', model => 'model'); ";
        for sql in [endless, large, looping] {
            let mut run = Run::start(dir.path(), sql, "ready");
            run.works();
            run.send("-INT");
            assert_eq!(run.end(Duration::from_secs(60)), Some(130), "{sql}");
        }
    }

    #[test]
    fn a_second_signal_ends_at_once() {
        let dir = tempfile::tempdir().unwrap();
        write_documents(dir.path(), 30);
        // The first row is more than a pipe holds and nobody reads it: once its header is there, the
        // program waits in the middle of a write and cannot end in order.
        let sql = "CREATE EXTERNAL TABLE docs STORED AS CSV LOCATION 'docs.csv'; \
                   SELECT question, repeat('x', 1000000) AS x FROM docs_to_qa('docs')";
        let run = Run::start(dir.path(), sql, "question,x");
        run.send("-INT");
        run.says(|line| line.starts_with("stopping"));
        // What comes within a second is the same stop.
        std::thread::sleep(Duration::from_millis(1100));
        run.send("-INT");
        // The first one alone takes thirteen seconds.
        assert_eq!(run.end(Duration::from_secs(10)), Some(130));
    }
}
