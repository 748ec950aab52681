//! Time travel, filters, limits, odd names and long texts.

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use datafusion::arrow::array::{AsArray, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::prelude::SessionContext;
use proptest::prelude::*;

use super::{copied, create, error, golden, rows, run, session};

#[tokio::test]
async fn versions_are_read_by_number() {
    for (version, count) in [(0, 3), (1, 3), (2, 4), (3, 3)] {
        let ctx = session();
        let options = format!("'delta.version' '{version}'");
        run(&ctx, &create("t", &golden("by_deltalake"), &options)).await;
        let found = rows(&ctx, "SELECT count(*) FROM t").await;
        assert_eq!(found, [count.to_string()], "version {version}");
        let refused = error(&ctx, "INSERT INTO t SELECT * FROM t").await;
        assert!(refused.contains("old version"), "{refused}");
    }
    let ctx = session();
    let refused = error(
        &ctx,
        &create("t", &golden("by_deltalake"), "'delta.version' '9'"),
    )
    .await;
    assert!(
        refused.contains("no version 9; the latest is 3"),
        "{refused}"
    );
}

#[tokio::test]
async fn versions_are_read_by_time() {
    let scratch = tempfile::tempdir().unwrap();
    let table = copied("by_deltalake", scratch.path());
    // Version n is of 2024-01-0(n+1).
    let first = SystemTime::UNIX_EPOCH + Duration::from_secs(1_704_067_200);
    for version in 0..4u32 {
        let commit = table.join(format!("_delta_log/{version:020}.json"));
        let commit = File::options().write(true).open(commit).unwrap();
        let made = first + Duration::from_secs(u64::from(version) * 86_400);
        commit.set_modified(made).unwrap();
    }
    for (time, count) in [
        ("2024-01-01T00:00:00Z", 3),
        ("2024-01-03T12:00:00Z", 4),
        ("2024-01-03T22:00:00-03:00", 3),
        ("2030-01-01T00:00:00Z", 3),
    ] {
        let ctx = session();
        let options = format!("'delta.timestamp' '{time}'");
        run(&ctx, &create("t", &table, &options)).await;
        let found = rows(&ctx, "SELECT count(*) FROM t").await;
        assert_eq!(found, [count.to_string()], "{time}");
    }
    for (time, part) in [
        ("2023-12-31T23:59:59Z", "no version as old as"),
        ("yesterday", "expected an RFC 3339 time"),
    ] {
        let options = format!("'delta.timestamp' '{time}'");
        let refused = error(&session(), &create("t", &table, &options)).await;
        assert!(refused.contains(part), "{refused}");
    }
}

#[tokio::test]
async fn odd_column_names_and_nulls_survive() {
    let scratch = tempfile::tempdir().unwrap();
    let ctx = session();
    let location = scratch.path().join("it is a (strange) tåble");
    run(&ctx, &create("t", &location, "'table.create' 'odd'")).await;
    let none: [&str; 0] = [];
    assert_eq!(rows(&ctx, "SELECT * FROM t").await, none);
    run(
        &ctx,
        "INSERT INTO t VALUES ('ü', 1, NULL, 3, 4), (NULL, 2, 2, NULL, 5)",
    )
    .await;
    let sql = r#"SELECT "x.y", "Ünï""code", "it's" FROM t WHERE "CamelCase" > 3 ORDER BY "select""#;
    assert_eq!(rows(&ctx, sql).await, ["3 | ü | null", "null | null | 2"]);
    let sql = r#"SELECT "select" FROM t WHERE "x.y" = 3 AND "it's" IS NULL"#;
    assert_eq!(rows(&ctx, sql).await, ["1"]);
}

#[tokio::test]
async fn a_long_text_comes_back_byte_for_byte() {
    let scratch = tempfile::tempdir().unwrap();
    let ctx = session();
    let text: String = (0..600_000)
        .map(|i| {
            ["Grüße ", "\"q\" ", "𝛑\n", "\r\n\t", "\u{0}'; "][i % 5].to_owned() + &i.to_string()
        })
        .collect();
    assert!(text.len() > 5 << 20);
    let schema = Arc::new(Schema::new(vec![
        Field::new("qa_id", DataType::Utf8, true),
        Field::new("answer", DataType::Utf8, true),
        Field::new("status", DataType::Utf8, true),
    ]));
    let columns: Vec<Arc<dyn datafusion::arrow::array::Array>> = vec![
        Arc::new(StringArray::from(vec!["a", "b"])),
        Arc::new(StringArray::from(vec![Some(text.as_str()), None])),
        Arc::new(StringArray::from(vec!["ok", "ok"])),
    ];
    let batch = RecordBatch::try_new(schema, columns).unwrap();
    ctx.register_batch("source", batch).unwrap();
    run(&ctx, &create("t", scratch.path(), "'table.create' 'pairs'")).await;
    run(&ctx, "INSERT INTO t SELECT * FROM source").await;
    let found = run(&ctx, "SELECT answer FROM t WHERE qa_id = 'a'").await;
    assert!(found[0].column(0).as_string_view().value(0) == text);
}

/// A table of several files, each with its own range of ids and some nulls.
async fn filled(ctx: &SessionContext, location: &std::path::Path) {
    run(ctx, &create("t", location, "'table.create' 'numbers'")).await;
    for file in 0..4 {
        let sql = format!(
            "INSERT INTO t SELECT nullif(value, {file}7), \
             CASE WHEN value % 5 = 0 THEN NULL ELSE 'name ' || value END, \
             CASE WHEN value % 7 = 0 THEN NULL ELSE value / 2.0 END \
             FROM generate_series({file}0, {file}9)"
        );
        run(ctx, &sql).await;
    }
}

fn predicate() -> impl Strategy<Value = String> {
    let name = || (0..45i64).prop_map(|i| format!("'name {i}'"));
    let compare = prop::sample::select(vec!["=", "<>", "<", "<=", ">", ">="]);
    let leaf = prop_oneof![
        (compare.clone(), -5..45i64).prop_map(|(op, n)| format!("id {op} {n}")),
        (compare, name()).prop_map(|(op, n)| format!("name {op} {n}")),
        (-5..45i64, 0..20i64).prop_map(|(a, n)| format!("id BETWEEN {a} AND {}", a + n)),
        prop::collection::vec(0..45i64, 1..4).prop_map(|ids| {
            let ids: Vec<String> = ids.iter().map(i64::to_string).collect();
            format!("id NOT IN ({})", ids.join(", "))
        }),
        prop::sample::select(vec!["id", "name"]).prop_map(|c| format!("{c} IS NULL")),
        (0..10i64).prop_map(|n| format!("name LIKE '%{n}'")),
        (1..5i64, 0..5i64).prop_map(|(m, r)| format!("id % {m} = {r}")),
    ];
    leaf.prop_recursive(3, 12, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} AND {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} OR {b})")),
            inner.prop_map(|a| format!("NOT ({a})")),
        ]
    })
}

