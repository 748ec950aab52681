//! What is written: whole files, once.

use super::place::{Place, ask, create, number, session};
use super::places;
use crate::fake::gcs::Gcs;

const CONTRACT: &str = "'table.create' 'qa_pairs', ";

#[tokio::test(flavor = "multi_thread")]
async fn the_same_write_again_changes_nothing() {
    for place in Place::all() {
        for format in ["CSV", "PARQUET", "JSON"] {
            let ctx = session(2);
            let at = format!("{}once-{format}", place.base);
            let options = |version: u32| {
                format!(
                    "{}{CONTRACT} 'write.app_id' 'job \"1\"/é', 'write.version' '{version}'",
                    place.options
                )
            };
            create(&ctx, "v1", format, &at, &options(1)).await.unwrap();
            create(&ctx, "v2", format, &at, &options(2)).await.unwrap();
            let insert = "VALUES ('a', 1, 'x'), ('b', 2, NULL)";
            assert_eq!(number(&ctx, &format!("INSERT INTO v1 {insert}")).await, 2);
            assert_eq!(number(&ctx, &format!("INSERT INTO v1 {insert}")).await, 0);
            assert_eq!(number(&ctx, &format!("INSERT INTO v2 {insert}")).await, 2);
            assert_eq!(number(&ctx, &format!("INSERT INTO v2 {insert}")).await, 0);
            // A backfill that comes after a later version is not taken for one that was written.
            let late = ask(&ctx, &format!("INSERT INTO v1 {insert}")).await;
            let late = late.unwrap_err();
            assert!(late.contains("recorded version 2 of"), "{late}");
            assert_eq!(
                number(&ctx, "SELECT count(*) FROM v1").await,
                4,
                "{format} {at}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_added_once() {
    for place in Place::all() {
        for format in ["CSV", "PARQUET", "JSON"] {
            let ctx = session(2);
            let at = format!("{}key-{format}/", place.base);
            let options = format!("{}{CONTRACT} 'write.key' 'qa_id'", place.options);
            create(&ctx, "t", format, &at, &options).await.unwrap();
            let first = "INSERT INTO t VALUES ('a', 1, 'x'), ('b', 2, 'y'), ('a', 1, 'x')";
            assert_eq!(number(&ctx, first).await, 2);
            assert_eq!(number(&ctx, first).await, 0);
            for other in ["('n', 2, 'x')", "('n', 1, NULL)", "('n', NULL, 'x')"] {
                let two = format!("INSERT INTO t VALUES ('n', 1, 'x'), {other}");
                let error = ask(&ctx, &two).await.unwrap_err();
                for part in [
                    "same qa_id, 'n'",
                    "differ",
                    "write.key",
                    &format!("key-{format}"),
                ] {
                    assert!(error.contains(part), "{error}");
                }
            }
            let more = "INSERT INTO t VALUES ('b', 2, 'y'), ('c', 4, 'z')";
            assert_eq!(number(&ctx, more).await, 1);
            let shown = ask(&ctx, "SELECT qa_id, question_no FROM t ORDER BY qa_id")
                .await
                .unwrap();
            let keys: Vec<&str> = shown.lines().skip(3).collect();
            assert_eq!(keys.len(), 4, "{shown}");
            let error = ask(&ctx, "INSERT INTO t VALUES (NULL, 1, 'x')")
                .await
                .unwrap_err();
            assert!(error.contains("a row has no qa_id"), "{error}");
            assert_eq!(
                number(&ctx, "SELECT count(*) FROM t").await,
                3,
                "{format} {at}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_writers_with_keys_none_loses_its_rows() {
    const WRITERS: u32 = 6;
    for place in Place::all() {
        for format in ["CSV", "PARQUET", "JSON"] {
            let ctx = session(2);
            let at = format!("{}race-{format}/", place.base);
            let options = format!("{}{CONTRACT} 'write.key' 'qa_id'", place.options);
            create(&ctx, "t", format, &at, &options).await.unwrap();
            // Each has half of its keys in common with the next.
            let insert = |writer: u32| {
                let from = writer * 500;
                let sql = format!(
                    "INSERT INTO t SELECT concat(CAST(value AS VARCHAR), '\"\n,') AS text, value, \
                     CASE WHEN value % 3 = 0 THEN NULL WHEN value % 3 = 1 THEN '' ELSE '=x' END \
                     FROM generate_series({from}, {})",
                    from + 999
                );
                let ctx = ctx.clone();
                async move { number(&ctx, &sql).await }
            };
            let added = futures::future::join_all((0..WRITERS).map(insert)).await;
            let all = u64::from(WRITERS * 500 + 500);
            assert_eq!(added.iter().sum::<u64>(), all, "{at}: {added:?}");
            let counts = "SELECT count(*) - count(DISTINCT qa_id) FROM t";
            assert_eq!(number(&ctx, counts).await, 0, "{at}");
            assert_eq!(number(&ctx, "SELECT count(*) FROM t").await, all, "{at}");
            let wrong = "SELECT count(*) FROM t WHERE qa_id <> concat(question_no, '\"\n,') OR answer \
                         IS DISTINCT FROM CASE question_no % 3 WHEN 1 THEN '' WHEN 2 THEN '=x' END";
            assert_eq!(number(&ctx, wrong).await, 0, "{at}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_not_called_as_a_file_is() {
    let place = Place::local();
    let ctx = session(1);
    for (made, (format, name)) in [
        ("CSV", "qa.csv"),
        ("CSV", "qa.CSV.gz"),
        ("PARQUET", "qa.parquet"),
        ("JSON", "qa.jsonl"),
    ]
    .into_iter()
    .enumerate()
    {
        let made = format!("made_{made}");
        let at = format!("{}{name}", place.base);
        let error = create(&ctx, "t", format, &at, CONTRACT).await.unwrap_err();
        assert!(error.contains("end the location with /"), "{error}");
        create(&ctx, &made, format, &format!("{at}/"), CONTRACT)
            .await
            .unwrap();
        ask(&ctx, &format!("INSERT INTO {made} VALUES ('a', 1, 'x')"))
            .await
            .unwrap();
        // It is there now.
        create(&ctx, "again", format, &at, CONTRACT).await.unwrap();
        assert_eq!(number(&ctx, "SELECT count(*) FROM again").await, 1);
        ask(&ctx, "DROP TABLE again").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_whose_publication_was_not_answered_is_there_once() {
    let place = Place::gcs();
    let ctx = session(1);
    for (name, once) in [
        ("keyed", "'write.key' 'qa_id'"),
        ("recorded", "'write.app_id' 'job', 'write.version' '1'"),
    ] {
        let at = format!("{}{name}/", place.base);
        let options = format!("{}{CONTRACT} {once}", place.options);
        create(&ctx, name, "JSON", &at, &options).await.unwrap();
        Gcs::shared().lose_answer(at.strip_prefix("gs://").unwrap());
        let insert = format!("INSERT INTO {name} VALUES ('a', 1, 'x'), ('b', 2, 'y')");
        // By its key, the file could be another writer's; by its name it is this write's.
        if let Err(error) = ask(&ctx, &insert).await {
            assert!(
                name == "keyed" && error.contains("run the INSERT again"),
                "{error}"
            );
        }
        for _ in 0..2 {
            assert_eq!(
                number(&ctx, &format!("SELECT count(*) FROM {name}")).await,
                2
            );
            ask(&ctx, &insert).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_errors() {
    let place = Place::local();
    let ctx = session(1);
    create(&ctx, "t", "PARQUET", &format!("{}t", place.base), CONTRACT)
        .await
        .unwrap();
    let swapped = "INSERT INTO t SELECT answer, question_no, qa_id FROM t";
    let error = ask(&ctx, swapped).await.unwrap_err();
    assert!(error.contains("answer would go into qa_id"), "{error}");
    let error = ask(&ctx, "INSERT OVERWRITE t VALUES ('a', 1, 'x')")
        .await
        .unwrap_err();
    assert!(error.contains("cannot be replaced"), "{error}");
    ask(&ctx, "INSERT INTO t VALUES ('a', 1, 'x')")
        .await
        .unwrap();
    let file = std::fs::read_dir(format!("{}t", place.base)).unwrap();
    let file = file
        .map(|e| e.unwrap().path())
        .find(|p| p.extension().is_some())
        .unwrap();
    create(&ctx, "one", "PARQUET", &file.display().to_string(), "")
        .await
        .unwrap();
    let error = ask(&ctx, "INSERT INTO one VALUES ('a', 1, 'x')")
        .await
        .unwrap_err();
    assert!(error.contains("end the location with /"), "{error}");
    let both = "'write.app_id' 'x'";
    let error = create(&ctx, "x", "JSON", &format!("{}x", place.base), both)
        .await
        .unwrap_err();
    assert!(error.contains("write.version"), "{error}");
    std::fs::create_dir(format!("{}other", place.base)).unwrap();
    std::fs::write(format!("{}other/a.csv", place.base), "qa_id,answer\n1,2\n").unwrap();
    let error = create(&ctx, "y", "CSV", &format!("{}other", place.base), CONTRACT).await;
    let error = error.unwrap_err();
    assert!(error.contains("question_no is missing"), "{error}");
}

#[tokio::test]
async fn a_write_that_is_there_says_so() {
    let place = Place::local();
    let ctx = session(1);
    places::listen();
    let options = format!("{CONTRACT} 'write.app_id' 'loader', 'write.version' '3'");
    for format in ["JSON", "DELTA"] {
        let at = format!("{}said-{format}/", place.base);
        create(&ctx, format, format, &at, &options).await.unwrap();
        let insert = format!("INSERT INTO {format} VALUES ('a', 1, 'x')");
        assert_eq!(number(&ctx, &insert).await, 1);
        assert!(places::said(&at).is_empty());
        assert_eq!(number(&ctx, &insert).await, 0);
        let said = places::said(&at).join("\n");
        assert!(
            said.contains("version 3 of 'loader' is in the table at"),
            "{said}"
        );
    }
}

/// COPY would put a file in the place of a link or a device, and leave alone what that leads to.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn copy_writes_through_no_link_and_onto_no_device() {
    let place = Place::local();
    let ctx = session(1);
    let at = |name: &str| format!("{}{name}", place.base);
    std::fs::write(at("real"), "precious").unwrap();
    std::os::unix::fs::symlink(at("real"), at("link")).unwrap();
    std::os::unix::fs::symlink(at("nowhere"), at("dangling")).unwrap();
    std::fs::create_dir(at("folder")).unwrap();
    std::os::unix::fs::symlink(at("folder"), at("into")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    for format in ["CSV", "JSON", "PARQUET"] {
        let copy = |to: &str| format!("COPY (SELECT 1 AS id) TO '{}' STORED AS {format}", at(to));
        for (name, what) in [
            ("link", "symbolic link"),
            ("dangling", "symbolic link"),
            ("socket", "no file"),
        ] {
            let error = ask(&ctx, &copy(name)).await.unwrap_err();
            assert!(
                error.contains(what) && error.contains(&at(name)),
                "{format}: {error}"
            );
        }
        assert_eq!(std::fs::read_to_string(at("real")).unwrap(), "precious");
        assert!(std::fs::symlink_metadata(at("link")).unwrap().is_symlink());
        // A new file, one that is there, and a directory behind a link are written to.
        let ending = format.to_lowercase();
        for name in ["new", "new", "into/new"] {
            ask(&ctx, &copy(&format!("{name}.{ending}"))).await.unwrap();
        }
        assert!(
            std::fs::metadata(at(&format!("folder/new.{ending}")))
                .unwrap()
                .len()
                > 0
        );
    }
}
