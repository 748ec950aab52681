//! Logs and files that are damaged, or made to do harm: refused with an error that names the table,
//! never a panic, and no file outside the table is read.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{copied, create, error, insert, rows, run, session, try_run};

/// What a file outside the table says.
const SECRET: &str = "SECRET";

/// A scratch folder with a table `t` of one file, and `secret.parquet` beside it and two levels up.
pub(super) struct Place {
    folder: tempfile::TempDir,
    bytes: u64,
}

impl Place {
    pub(super) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ctx = session();
        let table = folder.path().join("a/t");
        fs::create_dir_all(table.join("_delta_log")).unwrap();
        for (file, text) in [
            ("a/t/good.parquet", "in the table"),
            ("a/secret.parquet", SECRET),
            ("secret.parquet", SECRET),
        ] {
            let path = folder.path().join(file);
            let copy = format!(
                "COPY (SELECT '1' AS id, '{text}' AS text) TO '{}' STORED AS PARQUET",
                path.display()
            );
            run(&ctx, &copy).await;
        }
        let bytes = fs::metadata(table.join("good.parquet")).unwrap().len();
        Self { folder, bytes }
    }

    pub(super) fn table(&self) -> PathBuf {
        self.folder.path().join("a/t")
    }

    pub(super) fn add(&self, path: &str) -> Value {
        json!({"path": path, "partitionValues": {}, "size": self.bytes, "modificationTime": 0,
            "dataChange": true, "stats": "{\"numRecords\": 1}"})
    }

    pub(super) fn write(&self, actions: &[Value]) {
        let lines = actions.iter().map(|action| format!("{action}\n"));
        let log = self.table().join(format!("_delta_log/{:020}.json", 0));
        fs::write(log, lines.collect::<String>()).unwrap();
    }

    /// The actions of a table with deletion vectors and the file `add`.
    pub(super) fn actions(&self, add: Value) -> Vec<Value> {
        let features = json!(["deletionVectors"]);
        vec![
            json!({"protocol": {"minReaderVersion": 3, "minWriterVersion": 7,
                "readerFeatures": features, "writerFeatures": features}}),
            metadata(json!({})),
            json!({"add": add}),
        ]
    }
}

pub(super) fn metadata(configuration: Value) -> Value {
    let column = |name| json!({"name": name, "type": "string", "nullable": true, "metadata": {}});
    let schema = json!({"type": "struct", "fields": [column("id"), column("text")]});
    json!({"metaData": {"id": "x", "format": {"provider": "parquet", "options": {}},
        "schemaString": schema.to_string(), "partitionColumns": [],
        "configuration": configuration, "createdTime": 0}})
}

/// What every statement about the table says, one after another.
async fn said(table: &Path) -> String {
    let ctx = session();
    let mut said = String::new();
    for sql in [
        create("t", table, "'write.key' 'id'"),
        "SELECT * FROM t".into(),
        "SELECT id FROM t WHERE text > 'a'".into(),
        "SELECT count(*) FROM t".into(),
        "INSERT INTO t VALUES ('9', 'x')".into(),
    ] {
        match try_run(&ctx, &sql).await {
            Ok(batches) => said += &format!("{batches:?}\n"),
            Err(error) => said += &format!("{error}\n"),
        }
    }
    said
}

#[tokio::test]
async fn a_file_outside_the_table_is_never_read() {
    let place = Place::new().await;
    let outside = place.folder.path().join("secret.parquet");
    let absolute = outside.display().to_string();
    for path in [
        "../secret.parquet",
        "../../secret.parquet",
        "x/../../secret.parquet",
        "./../secret.parquet",
        "%2e%2e/secret.parquet",
        "%2E%2E%2Fsecret.parquet",
        ".%2e/secret.parquet",
        "..%2F..%2Fsecret.parquet",
        "..\\secret.parquet",
        "..%5Csecret.parquet",
        &absolute,
        &format!("file://{absolute}"),
        &format!("FILE://{absolute}"),
        &format!("file://localhost{absolute}"),
        "s3://bucket/secret.parquet",
        "http://127.0.0.1:1/secret.parquet",
        "//127.0.0.1/secret.parquet",
    ] {
        place.write(&place.actions(place.add(path)));
        let ctx = session();
        run(&ctx, &create("t", &place.table(), "'write.key' 'id'")).await;
        for sql in [
            "SELECT * FROM t",
            "SELECT count(*) FROM t",
            "INSERT INTO t VALUES ('9', 'x')",
        ] {
            let refused = error(&ctx, sql).await;
            assert!(!refused.contains(SECRET), "{path}: {refused}");
            let table = place.table().display().to_string();
            for part in ["secret.parquet", "outside", &table] {
                assert!(refused.contains(part), "{path}: {sql}: {part}: {refused}");
            }
        }
    }
    // A path within the table may be written in full.
    let own = format!("file://{}", place.table().join("good.parquet").display());
    place.write(&place.actions(place.add(&own)));
    let ctx = session();
    run(&ctx, &create("t", &place.table(), "")).await;
    assert_eq!(rows(&ctx, "SELECT text FROM t").await, ["in the table"]);
}

