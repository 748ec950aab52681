//! INSERT INTO: every type goes in as it is, rows with a key go in once, and what fails leaves the
//! table as it was.

use datafusion::arrow::array::AsArray;
use datafusion::error::Result;
use datafusion::prelude::SessionContext;

use super::{Source, batches, one, session, shown};

const KEYED: &[(&str, &str)] = &[("table.create", "qa_pairs"), ("write.key", "qa_id")];

async fn run(ctx: &SessionContext, sql: &str) -> Result<u64> {
    let counted = ctx.sql(sql).await?.collect().await?;
    let counts = counted[0]
        .column(0)
        .as_primitive::<datafusion::arrow::datatypes::UInt64Type>();
    Ok(counts.value(0))
}

#[tokio::test]
async fn every_type_comes_back() {
    let columns = "s smallint, i int, l bigint, r real, d double precision, n numeric(10,2), da \
                   date, ts timestamp, t text, b bool";
    for (source, bytes) in [
        (Source::postgres("written"), "bytea"),
        (Source::sqlite(), "blob"),
    ] {
        let Some(source) = source else { continue };
        source.run(&format!(
            "CREATE TABLE {} ({columns}, by {bytes})",
            source.table("t")
        ));
        let ctx = session();
        source.create(&ctx, "t").await;
        let empty = match source.prefix.is_empty() {
            true => "null",
            false => "arrow_cast(X'', 'BinaryView')",
        };
        let values = format!(
            "\
            (-1, 2147483647, -9223372036854775808, 1.5, 0.1, -12345678.91, DATE '1969-12-31', \
             TIMESTAMP '1969-12-31 23:59:59.999', 'it''s \\ ? \"ok\" žluť 🎉', true, \
             arrow_cast(X'00ff01', 'BinaryView')), \
            (7, 8, 9, -2.25, 1e300, 0, DATE '9999-12-31', TIMESTAMP '2026-01-31 10:11:12', '', \
             false, {empty}), \
            (null, null, null, null, null, null, null, null, null, null, null)"
        );
        assert_eq!(
            run(&ctx, &format!("INSERT INTO t VALUES {values}"))
                .await
                .unwrap(),
            3
        );
        let found = shown(&ctx, "SELECT * FROM t").await;
        let rows: Vec<Vec<&str>> = found
            .lines()
            .filter(|l| l.starts_with('|'))
            .map(|l| l.trim_matches('|').split('|').map(str::trim).collect())
            .collect();
        let money = if source.prefix.is_empty() {
            "0.0"
        } else {
            "0.00"
        };
        assert_eq!(
            rows[1],
            [
                "-1",
                "2147483647",
                "-9223372036854775808",
                "1.5",
                "0.1",
                "-12345678.91",
                "1969-12-31",
                "1969-12-31T23:59:59.999",
                "it's \\ ? \"ok\" žluť 🎉",
                "true",
                "00ff01"
            ]
        );
        assert_eq!(
            rows[2],
            [
                "7",
                "8",
                "9",
                "-2.25",
                "1e300",
                money,
                "9999-12-31",
                "2026-01-31T10:11:12",
                "",
                "false",
                ""
            ]
        );
        assert_eq!(rows[3], [""; 11]);
        assert_eq!(
            one(&ctx, "SELECT count(*) FROM t WHERE t = '' OR t IS NULL").await,
            "2"
        );
    }
}