/// Any filter gives what the same filter gives in memory, with and without deletion vectors.
#[test]
fn filters_agree_with_memory() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let ctx = session();
    runtime.block_on(async {
        filled(&ctx, scratch.path()).await;
        run(&ctx, &create("d", &golden("deletion_vectors"), "")).await;
        for (table, memory) in [("t", "t_memory"), ("d", "d_memory")] {
            let sql = format!("CREATE TABLE {memory} AS SELECT id, name FROM {table}");
            run(&ctx, &sql).await;
        }
        assert_eq!(rows(&ctx, "SELECT count(*) FROM t_memory").await, ["40"]);
        assert_eq!(rows(&ctx, "SELECT count(*) FROM d_memory").await, ["30"]);
    });
    let config = ProptestConfig::with_cases(64);
    proptest!(config, |(filter in predicate(), limit in 0..9usize)| {
        runtime.block_on(async {
            for (table, memory) in [("t", "t_memory"), ("d", "d_memory")] {
                let select = |from: &str, end: &str| {
                    format!("SELECT id, name FROM {from} WHERE {filter} {end}")
                };
                let ordered = "ORDER BY id NULLS FIRST, name";
                let expected = rows(&ctx, &select(memory, ordered)).await;
                let found = rows(&ctx, &select(table, ordered)).await;
                assert_eq!(found, expected, "{filter}");
                let limited = rows(&ctx, &select(table, &format!("LIMIT {limit}"))).await;
                assert_eq!(limited.len(), limit.min(expected.len()), "{filter}");
                assert!(limited.iter().all(|row| expected.contains(row)), "{filter}");
            }
        });
    });
}

/// A table of one column `a` of `kind` in the log, whose folders have `values`, over a file of ids.
fn folders(kind: &str, values: &[&str], at: &std::path::Path) {
    use serde_json::json;
    let schema = json!({"type": "struct", "fields": [
        {"name": "id", "type": "long", "nullable": true, "metadata": {}},
        {"name": "a", "type": kind, "nullable": true, "metadata": {}},
    ]});
    let mut actions = vec![
        json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}),
        json!({"metaData": {
            "id": "54f93383-0e3a-5549-b4a8-e505e2fad9ef",
            "format": {"provider": "parquet", "options": {}},
            "schemaString": schema.to_string(), "partitionColumns": ["a"], "configuration": {},
        }}),
    ];
    std::fs::create_dir_all(at.join("_delta_log")).unwrap();
    for (i, value) in values.iter().enumerate() {
        let ids: datafusion::arrow::array::ArrayRef =
            Arc::new(datafusion::arrow::array::Int64Array::from(vec![i as i64]));
        let batch = RecordBatch::try_from_iter([("id", ids)]).unwrap();
        let name = format!("part-{i}.parquet");
        let file = File::create(at.join(&name)).unwrap();
        let mut writer =
            datafusion::parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let size = std::fs::metadata(at.join(&name)).unwrap().len();
        actions.push(json!({"add": {
            "path": name, "partitionValues": {"a": value}, "size": size, "modificationTime": 0,
            "dataChange": true, "stats": "{\"numRecords\": 1}",
        }}));
    }
    let lines: Vec<String> = actions.iter().map(ToString::to_string).collect();
    let log = at.join("_delta_log/00000000000000000000.json");
    std::fs::write(log, lines.join("\n")).unwrap();
}

