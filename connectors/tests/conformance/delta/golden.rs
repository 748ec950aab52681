//! Golden tables (tests/data/delta): every row of each, and every refusal.

use datafusion::physical_plan::ExecutionPlanProperties;

use super::{copied, create, error, golden, rows, run, session};

/// The rows of `name`, in the order of `order`.
async fn check(name: &str, order: &str, expected: &[&str]) {
    let ctx = session();
    run(&ctx, &create("t", &golden(name), "")).await;
    let found = rows(&ctx, &format!("SELECT * FROM t ORDER BY {order}")).await;
    assert_eq!(found, expected, "{name}");
}

fn numbered(ids: impl IntoIterator<Item = u32>) -> Vec<String> {
    ids.into_iter().map(|i| format!("{i} | name {i}")).collect()
}

#[tokio::test]
async fn deletion_vectors_are_applied_by_several_partitions() {
    let kept = numbered((0..35).filter(|i| ![1, 3, 10, 19, 34].contains(i)));
    let kept: Vec<&str> = kept.iter().map(String::as_str).collect();
    check("deletion_vectors", "id", &kept).await;

    let ctx = session();
    run(&ctx, &create("t", &golden("deletion_vectors"), "")).await;
    let frame = ctx.sql("SELECT id FROM t").await.unwrap();
    let plan = frame.create_physical_plan().await.unwrap();
    assert_eq!(plan.output_partitioning().partition_count(), 4);
    assert_eq!(rows(&ctx, "SELECT count(*) FROM t").await, ["30"]);
    assert_eq!(rows(&ctx, "SELECT name FROM t LIMIT 3").await.len(), 3);
    let none: [&str; 0] = [];
    assert_eq!(rows(&ctx, "SELECT * FROM t WHERE id = 19").await, none);
    assert_eq!(
        rows(&ctx, "SELECT name FROM t WHERE id = 20").await,
        ["name 20"]
    );
}

#[tokio::test]
async fn mapped_columns_come_out_under_their_logical_names() {
    for name in ["column_mapping_name", "column_mapping_id"] {
        check(
            name,
            r#""case id""#,
            &["1 | one | 1st", "2 | null | 1st", "3 | three | null"],
        )
        .await;
        let ctx = session();
        run(&ctx, &create("t", &golden(name), "")).await;
        let sql = r#"SELECT "Text, whole" FROM t WHERE "case id" > 1 AND court IS NULL"#;
        assert_eq!(rows(&ctx, sql).await, ["three"]);
    }
}

#[tokio::test]
async fn columns_that_only_their_numbers_tell_are_refused() {
    let ctx = session();
    run(&ctx, &create("t", &golden("column_mapping_numbers"), "")).await;
    let error = error(&ctx, "SELECT * FROM t").await;
    assert!(error.contains("'before', not 'col-1'"), "{error}");
}

#[tokio::test]
async fn rows_are_added_to_tables_that_map_columns() {
    for name in ["column_mapping_name", "column_mapping_id"] {
        let scratch = tempfile::tempdir().unwrap();
        let ctx = session();
        let table = copied(name, scratch.path());
        run(&ctx, &create("t", &table, "")).await;
        run(
            &ctx,
            "INSERT INTO t VALUES (4, 'four', '2nd'), (5, 'five', NULL)",
        )
        .await;
        let found = rows(&ctx, r#"SELECT * FROM t WHERE "case id" > 3 ORDER BY 1"#).await;
        assert_eq!(found, ["4 | four | 2nd", "5 | five | null"], "{name}");
    }
}

#[tokio::test]
async fn a_v2_checkpoint_with_sidecars_stands_for_the_commits_before_it() {
    let expected = numbered([0, 1, 2, 10, 11, 12, 20]);
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    check("v2_checkpoint", "id", &expected).await;

    // It also records that application `loader` has written its version 41.
    let scratch = tempfile::tempdir().unwrap();
    let table = copied("v2_checkpoint", scratch.path());
    for (version, rows) in [(41, 0), (42, 1), (42, 0)] {
        let ctx = session();
        let options = format!("'write.app_id' 'loader', 'write.version' '{version}'");
        run(&ctx, &create("t", &table, &options)).await;
        let added = super::insert(&ctx, "INSERT INTO t VALUES (30, 'new')").await;
        assert_eq!(added, rows, "version {version}");
    }
}

#[tokio::test]
async fn times_keep_their_microseconds() {
    check(
        "timestamp_ntz",
        "id",
        &[
            "1 | 2024-02-29T23:59:59.999999 | 2024-02-29T23:59:59.999999Z",
            "2 | null | 2024-02-29T23:59:59.999999Z",
        ],
    )
    .await;
}

#[tokio::test]
async fn a_table_of_the_python_package_reads_with_all_its_types() {
    check(
        "by_deltalake",
        "id",
        &[
            "1 | 2024-01-01 | a b/c | 0.5 | 1.10 | [x, y] | 0001 | 1st/2nd",
            "3 | null | null | 1.5 | null | null | null | 9th %20",
            "4 | 2024-01-01 | a b/c | 0.5 | 1.10 | [x, y] | 0001 | 1st/2nd",
        ],
    )
    .await;
    let ctx = session();
    run(&ctx, &create("t", &golden("by_deltalake"), "")).await;
    let sql = "SELECT id FROM t WHERE court = '9th %20'";
    assert_eq!(rows(&ctx, sql).await, ["3"]);
    let sql = "SELECT arrow_typeof(note), arrow_typeof(court) FROM t LIMIT 1";
    assert_eq!(rows(&ctx, sql).await, ["Utf8View | Utf8View"]);
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_by_name() {
    for (table, feature) in [
        ("type_widening", "typeWidening (columns whose type"),
        ("catalog_managed", "catalogManaged (its catalog"),
    ] {
        let ctx = session();
        let error = error(&ctx, &create("t", &golden(table), "")).await;
        for part in [feature, "cannot be read", "databricks.warehouse_id"] {
            assert!(error.contains(part), "{table}: {error}");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_written_to_is_read_and_refused_by_name() {
    for (table, feature) in [
        ("clustering", "clustering (liquid clustering)"),
        ("row_tracking", "rowTracking"),
        ("identity_columns", "identityColumns"),
        ("column_defaults", "allowColumnDefaults"),
        ("in_commit_timestamp", "inCommitTimestamp"),
    ] {
        let scratch = tempfile::tempdir().unwrap();
        let ctx = session();
        let copy = copied(table, scratch.path());
        run(&ctx, &create("t", &copy, "")).await;
        let found = rows(&ctx, "SELECT * FROM t ORDER BY id").await;
        assert_eq!(found, ["0 | name 0", "1 | name 1"], "{table}");
        let error = error(&ctx, "INSERT INTO t VALUES (2, 'two')").await;
        for part in [feature, "cannot be written to", "databricks.warehouse_id"] {
            assert!(error.contains(part), "{table}: {error}");
        }
        assert_eq!(super::parquet_files(&copy).len(), 1, "{table}");
    }
}
