//! How rows become visible where the store does not do what it is asked for, or not at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use datafusion::prelude::{SessionConfig, SessionContext};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutPayload};
use url::Url;

use crate::test_store::{Op, TestStore};
use crate::{ConnectorOptions, register};

const FORMATS: [&str; 3] = ["CSV", "JSON", "PARQUET"];

/// A session with `store` as the bucket of this name, for `scheme`.
fn session(scheme: &str, store: impl ObjectStore) -> SessionContext {
    let config = SessionConfig::new()
        .with_target_partitions(2)
        .with_batch_size(1024);
    let ctx = SessionContext::new_with_config(config);
    register(&ctx, &ConnectorOptions::default()).unwrap();
    let url = Url::parse(&format!("{scheme}://bucket")).unwrap();
    ctx.register_object_store(&url, Arc::new(store));
    ctx
}

/// What a statement gives: the only number, or nothing.
async fn ask(ctx: &SessionContext, sql: &str) -> Result<String, String> {
    let frame = ctx.sql(sql).await.map_err(|e| e.to_string())?;
    let batches = frame.collect().await.map_err(|e| e.to_string())?;
    let shown = datafusion::arrow::util::pretty::pretty_format_batches(&batches).unwrap();
    let shown = shown.to_string();
    let line = shown.lines().nth(3).unwrap_or_default();
    Ok(line.trim_matches(['|', ' ']).to_owned())
}

async fn number(ctx: &SessionContext, sql: &str) -> u64 {
    ask(ctx, sql).await.unwrap().parse().unwrap()
}

fn create(name: &str, format: &str, location: &str, options: &str) -> String {
    let options = match options.is_empty() {
        true => String::new(),
        false => format!("OPTIONS ({options})"),
    };
    format!(
        "CREATE EXTERNAL TABLE {name} (id BIGINT, text VARCHAR) STORED AS {format} LOCATION \
         '{location}' {options}"
    )
}

async fn files(store: &dyn ObjectStore) -> Vec<ObjectMeta> {
    store.list(None).try_collect().await.unwrap()
}

/// S3 copies no object of more than 5 GiB at once.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_for_one_copy_becomes_several_files() {
    const MOST: u64 = 2 << 20;
    for (format, once) in [
        ("CSV", ""),
        ("JSON", "'write.key' 'id'"),
        ("PARQUET", "'write.app_id' 'a', 'write.version' '1'"),
    ] {
        let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let sizes = Arc::clone(&inner);
        let store = TestStore::new(Arc::clone(&inner)).before(move |op| {
            let (sizes, from) = match op {
                Op::Copy(from, _) => (Arc::clone(&sizes), from.clone()),
                _ => return Box::pin(std::future::ready(Ok(()))),
            };
            Box::pin(async move {
                match sizes.head(&from).await?.size {
                    0..=MOST => Ok(()),
                    _ => Err(TestStore::broken()),
                }
            })
        });
        let ctx = session("s3", store);
        ask(&ctx, &create("t", format, "s3://bucket/t/", once))
            .await
            .unwrap();
        // 6 MB that hardly compress.
        let texts: Vec<String> = (0..7)
            .map(|n| format!("md5(concat('{n}-', value))"))
            .collect();
        let insert = format!(
            "INSERT INTO t SELECT value, concat({}) FROM generate_series(1, 24000)",
            texts.join(", ")
        );
        assert_eq!(number(&ctx, &insert).await, 24000, "{format}");
        let counts = "SELECT count(*) FROM t WHERE length(text) > 200";
        assert_eq!(number(&ctx, counts).await, 24000, "{format}");
        assert_eq!(
            number(&ctx, "SELECT count(DISTINCT id) FROM t").await,
            24000
        );
        let there = files(inner.as_ref()).await;
        let data = there
            .iter()
            .filter(|file| !file.location.as_ref().contains("_casebook"));
        assert!(data.count() > 2, "{format}: {there:?}");
        let waiting = there
            .iter()
            .filter(|file| file.location.as_ref().contains("/tmp/"));
        assert_eq!(waiting.count(), 0, "{format}");
        if !once.is_empty() {
            assert_eq!(number(&ctx, &insert).await, 0, "{format}");
            assert_eq!(number(&ctx, "SELECT count(*) FROM t").await, 24000);
        }
    }
}

