//! Logs that ask for more than a table may: deletion vectors of any size, conditions that cost any time,
//! checkpoints whose parts are elsewhere.

use std::fs;

use roaring::RoaringTreemap;
use serde_json::{Value, json};

use super::hostile::{Place, metadata};
use super::{copied, create, error, rows, run, session};

/// An inline deletion vector of `deleted` rows.
fn vector(deleted: &RoaringTreemap) -> Value {
    let mut bytes = 1_681_511_377_u32.to_le_bytes().to_vec();
    deleted.serialize_into(&mut bytes).unwrap();
    let size = bytes.len();
    bytes.resize(size.next_multiple_of(4), 0);
    json!({"storageType": "i", "pathOrInlineDv": z85::encode(bytes), "sizeInBytes": size,
        "cardinality": deleted.len()})
}

#[tokio::test]
async fn a_deletion_vector_takes_no_more_memory_than_there_may_be() {
    let place = Place::new().await;
    let far: RoaringTreemap = [1_u64 << 40].into_iter().collect();
    let many: RoaringTreemap = (0..1 << 20).chain([(3_u64 << 30) - 1]).collect();
    let last: RoaringTreemap = [u64::MAX].into_iter().collect();
    for (deleted, part) in [
        (far, "held in memory"),
        (many, "held in memory"),
        (last, "memory"),
    ] {
        for rows_said in [1_u64, 1 << 41, i64::MAX as u64] {
            let mut add = place.add("good.parquet");
            add["deletionVector"] = vector(&deleted);
            add["stats"] = json!(json!({"numRecords": rows_said}).to_string());
            place.write(&place.actions(add));
            let ctx = session();
            run(&ctx, &create("t", &place.table(), "")).await;
            let refused = error(&ctx, "SELECT * FROM t").await;
            let table = place.table().display().to_string();
            for part in [part, &table] {
                assert!(refused.contains(part), "{refused}");
            }
        }
    }
    // A count that is not that of the vector, and containers without end.
    let mut endless = 1_681_511_377_u32.to_le_bytes().to_vec();
    endless.extend(u64::MAX.to_le_bytes());
    let one: RoaringTreemap = [0_u64].into_iter().collect();
    let mut wrong = vector(&one);
    wrong["cardinality"] = json!(i64::MAX);
    for vector in [
        json!({"storageType": "i", "pathOrInlineDv": z85::encode(endless), "sizeInBytes": 12,
            "cardinality": 1}),
        json!({"storageType": "i", "pathOrInlineDv": "", "sizeInBytes": 0, "cardinality": 0}),
        wrong,
    ] {
        let mut add = place.add("good.parquet");
        add["deletionVector"] = vector;
        place.write(&place.actions(add));
        let ctx = session();
        run(&ctx, &create("t", &place.table(), "")).await;
        let refused = error(&ctx, "SELECT * FROM t").await;
        assert!(refused.contains("good.parquet"), "{refused}");
    }
    // And one that is as it should be.
    let mut add = place.add("good.parquet");
    add["deletionVector"] = vector(&one);
    place.write(&place.actions(add));
    let ctx = session();
    run(&ctx, &create("t", &place.table(), "")).await;
    assert!(rows(&ctx, "SELECT * FROM t").await.is_empty());
}

#[tokio::test]
async fn a_file_of_deletion_vectors_is_bounded_too() {
    let place = Place::new().await;
    let name = "deletion_vector_61d16c75-6994-46b7-a15b-8b538852e50e.bin";
    // Of a gigabyte, none of it on the disk.
    let file = fs::File::create(place.table().join(name)).unwrap();
    file.set_len(1 << 30).unwrap();
    let uuid = "vBn[lx{q8@P<9BNH/isA";
    for (size, offset, part) in [
        (40, 1, "at most"),
        (i32::MAX, 1, "at most"),
        (40, i32::MAX, "at most"),
    ] {
        let mut add = place.add("good.parquet");
        add["deletionVector"] = json!({"storageType": "u", "pathOrInlineDv": uuid,
            "sizeInBytes": size, "offset": offset, "cardinality": 1});
        place.write(&place.actions(add));
        let ctx = session();
        run(&ctx, &create("t", &place.table(), "")).await;
        let refused = error(&ctx, "SELECT * FROM t").await;
        assert!(refused.contains(part), "{refused}");
    }
}