/// <https://github.com/delta-io/delta/blob/master/PROTOCOL.md#partition-value-serialization>
#[tokio::test]
async fn an_empty_partition_value_is_null() {
    for (kind, value, shown) in [
        ("string", "x", "x"),
        ("binary", "x", "78"),
        ("integer", "7", "7"),
        ("date", "2026-01-02", "2026-01-02"),
        ("double", "0.5", "0.5"),
        ("boolean", "true", "true"),
        ("timestamp", "2026-01-02 03:04:05", "2026-01-02T03:04:05Z"),
    ] {
        let scratch = tempfile::tempdir().unwrap();
        folders(kind, &["", value], scratch.path());
        let ctx = session();
        run(&ctx, &create("t", scratch.path(), "")).await;
        let all = rows(&ctx, "SELECT id, a FROM t ORDER BY id").await;
        assert_eq!(all, ["0 | null", &format!("1 | {shown}")], "{kind}");
        assert_eq!(
            rows(&ctx, "SELECT id FROM t WHERE a IS NULL").await,
            ["0"],
            "{kind}"
        );
        assert_eq!(
            rows(&ctx, "SELECT id FROM t WHERE a IS NOT NULL").await,
            ["1"],
            "{kind}"
        );
        assert_eq!(rows(&ctx, "SELECT count(a) FROM t").await, ["1"], "{kind}");
        if kind == "string" {
            let none: [&str; 0] = [];
            assert_eq!(rows(&ctx, "SELECT id FROM t WHERE a = ''").await, none);
            assert_eq!(rows(&ctx, "SELECT id FROM t WHERE a = 'x'").await, ["1"]);
            assert_eq!(
                rows(&ctx, "SELECT coalesce(a, 'none') FROM t WHERE id = 0").await,
                ["none"]
            );
            assert_eq!(rows(&ctx, "SELECT min(a), max(a) FROM t").await, ["x | x"]);
        }
    }
}

#[tokio::test]
async fn a_declared_number_holds_what_the_table_has() {
    let scratch = tempfile::tempdir().unwrap();
    let declared = |t: &str| {
        format!(
            "CREATE EXTERNAL TABLE t (a {t}) STORED AS DELTA LOCATION '{}'",
            scratch.path().display()
        )
    };
    let ctx = session();
    run(&ctx, &declared("INT")).await;
    run(&ctx, "INSERT INTO t VALUES (70000)").await;
    for fine in ["INT", "BIGINT"] {
        let ctx = session();
        run(&ctx, &declared(fine)).await;
        assert_eq!(rows(&ctx, "SELECT a FROM t").await, ["70000"], "{fine}");
        run(&ctx, "INSERT INTO t SELECT 1 WHERE false").await;
        let refused = error(&ctx, "INSERT INTO t VALUES (1099511627776)").await;
        assert!(refused.contains("1099511627776"), "{fine}: {refused}");
    }
    for narrow in ["SMALLINT", "TINYINT"] {
        let refused = error(&session(), &declared(narrow)).await;
        for part in ["column a", "Int32", "may not hold"] {
            assert!(refused.contains(part), "{narrow}: {refused}");
        }
    }
    for other in ["VARCHAR", "DOUBLE", "DECIMAL(10, 2)", "DATE"] {
        let refused = error(&session(), &declared(other)).await;
        assert!(
            refused.contains("other columns than declared"),
            "{other}: {refused}"
        );
    }
}

/// Filters on whole numbers still leave files and row groups out.
#[tokio::test]
async fn files_are_left_out_by_whole_numbers_beside_floating_ones() {
    let scratch = tempfile::tempdir().unwrap();
    let ctx = session();
    filled(&ctx, scratch.path()).await;
    let shown = run(
        &ctx,
        "EXPLAIN ANALYZE SELECT * FROM t WHERE id > 35 AND score > 1",
    )
    .await;
    let shown = datafusion::arrow::util::pretty::pretty_format_batches(&shown).unwrap();
    assert!(
        shown.to_string().contains("count_files_scanned=1]"),
        "{shown}"
    );
}