#[tokio::test]
async fn the_same_insert_twice_changes_nothing() {
    for source in Source::all("twice") {
        let ctx = session();
        source.create_with(&ctx, "qa", "qa", KEYED).await.unwrap();
        // Every row occurs twice within the statement.
        let rows = |n: &str| {
            format!(
                "INSERT INTO qa SELECT 'k''' || (value % 1500), {n}, {n} * 5000000000, \
                 repeat('ž', 100) || {n}, {n} / 8.0 FROM generate_series(1, 3000)"
            )
        };
        let error = run(&ctx, &rows("value")).await.unwrap_err().to_string();
        assert!(error.contains("have the same qa_id, 'k'"), "{error}");
        assert_eq!(one(&ctx, "SELECT count(*) FROM qa").await, "0");
        let insert = &rows("(value % 1500)");
        assert_eq!(run(&ctx, insert).await.unwrap(), 1500);
        let before = shown(&ctx, "SELECT * FROM qa ORDER BY qa_id").await;
        assert_eq!(run(&ctx, insert).await.unwrap(), 0);
        assert_eq!(shown(&ctx, "SELECT * FROM qa ORDER BY qa_id").await, before);
        // A session that finds the table made.
        let ctx = session();
        source.create_with(&ctx, "qa", "qa", KEYED).await.unwrap();
        let more = "INSERT INTO qa VALUES ('k''1', 1, 1, 'other', 1), ('new', 1, 1, null, null)";
        assert_eq!(run(&ctx, more).await.unwrap(), 1);
        assert_eq!(one(&ctx, "SELECT count(*) FROM qa").await, "1501");
        let nameless = run(
            &ctx,
            "INSERT INTO qa VALUES ('x', 1, 1, '', 1), (null, 1, 1, '', 1)",
        );
        let error = nameless.await.unwrap_err().to_string();
        assert!(error.contains("a row has no qa_id"), "{error}");
        assert_eq!(one(&ctx, "SELECT count(*) FROM qa").await, "1501");
    }
}

