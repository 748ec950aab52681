//! Several writers of one table at the same time: nothing lost, nothing doubled.

use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::{RecordBatch, StringViewArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::StreamExt;

use super::{create, insert, parquet_files, rows, run, session, try_run};

const PAIRS: &str = "'table.create' 'pairs'";

/// Rows of an INSERT that, before they end, run another INSERT: what one writer commits while
/// another writes.
#[derive(Debug)]
struct Meanwhile {
    schema: SchemaRef,
    ids: Vec<&'static str>,
    create: String,
    insert: String,
}

impl PartitionStream for Meanwhile {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let text = |values: Vec<&str>| Arc::new(StringViewArray::from(values)) as _;
        let n = self.ids.len();
        let columns = vec![
            text(self.ids.clone()),
            text(vec!["x"; n]),
            text(vec!["ok"; n]),
        ];
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns).unwrap();
        let (empty, create, insert_sql) =
            (batch.slice(0, 0), self.create.clone(), self.insert.clone());
        let other = async move {
            let ctx = session();
            run(&ctx, &create).await;
            insert(&ctx, &insert_sql).await;
            Ok(empty)
        };
        let stream = futures::stream::iter([Ok(batch)]).chain(futures::stream::once(other));
        Box::pin(RecordBatchStreamAdapter::new(
            Arc::clone(&self.schema),
            Box::pin(stream),
        ))
    }
}