/// The copy is made, and its answer, or what comes after it, is lost.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_visible_are_no_error() {
    for lost in ["answer", "delete"] {
        for (format, once, repeated) in [
            ("CSV", "", 2),
            ("JSON", "'write.key' 'id'", 1),
            ("PARQUET", "'write.app_id' 'a', 'write.version' '1'", 1),
        ] {
            let fails = |yes: bool| match yes {
                true => Err(TestStore::broken()),
                false => Ok(()),
            };
            let store = TestStore::new(Arc::new(InMemory::new()))
                .before(move |op| {
                    let is_lost = lost == "delete" && matches!(op, Op::Delete);
                    Box::pin(std::future::ready(fails(is_lost)))
                })
                .after(move |op| {
                    let is_lost = lost == "answer" && matches!(op, Op::Copy(..));
                    Box::pin(std::future::ready(fails(is_lost)))
                });
            let ctx = session("mem", store);
            ask(&ctx, &create("t", format, "mem://bucket/t/", once))
                .await
                .unwrap();
            let insert = "INSERT INTO t VALUES (1, 'a'), (2, 'b')";
            for round in 1..3 {
                ask(&ctx, insert).await.unwrap();
                let expected = if round == 1 { 2 } else { 2 * repeated };
                let found = number(&ctx, "SELECT count(*) FROM t").await;
                assert_eq!(found, expected, "{lost} {format}");
            }
        }
    }
}

/// Rows are dear.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_cannot_become_visible_wait_where_the_error_says() {
    for format in FORMATS {
        for (scheme, broken) in [("mem", "copy"), ("s3", "list")] {
            let store = TestStore::new(Arc::new(InMemory::new())).before(move |op| {
                let fails = match op {
                    Op::Copy(..) => broken == "copy",
                    Op::Put(path) => broken == "list" && path.as_ref().contains("/lists/"),
                    _ => false,
                };
                Box::pin(async move {
                    match fails {
                        true => Err(TestStore::broken()),
                        false => Ok(()),
                    }
                })
            });
            let ctx = session(scheme, store);
            let at = format!("{scheme}://bucket/t/");
            ask(&ctx, &create("t", format, &at, "")).await.unwrap();
            let insert = "INSERT INTO t VALUES (1, 'a'), (2, 'b')";
            let error = ask(&ctx, insert).await.unwrap_err();
            let waits = error.split("all rows wait in '").nth(1);
            let waits = waits.unwrap_or_else(|| panic!("{error}"));
            let waits = waits.split('\'').next().unwrap();
            assert!(waits.starts_with(&format!("{at}_casebook/tmp/")), "{error}");
            assert_eq!(number(&ctx, "SELECT count(*) FROM t").await, 0);
            ask(&ctx, &create("rest", format, waits, "")).await.unwrap();
            assert_eq!(
                number(&ctx, "SELECT sum(id) FROM rest").await,
                3,
                "{format} {error}"
            );
        }
    }
}