#[tokio::test]
async fn without_a_key_rows_are_appended_and_overwrite_replaces() {
    for source in Source::all("appended") {
        let ctx = session();
        source
            .create_with(&ctx, "qa", "qa", &[("table.create", "qa_pairs")])
            .await
            .unwrap();
        let insert = "INSERT INTO qa VALUES ('a', 1, 2, 'x', 0.5)";
        for _ in 0..2 {
            assert_eq!(run(&ctx, insert).await.unwrap(), 1);
        }
        assert_eq!(one(&ctx, "SELECT count(*) FROM qa").await, "2");
        let own = "INSERT INTO qa SELECT qa_id || '2', chunk_no, chunk_start, answer, grounding \
                   FROM qa";
        assert_eq!(run(&ctx, own).await.unwrap(), 2);
        let replace = "INSERT OVERWRITE qa VALUES ('b', 1, 2, 'y', 0.5)";
        assert_eq!(run(&ctx, replace).await.unwrap(), 1);
        assert_eq!(one(&ctx, "SELECT qa_id FROM qa").await, "b");
        let nothing = "INSERT INTO qa SELECT * FROM qa WHERE qa_id = 'none'";
        assert_eq!(run(&ctx, nothing).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_long_answer_is_written_whole() {
    for source in Source::all("long_answer") {
        let ctx = session();
        source.create_with(&ctx, "qa", "qa", KEYED).await.unwrap();
        let insert = "INSERT INTO qa SELECT 'k' || value, 1 AS a, 1 AS b, repeat('žluť 🎉 ', 400000) \
                      || value, 1 AS c FROM generate_series(1, 3)";
        assert_eq!(run(&ctx, insert).await.unwrap(), 3);
        let found = batches(&ctx, "SELECT answer FROM qa ORDER BY qa_id").await;
        let answers: Vec<&str> = found
            .iter()
            .flat_map(|b| b.column(0).as_string_view().iter().flatten())
            .collect();
        for (i, answer) in answers.iter().enumerate() {
            let expected = format!("{}{}", "žluť 🎉 ".repeat(400_000), i + 1);
            assert!(
                *answer == expected,
                "{} of {} bytes",
                answer.len(),
                expected.len()
            );
        }
        assert_eq!(answers.len(), 3);
    }
}

#[tokio::test]
async fn rows_that_break_off_leave_the_table_as_it_was() {
    for source in Source::all("broken") {
        let ctx = session();
        source.create_with(&ctx, "qa", "qa", KEYED).await.unwrap();
        run(&ctx, "INSERT INTO qa VALUES ('a', 1, 1, 'x', 1)")
            .await
            .unwrap();
        for insert in ["INSERT INTO qa", "INSERT OVERWRITE qa"] {
            let broken = format!(
                "{insert} SELECT 'k' || value, 1 / (4000 - value), 1 AS a, 'x', 1 AS b FROM \
                 generate_series(1, 5000)"
            );
            let error = run(&ctx, &broken).await.unwrap_err().to_string();
            assert!(error.to_lowercase().contains("divide by zero"), "{error}");
            assert_eq!(one(&ctx, "SELECT qa_id FROM qa").await, "a");
        }
    }
}

#[tokio::test]
async fn other_columns_are_listed() {
    for source in Source::all("other_columns") {
        let table = source.table("qa");
        source.run(&format!(
            "CREATE TABLE {table} (qa_id text, chunk_no text, more int)"
        ));
        let ctx = session();
        let error = source
            .create_with(&ctx, "qa", "qa", KEYED)
            .await
            .unwrap_err()
            .to_string();
        for part in [
            "chunk_no has type",
            "answer is missing",
            "more is not declared",
        ] {
            assert!(error.contains(part), "{error}");
        }
    }
}

#[tokio::test]
async fn a_refused_row_leaves_the_table_as_it_was() {
    let Some(source) = Source::postgres("refused") else {
        return;
    };
    source.run("CREATE TABLE refused.t (id int PRIMARY KEY, n int CHECK (n < 100))");
    let ctx = session();
    source.create(&ctx, "t").await;
    let error = run(
        &ctx,
        "INSERT INTO t SELECT value, value AS n FROM generate_series(1, 200)",
    )
    .await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("a rule of the table refuses"), "{error}");
    assert_eq!(one(&ctx, "SELECT count(*) FROM t").await, "0");
    let swapped = run(&ctx, "INSERT INTO t SELECT n, id FROM t")
        .await
        .unwrap_err()
        .to_string();
    assert!(swapped.contains("by position"), "{swapped}");
}

#[tokio::test]
async fn the_sqlite_driver_cannot_write_empty_bytes() {
    let Some(source) = Source::sqlite() else {
        return;
    };
    source.run("CREATE TABLE t (by blob)");
    let ctx = session();
    source.create(&ctx, "t").await;
    let error = run(&ctx, "INSERT INTO t VALUES (X'')")
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("column by"), "{error}");
    assert_eq!(
        run(&ctx, "INSERT INTO t VALUES (X'00'), (null)")
            .await
            .unwrap(),
        2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_writers_at_once_add_each_row_once() {
    let Some(source) = Source::postgres("at_once") else {
        return;
    };
    let ctx = session();
    source.create_with(&ctx, "qa", "qa", KEYED).await.unwrap();
    let insert = "INSERT INTO qa SELECT 'k' || value, 1 AS a, 1 AS b, 'x', 1 AS c FROM \
                  generate_series(1, 3000)";
    let added = futures::future::join_all((0..4).map(|_| run(&ctx, insert))).await;
    let added: u64 = added.into_iter().map(Result::unwrap).sum();
    assert_eq!(added, 3000);
    assert_eq!(one(&ctx, "SELECT count(*) FROM qa").await, "3000");
}

#[tokio::test]
async fn types_that_are_shown_as_text_take_text() {
    let Some(source) = Source::postgres("shown_as_text") else {
        return;
    };
    source.run("CREATE TABLE shown_as_text.t (id uuid, j jsonb, ti time, u numeric)");
    let ctx = session();
    source.create(&ctx, "t").await;
    let insert = "INSERT INTO t VALUES ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{\"a\": [1]}', \
                  '10:11:12.5', '1234567890123456789012345.0123456789')";
    assert_eq!(run(&ctx, insert).await.unwrap(), 1);
    let own = "SELECT concat_ws(' ', id, j, ti, u) FROM shown_as_text.t";
    assert_eq!(
        source.value(own),
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11 {\"a\": [1]} 10:11:12.5 \
         1234567890123456789012345.0123456789"
    );
}