#[tokio::test]
async fn entries_that_make_no_sense_are_refused() {
    let place = Place::new().await;
    let vector = |kind: &str, path: &str, size: i64| {
        json!({"storageType": kind, "pathOrInlineDv": path, "sizeInBytes": size,
            "cardinality": 1, "offset": if kind == "i" { Value::Null } else { json!(1) }})
    };
    let uuid = "vBn[lx{q8@P<9BNH/isA";
    for (change, value, part) in [
        ("size", json!(-1), "-1 bytes"),
        ("size", json!(i64::MIN), "bytes"),
        ("deletionVector", vector("q", "x", 40), "unknown kind"),
        ("deletionVector", vector("u", uuid, -40), "negative"),
        (
            "deletionVector",
            vector("u", &format!("../..{uuid}"), 40),
            "outside",
        ),
        (
            "deletionVector",
            vector("u", &format!("%2e%2e{uuid}"), 40),
            "outside",
        ),
        (
            "deletionVector",
            vector("p", "file:///etc/passwd", 40),
            "outside",
        ),
        (
            "deletionVector",
            vector("p", "http://127.0.0.1:1/x", 40),
            "outside",
        ),
    ] {
        let mut add = place.add("good.parquet");
        add[change] = value.clone();
        place.write(&place.actions(add));
        let ctx = session();
        run(&ctx, &create("t", &place.table(), "")).await;
        let refused = error(&ctx, "SELECT * FROM t").await;
        let table = place.table().display().to_string();
        for part in [part, &table] {
            assert!(refused.contains(part), "{value}: {refused}");
        }
    }
    // A size beyond the file is no reason to allocate it.
    let mut add = place.add("good.parquet");
    add["size"] = json!(i64::MAX);
    place.write(&place.actions(add));
    let ctx = session();
    run(&ctx, &create("t", &place.table(), "")).await;
    let refused = error(&ctx, "SELECT * FROM t").await;
    assert!(refused.contains("good.parquet"), "{refused}");
}

#[tokio::test]
async fn a_constraint_that_is_no_condition_is_refused() {
    let place = Place::new().await;
    for sql in [
        "1 + 1",
        "'yes'",
        "id",
        "count(*)",
        "(SELECT 1)",
        "nope > 1",
        "((((",
        "",
    ] {
        let mut actions = place.actions(place.add("good.parquet"));
        actions[1] = metadata(json!({"delta.constraints.odd": sql}));
        actions[0] = json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 3}});
        place.write(&actions);
        let ctx = session();
        run(&ctx, &create("t", &place.table(), "")).await;
        assert_eq!(rows(&ctx, "SELECT text FROM t").await, ["in the table"]);
        let refused = error(&ctx, "INSERT INTO t VALUES ('9', 'x')").await;
        assert!(refused.contains("CHECK constraint odd"), "{sql}: {refused}");
    }
}

#[tokio::test]
async fn a_damaged_file_of_a_table_is_named() {
    let scratch = tempfile::tempdir().unwrap();
    for table in ["by_deltalake", "deletion_vectors", "column_mapping_name"] {
        let table = copied(table, scratch.path());
        for file in super::parquet_files(&table) {
            if file.to_string_lossy().contains("_delta_log") {
                continue;
            }
            let mut bytes = fs::read(&file).unwrap();
            let end = bytes.len() - 8;
            bytes[end - 20..end].fill(0xff); // the end of the footer
            fs::write(&file, bytes).unwrap();
        }
        let ctx = session();
        run(&ctx, &create("t", &table, "")).await;
        let refused = error(&ctx, "SELECT * FROM t").await;
        assert!(refused.contains(&table.display().to_string()), "{refused}");
        assert!(refused.contains(".parquet"), "{refused}");
    }
}

/// One change of a log, as a place in it and what is done there.
#[derive(Debug, Clone)]
struct Change {
    at: prop::sample::Index,
    how: usize,
    value: Value,
}

