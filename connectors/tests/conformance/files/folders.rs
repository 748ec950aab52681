//! Columns that folders name: null, percent-encoded values, columns that files have as well.

use std::path::PathBuf;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::prelude::SessionContext;

use super::place::{Place, ask, create, number, session};

const NULL: &str = "__HIVE_DEFAULT_PARTITION__";

fn parquet(id: i64, columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
    let id: ArrayRef = Arc::new(Int64Array::from(vec![id, id]));
    let batch = RecordBatch::try_from_iter([("id", id)].into_iter().chain(columns)).unwrap();
    let mut writer = ArrowWriter::try_new(vec![], batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

fn put(place: &Place, path: &str, content: impl AsRef<[u8]>) {
    let path = format!("{}{path}", place.base);
    std::fs::create_dir_all(std::path::Path::new(&path).parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_are_read_as_spark_reads_them() {
    let place = Place::local();
    let ctx = session(2);
    let folders = [NULL, "A%2FB", "a b", "100%25", "First", "", "%3A"];
    for (id, value) in folders.iter().enumerate() {
        put(
            &place,
            &format!("p/court={value}/x.parquet"),
            parquet(id as i64, vec![]),
        );
        put(
            &place,
            &format!("c/court={value}/x.csv"),
            format!("id\n{id}\n{id}\n"),
        );
        put(
            &place,
            &format!("j/court={value}/x.json"),
            format!("{{\"id\":{id}}}\n{{\"id\":{id}}}"),
        );
    }
    for (format, folder) in [("PARQUET", "p"), ("CSV", "c"), ("JSON", "j")] {
        ask(&ctx, "DROP TABLE IF EXISTS t").await.unwrap();
        create(&ctx, "t", format, &format!("{}{folder}/", place.base), "")
            .await
            .unwrap();
        for (condition, expected) in [
            ("court IS NULL", 2),
            ("court IS NOT NULL", 12),
            ("court = 'A/B'", 2),
            ("court = 'a b'", 2),
            ("court = '100%'", 2),
            ("court = ''", 2),
            ("court = ':'", 2),
            ("court <> 'First'", 10),
            ("court = '__HIVE_DEFAULT_PARTITION__'", 0),
            ("coalesce(court, 'none') = 'none'", 2),
            ("CAST(id AS BIGINT) = 0 AND court IS NULL", 2),
        ] {
            let sql = format!("SELECT count(*) FROM t WHERE {condition}");
            assert_eq!(number(&ctx, &sql).await, expected, "{format}: {condition}");
        }
        assert_eq!(
            number(&ctx, "SELECT count(court) FROM t").await,
            12,
            "{format}"
        );
        assert_eq!(
            number(&ctx, "SELECT count(DISTINCT court) FROM t").await,
            6,
            "{format}"
        );
    }
    let some = format!("{}p/court=*/x.parquet", place.base);
    create(&ctx, "some", "PARQUET", &some, "").await.unwrap();
    assert_eq!(
        number(&ctx, "SELECT count(*) FROM some WHERE court IS NULL").await,
        2
    );
    let below = format!("{}p/court=*/", place.base);
    create(&ctx, "below", "PARQUET", &below, "").await.unwrap();
    assert_eq!(number(&ctx, "SELECT count(court) FROM below").await, 12);
    let one = format!("{}p/court=First/", place.base);
    create(&ctx, "one", "PARQUET", &one, "").await.unwrap();
    assert_eq!(number(&ctx, "SELECT count(*) FROM one").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_value_of_the_folder_wins() {
    let place = Place::local();
    let ctx = session(2);
    for year in [2020, 2021] {
        let wrong: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        let text: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
        let columns = vec![("year", wrong), ("text", text)];
        put(
            &place,
            &format!("n/year={year}/x.parquet"),
            parquet(year, columns),
        );
        put(
            &place,
            &format!("j/year={year}/x.json"),
            format!("{{\"year\":1,\"id\":{year}}}\n"),
        );
        put(
            &place,
            &format!("c/year={year}/x.csv"),
            format!("year,id\n1,{year}\n"),
        );
    }
    for (format, folder) in [("PARQUET", "n"), ("JSON", "j"), ("CSV", "c")] {
        for columns in ["", " (id BIGINT, year BIGINT) "] {
            ask(&ctx, "DROP TABLE IF EXISTS t").await.unwrap();
            let by = if columns.is_empty() {
                ""
            } else {
                "PARTITIONED BY (year)"
            };
            let sql = format!(
                "CREATE EXTERNAL TABLE t {columns} STORED AS {format} {by} LOCATION '{}{folder}/'",
                place.base
            );
            ask(&ctx, &sql).await.unwrap();
            let sql = "SELECT count(*) FROM t WHERE year = id";
            let expected = number(&ctx, "SELECT count(*) FROM t").await;
            assert_eq!(number(&ctx, sql).await, expected, "{format}{columns}");
            assert_eq!(
                number(&ctx, "SELECT sum(DISTINCT CAST(year AS BIGINT)) FROM t").await,
                4041
            );
        }
    }
    // By position, a column that the folders take would shift the others.
    for i in [1, 2] {
        put(&place, &format!("h/column_1={i}/x.csv"), "1,a\n2,b\n");
    }
    let option = "'format.has_header' 'false'";
    let error = create(&ctx, "h", "CSV", &format!("{}h/", place.base), option).await;
    let error = error.unwrap_err();
    assert!(
        error.contains("column_1") && error.contains("rename"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_that_are_written_read_back() {
    let place = Place::local();
    let ctx = session(2);
    for format in ["PARQUET", "JSON", "CSV"] {
        let at = format!("{}w-{format}/", place.base);
        let sql = format!(
            "CREATE EXTERNAL TABLE o (id BIGINT, text VARCHAR, court VARCHAR) STORED AS {format} \
             PARTITIONED BY (court) LOCATION '{at}'"
        );
        ask(&ctx, "DROP TABLE IF EXISTS o").await.unwrap();
        ask(&ctx, &sql).await.unwrap();
        let values =
            "(1,'a','A/B'),(2,'b',NULL),(3,'c','50%'),(4,'d',''),(5,'e','p=q'),(6,'f','a b')";
        assert_eq!(
            number(&ctx, &format!("INSERT INTO o VALUES {values}")).await,
            6
        );
        let sql = format!(
            "SELECT count(*) FROM o JOIN (VALUES {values}) AS v(id, text, court) ON o.id = v.id \
             AND o.text = v.text AND o.court IS NOT DISTINCT FROM v.court"
        );
        assert_eq!(number(&ctx, &sql).await, 6, "{format}");
        assert_eq!(number(&ctx, "SELECT count(*) FROM o").await, 6, "{format}");
        let sql = format!("INSERT INTO o VALUES (7, 'x', 'fine'), (8, 'y', '{NULL}')");
        let error = ask(&ctx, &sql).await.unwrap_err();
        assert!(error.contains("stands for null"), "{error}");
        // Nothing of a write that failed is there.
        assert_eq!(number(&ctx, "SELECT count(*) FROM o").await, 6, "{format}");
        let left = std::fs::read_dir(format!("{at}_casebook/tmp")).unwrap();
        assert_eq!(left.count(), 0, "{format}");
    }
}

/// A table in folders by court; `more` are OPTIONS.
async fn by_court(ctx: &SessionContext, name: &str, format: &str, place: &Place, more: &str) {
    let sql = format!(
        "CREATE EXTERNAL TABLE {name} (id BIGINT, text VARCHAR, court VARCHAR) STORED AS {format} \
         PARTITIONED BY (court) LOCATION '{}folders-{format}/' OPTIONS ({} {more})",
        place.base, place.options
    );
    ask(ctx, &sql).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_in_folders_are_there_once() {
    for place in Place::all() {
        for format in ["PARQUET", "JSON", "CSV"] {
            let ctx = session(2);
            by_court(&ctx, "t", format, &place, "'write.key' 'id'").await;
            let insert = "INSERT INTO t VALUES (1, 'a', 'ca1'), (2, NULL, 'ca2'), (3, '', NULL)";
            assert_eq!(number(&ctx, insert).await, 3);
            assert_eq!(number(&ctx, insert).await, 0);
            // Rows that only their folder tells apart are two.
            let two = "INSERT INTO t VALUES (4, 'a', 'ca1'), (4, 'a', 'ca2')";
            let error = ask(&ctx, two).await.unwrap_err();
            assert!(
                error.contains("have the same id, '4', and differ"),
                "{error}"
            );
            // Four writers at once; each has half of its keys in common with the next.
            let many = |writer: u32| {
                let (ctx, from) = (ctx.clone(), 1000 + writer * 100);
                let sql = format!(
                    "INSERT INTO t SELECT value, 'x', concat('ca', value % 7) \
                     FROM generate_series({from}, {})",
                    from + 199
                );
                async move { number(&ctx, &sql).await }
            };
            let added = futures::future::join_all((0..4).map(many)).await;
            assert_eq!(added.iter().sum::<u64>(), 500, "{format}: {added:?}");
            assert_eq!(number(&ctx, "SELECT count(*) FROM t").await, 503);
            assert_eq!(number(&ctx, "SELECT count(DISTINCT id) FROM t").await, 503);
            let wrong = "SELECT count(*) FROM t WHERE id > 999 AND court <> concat('ca', id % 7) \
                         OR id = 3 AND (court IS NOT NULL OR text IS NULL)";
            assert_eq!(number(&ctx, wrong).await, 0, "{format}");

            let version = "'write.app_id' 'a', 'write.version' '1'";
            by_court(&ctx, "v", format, &place, version).await;
            let insert = "INSERT INTO v VALUES (5000, 'a', 'ca1'), (5001, 'b', 'ca2')";
            assert_eq!(number(&ctx, insert).await, 2);
            assert_eq!(number(&ctx, insert).await, 0);
            assert_eq!(number(&ctx, "SELECT count(*) FROM v").await, 505);
        }
    }
}

/// What a kill between the list of the files and their last name leaves.
#[tokio::test(flavor = "multi_thread")]
async fn an_insert_goes_on_where_a_killed_one_ended() {
    for (kept, once) in [("part-1", ""), ("keyed-00000001", ", 'write.key' 'id'")] {
        let place = Place::local();
        let ctx = session(2);
        by_court(
            &ctx,
            "t",
            "JSON",
            &place,
            &format!("'json.unknown_keys' 'error'{once}"),
        )
        .await;
        let insert = "INSERT INTO t VALUES (1, 'a', 'ca1'), (2, 'b', 'ca2'), (3, 'c', 'ca3')";
        assert_eq!(number(&ctx, insert).await, 3);
        let table = PathBuf::from(format!("{}folders-JSON", place.base));
        let hidden = table.join("_casebook");
        let mut files = vec![];
        for court in ["court=ca1", "court=ca2", "court=ca3"] {
            let file = std::fs::read_dir(table.join(court))
                .unwrap()
                .next()
                .unwrap();
            let file = file.unwrap().file_name().into_string().unwrap();
            files.push(format!("{court}/{file}"));
        }
        // One has its name, one has two, one has none.
        let dead = "0123456789abcdef0123456789abcdef";
        let waiting = hidden.join("tmp").join(dead);
        for file in &files[1..] {
            std::fs::create_dir_all(waiting.join(file).parent().unwrap()).unwrap();
            std::fs::copy(table.join(file), waiting.join(file)).unwrap();
        }
        std::fs::remove_file(table.join(&files[2])).unwrap();
        let list = serde_json::json!({"folder": dead, "files": files});
        std::fs::create_dir_all(hidden.join("lists")).unwrap();
        let list_at = hidden.join(format!("lists/{kept}.json"));
        std::fs::write(&list_at, list.to_string()).unwrap();

        assert_eq!(number(&ctx, "SELECT count(*) FROM t").await, 2);
        let more = "INSERT INTO t VALUES (4, 'd', 'ca1'), (3, 'c', 'ca3')";
        let added = if once.is_empty() { 2 } else { 1 };
        assert_eq!(number(&ctx, more).await, added);
        assert_eq!(number(&ctx, "SELECT count(*) FROM t").await, 3 + added);
        assert_eq!(number(&ctx, "SELECT count(DISTINCT id) FROM t").await, 4);
        assert!(!waiting.exists());
        // The list of a write that may come again says that there was one.
        let left = std::fs::read(&list_at).ok();
        assert_eq!(left, (!once.is_empty()).then(Vec::new), "{kept}");
        // A list of somebody else's neither moves nor removes what is not ours.
        let victim = tempfile::tempdir().unwrap();
        let outside = victim.path().to_str().unwrap();
        for list in [
            serde_json::json!({"folder": "../..", "files": ["../x"]}),
            serde_json::json!({"folder": "../../..", "files": []}),
            serde_json::json!({"folder": "..", "files": []}),
            serde_json::json!({"folder": "", "files": []}),
            serde_json::json!({"folder": outside, "files": []}),
            serde_json::json!({"folder": dead, "files": ["../x"]}),
        ] {
            std::fs::write(&list_at, list.to_string()).unwrap();
            let error = ask(&ctx, more).await.unwrap_err();
            assert!(
                error.contains("is no list of files") && error.contains(kept),
                "{list}: {error}"
            );
            assert!(victim.path().exists() && list_at.exists(), "{list}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_that_do_not_fit_are_errors() {
    let place = Place::local();
    let ctx = session(1);
    put(&place, "m/year=2020/x.csv", "id\n1\n");
    put(&place, "m/x.csv", "id\n2\n");
    let at = format!("{}m/", place.base);
    let error = create(&ctx, "t", "CSV", &at, "").await.unwrap_err();
    assert!(error.contains("name different columns"), "{error}");
    put(&place, "y/year=old/x.csv", "id\n1\n");
    let sql = format!(
        "CREATE EXTERNAL TABLE y (id BIGINT, year INT) STORED AS CSV PARTITIONED BY (year) \
         LOCATION '{}y/'",
        place.base
    );
    let error = ask(&ctx, &sql).await.unwrap_err();
    assert!(
        error.contains("year=old") && error.contains("VARCHAR"),
        "{error}"
    );
}
