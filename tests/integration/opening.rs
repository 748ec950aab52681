//! Tables of casebook.toml are opened by the statement that names them, and by nothing else.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use casebook::config::Config;
use casebook::{Casebook, Error, ErrorKind, new_session};
use datafusion::arrow::array::{RecordBatch, StringViewArray};
use datafusion::catalog::{MemTable, Session, TableProvider, TableProviderFactory};
use datafusion::error::Result;
use datafusion::logical_expr::CreateExternalTable;
use datafusion::prelude::SessionContext;

use crate::project::{program, project, said};
use crate::{error, number, run};

const CONFIG: &str = r#"
[tables.good]
format = "snowflake"
location = "db.s.good"
[tables.other]
format = "snowflake"
location = "db.s.other"
[tables.down]
format = "snowflake"
location = "db.s.down"
[tables."Odd Name"]
format = "snowflake"
location = "db.s.odd"
"#;

/// Stands in for a system: counts how often each table is opened, and does not know `down`.
#[derive(Debug, Default)]
struct Counting(Mutex<BTreeMap<String, usize>>);

#[async_trait::async_trait]
impl TableProviderFactory for Counting {
    async fn create(
        &self,
        _: &dyn Session,
        cmd: &CreateExternalTable,
    ) -> Result<Arc<dyn TableProvider>> {
        let name = cmd.name.table().to_owned();
        *self.0.lock().unwrap().entry(name.clone()).or_default() += 1;
        // As a system does that is asked over the network.
        tokio::time::sleep(Duration::from_millis(20)).await;
        if name == "down" {
            return Err(Error::new(ErrorKind::Unavailable, "the host does not answer").into());
        }
        let column = |text: &'static str| Arc::new(StringViewArray::from(vec![text; 3])) as _;
        let batch = RecordBatch::try_from_iter([("id", column("a")), ("text", column("b"))])?;
        Ok(Arc::new(MemTable::try_new(
            batch.schema(),
            vec![vec![batch]],
        )?))
    }
}

impl Counting {
    fn opened(&self) -> Vec<(String, usize)> {
        let counts = self.0.lock().unwrap();
        counts.iter().map(|(name, n)| (name.clone(), *n)).collect()
    }

    fn expect(&self, wanted: &[(&str, usize)]) {
        let wanted: Vec<_> = wanted.iter().map(|(n, c)| ((*n).to_owned(), *c)).collect();
        assert_eq!(self.opened(), wanted);
    }
}

/// A session that knows the tables of [`CONFIG`].
fn session() -> (SessionContext, Arc<Counting>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("casebook.toml");
    std::fs::write(&path, CONFIG).unwrap();
    let config = Config::load(&path, &|_| None).unwrap();
    let ctx = new_session(&Arc::new(Casebook::default())).unwrap();
    let source = Arc::new(Counting::default());
    let factory: Arc<dyn TableProviderFactory> = source.clone();
    ctx.state_ref()
        .write()
        .table_factories_mut()
        .insert("SNOWFLAKE".into(), factory);
    config.register_tables(&ctx).unwrap();
    (ctx, source, dir)
}