#[tokio::test]
async fn a_condition_costs_no_more_than_its_text() {
    let place = Place::new().await;
    let deep = format!("{}true{}", "(".repeat(4000), ")".repeat(4000));
    let sum = format!("id <> concat({})", ["id"; 4000].join(", "));
    let plus = format!("1{} > 0", " + 1".repeat(2000));
    let not = format!("{}true", "NOT ".repeat(2400));
    let long = format!("id IN ({})", vec!["'x'"; 100_000].join(", "));
    let encode = format!("{}id{} <> ''", "encode(".repeat(8), ", 'hex')".repeat(8));
    for (sql, part) in [
        ("text <> repeat('x', 1000000000)", "calls repeat"),
        ("length(lpad(id, 1000000000, 'x')) > 1", "calls lpad"),
        (
            "replace(replace(id, '9', 'xxxx'), 'x', 'yyyy') <> id",
            "calls replace",
        ),
        ("array_length(range(1, 1000000000)) > 1", "calls range"),
        (encode.as_str(), "calls encode"),
        // Spark means something else, or the planner would have to evaluate it first.
        ("length(text) / 2.0 <= 2", "divides what is no whole"),
        ("rpad(text, 1000000000, id) <> ''", "calls rpad"),
        (long.as_str(), "65536 characters"),
        (deep.as_str(), "400 names"),
        (not.as_str(), "400 names"),
        (sum.as_str(), "400 names"),
        (plus.as_str(), "400 names"),
    ] {
        let mut actions = place.actions(place.add("good.parquet"));
        actions[1] = metadata(json!({"delta.constraints.odd": sql}));
        actions[0] = json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 3}});
        place.write(&actions);
        let ctx = session();
        run(&ctx, &create("t", &place.table(), "")).await;
        let said = error(&ctx, "INSERT INTO t VALUES ('9', 'x')").await;
        assert!(said.contains(part), "{}: {said}", &sql[..sql.len().min(80)]);
        assert!(said.contains("CHECK constraint odd"), "{said}");
        assert!(said.len() < 2000, "{}", said.len());
        assert_eq!(rows(&ctx, "SELECT text FROM t").await, ["in the table"]);
    }
    // What people write is far below the bounds, and holds or not.
    let values: Vec<String> = (0..1500).map(|i| format!("'{i}'")).collect();
    for (sql, holds) in [
        (format!("1{} > 0", " + 1".repeat(300)), true),
        (format!("id IN ({})", values.join(", ")), true),
        (format!("{}false", "id = 'x' OR ".repeat(90)), false),
        (format!("{}true", "id <> 'x' AND ".repeat(90)), true),
        ("length(lower(trim(text))) BETWEEN 1 AND 9".into(), true),
        (
            "length(text) / 2.0e0 > 0.5e0 AND length(text) > 1".into(),
            false,
        ),
    ] {
        let place = Place::new().await;
        let mut actions = place.actions(place.add("good.parquet"));
        actions[1] = metadata(json!({"delta.constraints.odd": sql}));
        actions[0] = json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 3}});
        place.write(&actions);
        let ctx = session();
        run(&ctx, &create("t", &place.table(), "")).await;
        let inserted = super::try_run(&ctx, "INSERT INTO t VALUES ('9', 'x')").await;
        assert_eq!(inserted.is_ok(), holds, "{}: {inserted:?}", &sql[..40]);
    }
    let many = (0..2000).map(|i| (format!("delta.constraints.c{i}"), json!("id <> ''")));
    let mut actions = place.actions(place.add("good.parquet"));
    actions[1] = metadata(Value::Object(many.collect()));
    actions[0] = json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 3}});
    place.write(&actions);
    let ctx = session();
    run(&ctx, &create("t", &place.table(), "")).await;
    let refused = error(&ctx, "INSERT INTO t VALUES ('9', 'x')").await;
    assert!(refused.contains("2000 conditions"), "{refused}");
}

#[tokio::test]
async fn the_parts_of_a_checkpoint_are_in_the_table() {
    let scratch = tempfile::tempdir().unwrap();
    let table = copied("v2_checkpoint", scratch.path());
    let log = table.join("_delta_log");
    let part = "9401da07-2cbb-59c8-b73c-fb3ae112ab46.parquet";
    let elsewhere = scratch.path().join("elsewhere.parquet");
    fs::rename(log.join("_sidecars").join(part), &elsewhere).unwrap();
    let checkpoint = fs::read_dir(&log)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let checkpoint = checkpoint.into_iter();
    let mut checkpoint =
        checkpoint.filter(|path| path.display().to_string().contains(".checkpoint."));
    let checkpoint = checkpoint.next().unwrap();
    let whole = fs::read_to_string(&checkpoint).unwrap();
    let absolute = elsewhere.display().to_string();
    for path in [
        "../../../elsewhere.parquet",
        "x/../../../../elsewhere.parquet",
        "%2e%2e/%2e%2e/%2e%2e/elsewhere.parquet",
        &absolute,
        &format!("file://{absolute}"),
        &format!("file://localhost{absolute}"),
        &format!("s3://bucket{absolute}"),
        &format!("http://127.0.0.1:1{absolute}"),
    ] {
        fs::write(&checkpoint, whole.replace(part, path)).unwrap();
        let ctx = session();
        let opened = super::try_run(&ctx, &create("t", &table, "")).await;
        let refused = match opened {
            Ok(_) => error(&ctx, "SELECT * FROM t").await,
            Err(error) => error,
        };
        assert!(refused.contains("outside"), "{path}: {refused}");
        assert!(
            refused.contains(&table.display().to_string()),
            "{path}: {refused}"
        );
    }
    // The same part where it belongs.
    fs::rename(&elsewhere, log.join("_sidecars").join(part)).unwrap();
    fs::write(&checkpoint, &whole).unwrap();
    let ctx = session();
    run(&ctx, &create("t", &table, "")).await;
    assert_eq!(rows(&ctx, "SELECT count(*) FROM t").await, ["7"]);
}