/// Inserts `ids` with `options`, while another writer inserts `theirs`.
async fn overtaken(
    location: &Path,
    options: &str,
    ids: &[&'static str],
    theirs: &str,
) -> Result<u64, String> {
    let ctx = session();
    let options = format!("{PAIRS}{options}");
    run(&ctx, &create("t", location, &options)).await;
    insert(&ctx, "INSERT INTO t VALUES ('old', 'x', 'ok')").await;
    let columns = ["qa_id", "answer", "status"].map(|c| Field::new(c, DataType::Utf8View, true));
    let schema = Arc::new(Schema::new(columns.to_vec()));
    let partition = Meanwhile {
        schema: Arc::clone(&schema),
        ids: ids.to_vec(),
        create: create("t", location, &options),
        insert: format!("INSERT INTO t VALUES {theirs}"),
    };
    let table = StreamingTable::try_new(schema, vec![Arc::new(partition)]).unwrap();
    ctx.register_table("source", Arc::new(table)).unwrap();
    use datafusion::arrow::{array::AsArray, datatypes::UInt64Type};
    let counted = try_run(&ctx, "INSERT INTO t SELECT * FROM source").await?;
    Ok(counted[0].column(0).as_primitive::<UInt64Type>().value(0))
}

async fn ids(location: &Path) -> Vec<String> {
    let ctx = session();
    run(&ctx, &create("t", location, "")).await;
    rows(&ctx, "SELECT qa_id FROM t ORDER BY 1").await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_is_overtaken_is_committed_after() {
    let scratch = tempfile::tempdir().unwrap();
    let added = overtaken(scratch.path(), "", &["a", "b"], "('c', 'y', 'ok')").await;
    assert_eq!(added, Ok(2));
    assert_eq!(ids(scratch.path()).await, ["a", "b", "c", "old"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_keys_added_meanwhile_do_not_matter() {
    let scratch = tempfile::tempdir().unwrap();
    let key = ", 'write.key' 'qa_id'";
    let added = overtaken(scratch.path(), key, &["a", "old", "b"], "('c', 'y', 'ok')").await;
    assert_eq!(added, Ok(2));
    assert_eq!(ids(scratch.path()).await, ["a", "b", "c", "old"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_keys_added_meanwhile_are_not_added_again() {
    let scratch = tempfile::tempdir().unwrap();
    let key = ", 'write.key' 'qa_id'";
    let theirs = "('a', 'y', 'ok'), ('b', 'y', 'ok')";
    let added = overtaken(scratch.path(), key, &["a", "b"], theirs).await;
    assert_eq!(added, Ok(0));
    assert_eq!(ids(scratch.path()).await, ["a", "b", "old"]);
    assert_eq!(parquet_files(scratch.path()).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_kept_whose_keys_no_one_else_added() {
    let scratch = tempfile::tempdir().unwrap();
    let key = ", 'write.key' 'qa_id'";
    let added = overtaken(scratch.path(), key, &["a", "b", "c"], "('b', 'y', 'ok')").await;
    assert_eq!(added, Ok(2));
    assert_eq!(ids(scratch.path()).await, ["a", "b", "c", "old"]);
    let ctx = session();
    run(&ctx, &create("t", scratch.path(), "")).await;
    let answers = rows(&ctx, "SELECT qa_id, answer, status FROM t ORDER BY 1").await;
    assert_eq!(
        answers,
        ["a | x | ok", "b | y | ok", "c | x | ok", "old | x | ok"]
    );
    // The file that was written first is gone.
    assert_eq!(parquet_files(scratch.path()).len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_in_folders_are_kept_as_well() {
    let scratch = tempfile::tempdir().unwrap();
    let ctx = session();
    let create = format!(
        "CREATE EXTERNAL TABLE p STORED AS DELTA PARTITIONED BY (status) LOCATION '{}' \
         OPTIONS ({PAIRS})",
        scratch.path().display()
    );
    run(&ctx, &create).await;
    run(&ctx, "INSERT INTO p VALUES ('none', NULL, NULL)").await;
    let key = ", 'write.key' 'qa_id'";
    let added = overtaken(scratch.path(), key, &["a", "b", "c"], "('b', 'y', 'no')").await;
    assert_eq!(added, Ok(2));
    let found = rows(&ctx, "SELECT qa_id, answer, status FROM p ORDER BY 1").await;
    let expected = [
        "a | x | ok",
        "b | y | no",
        "c | x | ok",
        "none | null | null",
        "old | x | ok",
    ];
    assert_eq!(found, expected);
    assert!(scratch.path().join("status=ok").exists());
}

/// Writers that run at once, each until its INSERT of twenty rows is in.
async fn at_once(location: &Path, options: impl Fn(u32) -> String, first: impl Fn(u32) -> u32) {
    let mut writers = tokio::task::JoinSet::new();
    run(&session(), &create("t", location, PAIRS)).await;
    // The first of them makes the table.
    for writer in 0..4 {
        let create = create("t", location, &format!("{PAIRS}{}", options(writer)));
        let from = first(writer);
        let sql = format!(
            "INSERT INTO t SELECT 'id ' || value, 'by {writer}', 'ok' \
             FROM generate_series({from}, {})",
            from + 19
        );
        writers.spawn(async move {
            let ctx = session();
            run(&ctx, &create).await;
            run(&ctx, &sql).await;
        });
    }
    while let Some(writer) = writers.join_next().await {
        writer.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn appenders_at_once_lose_and_double_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let recorded = |writer| format!(", 'write.app_id' 'w{writer}', 'write.version' '1'");
    at_once(scratch.path(), recorded, |writer| writer * 20).await;
    let found = ids(scratch.path()).await;
    let mut once = found.clone();
    once.dedup();
    assert_eq!((found.len(), once.len()), (80, 80));
}

#[tokio::test(flavor = "multi_thread")]
async fn keyed_writers_at_once_lose_and_double_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let key = |_| ", 'write.key' 'qa_id'".to_owned();
    // Each shares half of its keys with the next.
    at_once(scratch.path(), key, |writer| writer * 10).await;
    let found = ids(scratch.path()).await;
    let mut once = found.clone();
    once.dedup();
    assert_eq!((found.len(), once.len()), (50, 50));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_application_version_at_once_is_written_once() {
    let scratch = tempfile::tempdir().unwrap();
    let same = |_| ", 'write.app_id' 'job', 'write.version' '1'".to_owned();
    at_once(scratch.path(), same, |_| 0).await;
    assert_eq!(ids(scratch.path()).await.len(), 20);
}