#[tokio::test(flavor = "multi_thread")]
async fn listing_opens_nothing() {
    let (ctx, source, _dir) = session();
    run(&ctx, "SELECT 1").await.unwrap();
    let tables = run(&ctx, "SHOW TABLES").await.unwrap();
    for name in ["good", "other", "down", "Odd Name", "df_settings"] {
        assert!(tables.contains(name), "{tables}");
    }
    let base = "SELECT count(*) FROM information_schema.tables WHERE table_type = 'BASE TABLE' AND \
                table_schema = 'public'";
    assert_eq!(number(&ctx, base).await, 4);
    run(&ctx, "SHOW datafusion.execution.batch_size")
        .await
        .unwrap();
    run(&ctx, "SHOW ALL").await.unwrap();
    run(&ctx, "SHOW FUNCTIONS LIKE 'chunk_text'").await.unwrap();
    let functions = "SELECT count(*) > 0 AS any FROM information_schema.routines WHERE \
                     routine_name = 'docs_to_qa'";
    run(&ctx, functions).await.unwrap();
    run(&ctx, "CREATE TABLE mine AS SELECT 1 AS x")
        .await
        .unwrap();
    assert_eq!(number(&ctx, "SELECT x FROM mine").await, 1);
    error(&ctx, "SELECT * FROM nowhere").await;
    source.expect(&[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_opened_once_by_what_names_it() {
    let (ctx, source, _dir) = session();
    for _ in 0..2 {
        assert_eq!(number(&ctx, "SELECT count(*) FROM good").await, 3);
    }
    source.expect(&[("good", 1)]);
    // A name within a string is looked up while planning, which cannot wait as others do.
    run(&ctx, "EXPLAIN SELECT * FROM docs_to_qa('other')")
        .await
        .unwrap();
    run(&ctx, "EXPLAIN SELECT * FROM docs_to_qa(other)")
        .await
        .unwrap();
    run(&ctx, "DESCRIBE \"Odd Name\"").await.unwrap();
    source.expect(&[("Odd Name", 1), ("good", 1), ("other", 1)]);
    // Several at once are one.
    let (ctx, source, _dir) = session();
    let queries = (0..8).map(|_| number(&ctx, "SELECT count(*) FROM good"));
    futures::future::join_all(queries).await;
    source.expect(&[("good", 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_down_stops_only_what_names_it() {
    let (ctx, source, dir) = session();
    for tries in 1..=2 {
        let error = error(&ctx, "SELECT * FROM down").await;
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let text = error.to_string();
        let file = dir.path().join("casebook.toml").display().to_string();
        assert!(
            text.contains(&file) && text.contains("[tables.down]") && text.contains("not answer"),
            "{text}"
        );
        source.expect(&[("down", tries)]);
    }
    let text = error(&ctx, "SELECT * FROM docs_to_qa('down')")
        .await
        .to_string();
    assert!(text.contains("[tables.down]"), "{text}");
    assert_eq!(number(&ctx, "SELECT count(*) FROM good").await, 3);
    run(&ctx, "SHOW TABLES").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_of_one_table_open_that_one() {
    let (ctx, source, _dir) = session();
    let columns = run(&ctx, "SHOW COLUMNS FROM good").await.unwrap();
    assert!(columns.contains("| text "), "{columns}");
    run(&ctx, "SHOW CREATE TABLE good").await.unwrap();
    let named = "SELECT count(*) FROM information_schema.columns WHERE table_name = ";
    assert_eq!(number(&ctx, &format!("{named} 'good'")).await, 2);
    source.expect(&[("good", 1)]);
    assert_eq!(number(&ctx, &format!("{named} 'Odd Name'")).await, 2);
    assert_eq!(
        number(&ctx, &format!("{named} 'good' AND column_name = 'text'")).await,
        1
    );
    assert_eq!(
        number(&ctx, &format!("{named} 'good' AND table_name = 'other'")).await,
        0
    );
    source.expect(&[("Odd Name", 1), ("good", 1)]);
    // All of them need all of them: an error that says which one fails, not some of the rows.
    let text = error(&ctx, "SELECT * FROM information_schema.columns").await;
    let text = text.to_string();
    assert!(
        text.contains("[tables.down]") && text.contains("WHERE table_name = '...'"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_name_is_taken_until_it_is_dropped() {
    let (ctx, source, _dir) = session();
    let create = "CREATE EXTERNAL TABLE good STORED AS CHAT_JSONL LOCATION 'x.jsonl'";
    let text = error(&ctx, create).await.to_string();
    assert!(text.contains("already exists"), "{text}");
    run(&ctx, "DROP TABLE good").await.unwrap();
    run(&ctx, create).await.unwrap();
    let opened: usize = source.opened().iter().map(|(_, n)| n).sum();
    assert!(opened <= 1);
}

/// Everything below it that is a file.
fn files(dir: &Path) -> Vec<String> {
    let mut out = vec![];
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => out.extend(files(&path)),
            false => out.push(path.display().to_string()),
        }
    }
    out.sort();
    out
}

#[test]
fn commands_that_read_change_nothing_and_need_no_host_that_is_down() {
    const DEAD: &str = r#"
[connections.down]
type = "databricks"
host = "http://127.0.0.1:9"
token = "secret-of-nobody"
[tables.elsewhere]
connection = "down"
table = "main.legal.cases"
[tables.cases]
format = "csv"
location = "cases.csv"
[tables.qa]
format = "delta"
location = "out/qa"
options = { "table.create" = "qa_pairs", "write.key" = "qa_id" }
[tables.chat]
format = "chat_jsonl"
location = "out/chat.jsonl"
[tables.tuned]
format = "lora"
location = "out/adapter"
[jobs.small]
source = "cases"
target = "qa"
[jobs.small.train]
target = "tuned"
"#;
    let dir = project(DEAD);
    let before = files(dir.path());
    let check = |args: &[&str], code: i32, part: &str| {
        let text = said(&program(dir.path(), args).output().unwrap(), code);
        assert!(text.contains(part), "{args:?}: {text}");
        assert!(!text.contains("secret-of-nobody"), "{text}");
    };
    check(&["sql", "SELECT 1"], 0, "1 row");
    check(&["sql", "SHOW TABLES"], 0, "elsewhere");
    check(&["sql", "SELECT count(*) FROM cases"], 0, "| 3 ");
    check(&["sql", "SHOW COLUMNS FROM cases"], 0, "decision_date");
    check(&["run", "small", "--dry-run"], 0, "INSERT INTO \"qa\"");
    check(&["ask", "Who won?"], 0, "");
    check(
        &[
            "compare",
            "-q",
            "builtin:tiny",
            "--base",
            "builtin:tiny",
            "--probes",
            "probes.csv",
        ],
        0,
        "seen questions",
    );
    check(&["profiles"], 0, "legal");
    assert_eq!(
        files(dir.path()),
        before,
        "a reading command wrote something"
    );
    check(&["sql", "SELECT * FROM elsewhere"], 1, "[tables.elsewhere]");
}

/// A host's own front end plans without waiting, and the table is not open yet.
#[tokio::test(flavor = "multi_thread")]
async fn the_plain_table_function_opens_its_table_too() {
    use casebook::functions::docs_to_qa::udtf::DocsToQaFunction;
    use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl};
    use datafusion::logical_expr::lit;

    let (ctx, source, _dir) = session();
    let function = DocsToQaFunction::new(Arc::new(Casebook::default()));
    let state = ctx.state();
    let call = |name: &str| {
        let args = [lit(name)];
        let table = function.call_with_args(TableFunctionArgs::new(&args, &state));
        table.map(|table| table.schema())
    };
    let schema = call("good").unwrap();
    assert!(schema.column_with_name("question").is_some());
    source.expect(&[("good", 1)]);
    let error = call("down").unwrap_err().to_string();
    assert!(error.contains("does not answer"), "{error}");
    let error = call("nowhere").unwrap_err().to_string();
    assert!(error.contains("unknown table 'nowhere'"), "{error}");
}
