//! JSON: every key and digit, or an error that names file, record and option.

use super::place::{Place, ask, create, number, session};
use super::places::{listen, said};

fn put(place: &Place, name: &str, content: impl AsRef<[u8]>) -> String {
    let path = format!("{}{name}", place.base);
    std::fs::create_dir_all(std::path::Path::new(&path).parent().unwrap()).unwrap();
    std::fs::write(&path, content).unwrap();
    path
}

const ARRAY: &str = "'format.newline_delimited' 'false'";

#[tokio::test(flavor = "multi_thread")]
async fn arrays_are_read_when_asked_and_named_when_not() {
    let place = Place::local();
    let ctx = session(2);
    let pretty = "[\n  {\n    \"id\": 1,\n    \"text\": \"one ] }\"\n  },\n  {\"id\": 2}\n]\n";
    for (name, text) in [
        (
            "array.json",
            "[{\"id\":1,\"text\":\"one\"},{\"id\":2,\"text\":\"two\"}]",
        ),
        ("pretty.json", pretty),
    ] {
        let at = put(&place, name, text);
        ask(&ctx, "DROP TABLE IF EXISTS t").await.unwrap();
        let error = create(&ctx, "t", "JSON", &at, "").await.unwrap_err();
        assert!(
            error.contains("format.newline_delimited to false") && error.contains(&at),
            "{error}"
        );
        create(&ctx, "t", "JSON", &at, ARRAY).await.unwrap();
        assert_eq!(number(&ctx, "SELECT count(*) FROM t").await, 2);
        assert_eq!(number(&ctx, "SELECT sum(id) FROM t").await, 3);
    }
    let lines = put(&place, "lines.json", "{\"id\":1}\n{\"id\":2}\n");
    let error = create(&ctx, "l", "JSON", &lines, ARRAY).await.unwrap_err();
    assert!(error.contains("set it to true"), "{error}");
    let objects = put(
        &place,
        "objects.json",
        "{\n \"id\": 1\n}\n\n{\n \"id\": 2\n}",
    );
    create(&ctx, "o", "JSON", &objects, "").await.unwrap();
    assert_eq!(number(&ctx, "SELECT sum(id) FROM o").await, 3);
    // An INSERT would write lines, which the array's reader does not read.
    let at = format!("{}new/", place.base);
    create(&ctx, "n (id BIGINT)", "JSON", &at, ARRAY)
        .await
        .unwrap();
    let error = ask(&ctx, "INSERT INTO n VALUES (1)").await.unwrap_err();
    assert!(error.contains("format.newline_delimited"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_files_are_short_errors_with_their_name() {
    let place = Place::local();
    let ctx = session(2);
    let long = "x".repeat(2 << 20);
    for (name, text, options, part) in [
        (
            "cut.json",
            format!("{{\"id\":1}}\n{{\"id\":2,\"te{long}"),
            "",
            "ends inside record 2",
        ),
        (
            "cutarray.json",
            format!("[{{\"id\":\"{long}\"}},{{\"id\":\"2\"}}"),
            ARRAY,
            "cut off after record 2",
        ),
        (
            "twice.json",
            format!("{{\"id\":1,\"id\":\"{long}\"}}"),
            "",
            "\"id\" is there twice",
        ),
        (
            "comma.json",
            format!("{{\"id\":1,\"a\":\"{long}\",}}"),
            "",
            "not valid JSON",
        ),
        (
            "number.json",
            "{\"id\":1}\n7\n".to_owned(),
            "",
            "record 2 (byte 9) begins with 7",
        ),
        ("utf16.json", "\u{fffe}".to_owned(), "", "begins with"),
        (
            "deep.json",
            format!("{{\"a\":{}{}}}", "[".repeat(9000), "]".repeat(9000)),
            "",
            "record 1",
        ),
    ] {
        let at = put(&place, name, text);
        ask(&ctx, "DROP TABLE IF EXISTS t").await.unwrap();
        let error = match create(&ctx, "t", "JSON", &at, options).await {
            Ok(()) => ask(&ctx, "SELECT count(*) FROM t").await.unwrap_err(),
            Err(error) => error,
        };
        assert!(
            error.contains(part) && error.contains(&at),
            "{name}: {error}"
        );
        assert!(error.len() < 1000, "{name}: {} bytes", error.len());
    }
    let at = put(&place, "bad.json", b"{\"id\":1,\"text\":\"caf\xe9\"}");
    let error = create(&ctx, "b", "JSON", &at, "").await.unwrap_err();
    assert!(error.contains("record 1") && error.contains(&at), "{error}");
    let at = put(
        &place,
        "bom.json",
        "\u{feff}{\"id\":1}\r\n\r\n{\"id\":2}\r\n",
    );
    create(&ctx, "bom", "JSON", &at, "").await.unwrap();
    assert_eq!(number(&ctx, "SELECT sum(id) FROM bom").await, 3);
}

/// `count` records, the last of them `last`.
fn late(count: usize, last: &str) -> String {
    let rows = (0..count).map(|i| format!("{{\"id\":{i},\"text\":\"doc {i}\"}}\n"));
    rows.collect::<String>() + last + "\n"
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_types_after_the_sample_are_columns_or_errors() {
    let place = Place::local();
    let ctx = session(2);
    for (name, last, key) in [
        ("key.json", "{\"id\":1,\"court\":\"x\"}", "court"),
        ("type.json", "{\"id\":\"A-7\"}", "id"),
        ("list.json", "{\"text\":[1]}", "text"),
        ("wide.json", "{\"id\":9223372036854775808}", "id"),
        ("half.json", "{\"id\":1.5}", "id"),
    ] {
        let at = put(&place, name, late(1500, last));
        ask(&ctx, "DROP TABLE IF EXISTS t").await.unwrap();
        create(&ctx, "t", "JSON", &at, "").await.unwrap();
        // Whichever columns are asked for.
        for sql in [
            "SELECT * FROM t",
            "SELECT id FROM t",
            "SELECT text FROM t",
            "SELECT count(*) FROM t",
            "SELECT id FROM t WHERE id < 0",
        ] {
            let error = ask(&ctx, sql).await.unwrap_err();
            for part in [
                "record 1501",
                key,
                at.as_str(),
                "format.schema_infer_max_rec",
            ] {
                assert!(error.contains(part), "{name}, {sql}: {error}");
            }
        }
        ask(&ctx, "DROP TABLE t").await.unwrap();
        let more = "'format.schema_infer_max_rec' '1501'";
        let opened = create(&ctx, "t", "JSON", &at, more).await;
        match name {
            "list.json" => assert!(opened.unwrap_err().contains("an array")),
            _ => assert_eq!(number(&ctx, "SELECT count(*) FROM t").await, 1501, "{name}"),
        }
    }
    let at = put(
        &place,
        "key2.json",
        late(1500, "{\"id\":1,\"court\":\"x\"}"),
    );
    create(&ctx, "d (id BIGINT, court VARCHAR)", "JSON", &at, "")
        .await
        .unwrap();
    assert_eq!(number(&ctx, "SELECT count(court) FROM d").await, 1);
    create(&ctx, "i", "JSON", &at, "'json.unknown_keys' 'ignore'")
        .await
        .unwrap();
    assert_eq!(number(&ctx, "SELECT count(*) FROM i").await, 1501);
    let error = create(&ctx, "x", "JSON", &at, "'format.schema_infer_max_rec' '0'").await;
    assert!(error.unwrap_err().contains("at least 1"));
    // A second file that has another key.
    put(&place, "two/a.json", "{\"id\":1}\n");
    put(&place, "two/b.json", "{\"id\":2,\"court\":\"x\"}\n");
    create(&ctx, "two", "JSON", &format!("{}two/", place.base), "")
        .await
        .unwrap();
    assert_eq!(number(&ctx, "SELECT count(court) FROM two").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn digits_are_as_they_stand() {
    let place = Place::local();
    let ctx = session(1);
    for (name, values) in [
        (
            "a",
            &[
                "9007199254740993",
                "18446744073709551615",
                "123456789012345678901234567890",
            ][..],
        ),
        ("b", &["7", "\"A-7\""]),
        ("c", &["9007199254740993", "9007199254740992"]),
        ("d", &["1", "-2.50", "9007199254740993"]),
        ("e", &["true", "1.0e5"]),
    ] {
        let rows = values.iter().map(|v| format!("{{\"id\":{v}}}\n"));
        let at = put(&place, &format!("{name}.json"), rows.collect::<String>());
        create(&ctx, name, "JSON", &at, "").await.unwrap();
        let found = ask(&ctx, &format!("SELECT id FROM {name}")).await.unwrap();
        for value in values {
            assert!(found.contains(value.trim_matches('"')), "{value}: {found}");
        }
    }
    let at = put(&place, "f.json", "{\"id\":1}\n{\"id\":9007199254740993}\n");
    create(&ctx, "f (id DOUBLE)", "JSON", &at, "")
        .await
        .unwrap();
    let error = ask(&ctx, "SELECT * FROM f").await.unwrap_err();
    assert!(error.contains("more digits than a DOUBLE"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_of_long_records_are_short() {
    let place = Place::local();
    let ctx = session(1);
    let text = "x".repeat(1 << 20);
    let rows = (0..40).map(|i| format!("{{\"id\":{i},\"text\":\"{text}\"}}\n"));
    let at = put(&place, "long.json", rows.collect::<String>());
    create(&ctx, "t", "JSON", &at, "").await.unwrap();
    let found = super::place::rows(&ctx, "SELECT * FROM t").await.unwrap();
    assert!(
        found.iter().all(|batch| batch.num_rows() <= 17),
        "{}",
        found.len()
    );
    assert_eq!(found.iter().map(|b| b.num_rows()).sum::<usize>(), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn declared_columns_that_no_file_has_are_named() {
    listen();
    let place = Place::local();
    let ctx = session(1);
    let json = put(&place, "few.json", "{\"id\":1}\n");
    let at = format!("{}few/", place.base);
    create(&ctx, "w (id BIGINT)", "PARQUET", &at, "")
        .await
        .unwrap();
    ask(&ctx, "INSERT INTO w VALUES (1)").await.unwrap();
    for (format, at) in [("JSON", &json), ("PARQUET", &at)] {
        ask(&ctx, "DROP TABLE IF EXISTS t").await.unwrap();
        create(&ctx, "t (id BIGINT, court VARCHAR)", format, at, "")
            .await
            .unwrap();
        assert_eq!(number(&ctx, "SELECT count(court) FROM t").await, 0);
        let notices = said(at);
        assert!(
            notices
                .iter()
                .any(|n| n.contains("court") && n.contains("files.strict")),
            "{notices:?}"
        );
        ask(&ctx, "DROP TABLE t").await.unwrap();
        let strict = create(
            &ctx,
            "t (id BIGINT, court VARCHAR)",
            format,
            at,
            "'files.strict' 'true'",
        );
        let error = strict.await.unwrap_err();
        assert!(error.contains("court"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_can_be_no_column_does_not_hinder_the_others() {
    let place = Place::local();
    let ctx = session(1);
    let deep = format!(
        "{{\"id\":1,\"other\":{}1{}}}\n{{\"id\":2}}\n",
        "{\"k\":".repeat(70),
        "}".repeat(70)
    );
    for (name, text) in [
        ("deep.json", deep.as_str()),
        (
            "kinds.json",
            "{\"id\":1,\"other\":1}\n{\"id\":2,\"other\":[1]}\n",
        ),
    ] {
        let at = put(&place, name, text);
        ask(&ctx, "DROP TABLE IF EXISTS t").await.unwrap();
        let error = create(&ctx, "t", "JSON", &at, "").await.unwrap_err();
        for part in ["key \"other", "declare the columns to read", name] {
            assert!(error.contains(part), "{error}");
        }
        assert!(error.len() < 400, "{error}");
        create(&ctx, "t (id BIGINT)", "JSON", &at, "")
            .await
            .unwrap();
        assert_eq!(number(&ctx, "SELECT sum(id) FROM t").await, 3, "{name}");
        let strict = "'files.strict' 'true'";
        let error = create(&ctx, "s (id BIGINT)", "JSON", &at, strict).await;
        assert!(error.unwrap_err().contains("other"), "{name}");
    }
    // A key that is a declared column but for its case would be null in every row.
    let at = put(&place, "case.json", "{\"ID\":1}\n");
    let error = create(&ctx, "c (id BIGINT)", "JSON", &at, "").await;
    let error = error.unwrap_err();
    assert!(
        error.contains("\"ID\"") && error.contains("case.json"),
        "{error}"
    );
}