/// Another writer takes the name first, with one of the keys.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_were_overtaken_are_read_as_they_were_written() {
    for (first, format, row) in [
        ("t/a.tsv", "CSV", "id\ttext\n7\tx, \"y\n"),
        ("t/a.csv", "CSV", "id,text\n7,\"x, \"\"y\"\n"),
        ("t/a.jsonl", "JSON", "{\"id\":7,\"text\":\"x\"}\n"),
    ] {
        let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let put = |path: Path, text: &'static str| {
            let inner = Arc::clone(&inner);
            async move {
                inner
                    .put(&path, PutPayload::from_static(text.as_bytes()))
                    .await
            }
        };
        put(Path::from(first), row).await.unwrap();
        let races = Arc::new(AtomicU64::new(0));
        let (other, counted) = (Arc::clone(&inner), Arc::clone(&races));
        let store = TestStore::new(Arc::clone(&inner)).before(move |op| {
            let to = match op {
                Op::Copy(_, to) if counted.fetch_add(1, Ordering::SeqCst) == 0 => to.clone(),
                _ => return Box::pin(std::future::ready(Ok(()))),
            };
            let other = Arc::clone(&other);
            let theirs = row.replace('7', "8");
            Box::pin(async move { other.put(&to, theirs.into()).await.map(drop) })
        });
        let ctx = session("mem", store);
        let create = create("t", format, "mem://bucket/t/", "'write.key' 'id'");
        ask(&ctx, &create).await.unwrap();
        let insert = "INSERT INTO t VALUES (7, 'old'), (8, 'theirs'), (9, 'a\tb, c'), (10, NULL)";
        assert_eq!(number(&ctx, insert).await, 2, "{first}");
        assert_eq!(races.load(Ordering::SeqCst), 2, "{first}");
        assert_eq!(number(&ctx, "SELECT count(*) FROM t").await, 4, "{first}");
        let ours = "SELECT count(*) FROM t WHERE id = 9 AND text = 'a\tb, c'";
        assert_eq!(number(&ctx, ours).await, 1, "{first}");
    }
}

/// Azure may answer before it has copied, and needs the original until then.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_complete_before_its_original_goes() {
    let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    // The copy under way, and how often somebody looked at it.
    let copying: Arc<Mutex<Option<(Path, Path)>>> = Arc::default();
    let looks = Arc::new(AtomicU64::new(0));
    let (late, begun, counted) = (Arc::clone(&inner), Arc::clone(&copying), Arc::clone(&looks));
    let empty = Arc::clone(&inner);
    let store = TestStore::new(Arc::clone(&inner))
        .after(move |op| {
            let Op::Copy(from, to) = op else {
                return Box::pin(std::future::ready(Ok(())));
            };
            *copying.lock().unwrap() = Some((from.clone(), to.clone()));
            let (empty, to) = (Arc::clone(&empty), to.clone());
            Box::pin(async move { empty.put(&to, PutPayload::default()).await.map(drop) })
        })
        .before(move |op| {
            let begun = begun.lock().unwrap().clone();
            let (from, to) = match (op, begun) {
                (Op::Get(path), Some((from, to))) if *path == to => (from, to),
                _ => return Box::pin(std::future::ready(Ok(()))),
            };
            let (late, now) = (
                Arc::clone(&late),
                counted.fetch_add(1, Ordering::SeqCst) == 3,
            );
            Box::pin(async move {
                if now && let Ok(whole) = late.get(&from).await {
                    late.put(&to, whole.bytes().await?.into()).await?;
                }
                Ok(())
            })
        });
    let ctx = session("mem", store);
    ask(&ctx, &create("t", "CSV", "mem://bucket/t/", ""))
        .await
        .unwrap();
    let insert = "INSERT INTO t VALUES (1, 'a'), (2, 'b')";
    assert_eq!(number(&ctx, insert).await, 2);
    assert!(looks.load(Ordering::SeqCst) > 3);
    assert_eq!(number(&ctx, "SELECT count(*) FROM t").await, 2);
    let left = files(inner.as_ref()).await;
    assert!(
        left.iter()
            .all(|file| !file.location.as_ref().contains("/tmp/")),
        "{left:?}"
    );
}

/// A list names what is nowhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_listed_file_that_is_gone_is_an_error() {
    let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let list = serde_json::json!({
        "folder": "0123456789abcdef0123456789abcdef",
        "files": ["part-1.csv"],
    });
    let at = Path::from("t/_casebook/lists/part-1.json");
    inner.put(&at, list.to_string().into()).await.unwrap();
    let ctx = session("s3", TestStore::new(Arc::clone(&inner)));
    ask(&ctx, &create("t", "CSV", "s3://bucket/t/", ""))
        .await
        .unwrap();
    let insert = "INSERT INTO t VALUES (1, 'a')";
    let error = ask(&ctx, insert).await.unwrap_err();
    assert!(
        error.contains("the file part-1.csv of an INSERT"),
        "{error}"
    );
    assert!(error.contains("t/_casebook/lists/part-1.json"), "{error}");
    inner.delete(&at).await.unwrap();
    assert_eq!(number(&ctx, insert).await, 1);
}