fn change() -> impl Strategy<Value = Change> {
    let values = prop::sample::select(vec![
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(1),
        json!(1u64 << 31),
        json!(i64::MAX),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(1e308),
        json!(1.5),
        json!(""),
        json!("x"),
        json!("../secret.parquet"),
        json!("/etc/passwd"),
        json!("\u{0}"),
        json!("é".repeat(10)),
        json!([]),
        json!({}),
        json!([1]),
        json!({"a": 1}),
        json!("p"),
        json!("u"),
        json!("i"),
        json!("name"),
        json!("id"),
    ]);
    (any::<prop::sample::Index>(), 0..4usize, values).prop_map(|(at, how, value)| Change {
        at,
        how,
        value,
    })
}

/// Every place below `value`, as JSON pointers.
fn places(value: &Value, at: &str, out: &mut Vec<String>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(k, v)| (k.clone(), v)).collect(),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .map(|(i, v)| (i.to_string(), v))
            .collect(),
        _ => vec![],
    };
    for (key, child) in children {
        let at = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
        places(child, &at, out);
        out.push(at);
    }
}

fn apply(log: &mut Value, change: &Change) {
    let mut all = vec![];
    places(log, "", &mut all);
    if all.is_empty() {
        return;
    }
    let at = &all[change.at.index(all.len())];
    let (parent, key) = at.rsplit_once('/').unwrap();
    match change.how {
        0 => drop(
            log.pointer_mut(parent)
                .unwrap()
                .as_object_mut()
                .map(|o| o.remove(key)),
        ),
        1 => {
            if let Some(fields) = log.pointer_mut(parent).unwrap().as_object_mut() {
                fields.insert("deletionVector".into(), change.value.clone());
            }
        }
        2 => {
            // Inside of what is JSON as a text: the schema and the statistics.
            let text = log.pointer_mut(at).unwrap();
            let inner = text
                .as_str()
                .and_then(|text| serde_json::from_str::<Value>(text).ok());
            if let Some(mut inner) = inner {
                apply(
                    &mut inner,
                    &Change {
                        how: 3,
                        ..change.clone()
                    },
                );
                *text = json!(inner.to_string());
            }
        }
        _ => *log.pointer_mut(at).unwrap() = change.value.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 64, ..ProptestConfig::default() })]

    /// A panic anywhere would fail the test.
    #[test]
    fn no_change_of_a_log_brings_a_panic_or_a_foreign_row(
        changes in prop::collection::vec(change(), 1..4),
        deletes in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let said = runtime.block_on(async {
            let place = Place::new().await;
            let mut add = place.add("good.parquet");
            if deletes {
                add["deletionVector"] = json!({"storageType": "i", "sizeInBytes": 40, "cardinality": 6,
                    "pathOrInlineDv": "wi5b=000010000siXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L"});
            }
            let mut log = json!(place.actions(add));
            for change in &changes {
                apply(&mut log, change);
            }
            place.write(log.as_array().unwrap());
            said(&place.table()).await
        });
        prop_assert!(!said.contains(SECRET), "{said}");
    }
}

#[tokio::test]
async fn a_bad_value_is_named_and_nothing_is_written() {
    let scratch = tempfile::tempdir().unwrap();
    let ctx = session();
    run(
        &ctx,
        &create("t", scratch.path(), "'table.create' 'numbers'"),
    )
    .await;
    let source = "CREATE TABLE source AS SELECT * FROM (VALUES ('1', 'a', '0.5'), ('2', 'b', '1e3'), \
                  ('drei', 'c', NULL), ('4', NULL, 'x')) AS v(id, name, score)";
    run(&ctx, source).await;
    for (sql, value, column) in [
        ("INSERT INTO t SELECT * FROM source", "'drei'", "column id"),
        (
            "INSERT INTO t SELECT 1, name, score FROM source",
            "'x'",
            "column score",
        ),
        (
            "INSERT INTO t (name, id) SELECT name, id FROM source",
            "'drei'",
            "column id",
        ),
    ] {
        let refused = error(&ctx, sql).await;
        for part in [value, column, "row ", &scratch.path().display().to_string()] {
            assert!(refused.contains(part), "{sql}: {refused}");
        }
        assert_eq!(rows(&ctx, "SELECT count(*) FROM t").await, ["0"]);
    }
    let sql =
        "INSERT INTO t SELECT try_cast(id AS BIGINT), name, try_cast(score AS DOUBLE) FROM source";
    assert_eq!(insert(&ctx, sql).await, 4);
    let found = rows(&ctx, "SELECT * FROM t ORDER BY name").await;
    assert_eq!(found[2], "null | c | null");
    assert_eq!(found[0], "1 | a | 0.5");
}
