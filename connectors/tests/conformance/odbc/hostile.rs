//! Values at the edges of their types, odd names, and what a column cannot hold: the right value, or
//! an error that names column, row and value.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, LargeStringArray, RecordBatch, StringArray,
    StringViewArray,
};
use datafusion::arrow::datatypes::{DataType, Decimal128Type, Float64Type};
use datafusion::dataframe::DataFrameWriteOptions;

use super::{Source, batches, one, session, shown};

/// The error of a statement, when it is planned or when it runs.
async fn error(ctx: &datafusion::prelude::SessionContext, sql: &str) -> String {
    match ctx.sql(sql).await {
        Err(error) => error.to_string(),
        Ok(frame) => match frame.collect().await {
            Err(error) => error.to_string(),
            Ok(rows) => panic!("{sql}: {rows:?}"),
        },
    }
}

fn assert_has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "'{part}' is not in: {text}");
    }
}

#[tokio::test]
async fn numbers_at_the_edges_of_their_types() {
    let Some(source) = Source::postgres("edges") else {
        return;
    };
    source.run(
        "CREATE TABLE edges.t (id int, w numeric(38,0), n numeric(38,37), d double precision)",
    );
    let (nines, ones) = ("9".repeat(38), "1".repeat(37));
    source.run(&format!(
        "INSERT INTO edges.t VALUES (1, {nines}, 9.{ones}, '-0'::float8), (2, -{nines}, -0.{}1, \
         'NaN'), (3, 0, 0, 'Infinity'), (4, null, null, '-Infinity'), (5, 1, 1, '5e-324'), \
         (6, 1, 1, '1.7976931348623157e308'), (7, 1, 1, '0.30000000000000004')",
        "0".repeat(36)
    ));
    let ctx = session();
    source.create(&ctx, "t").await;
    source.run("CREATE TABLE edges.copy AS SELECT * FROM edges.t WHERE false");
    source.create(&ctx, "copy").await;
    batches(&ctx, "INSERT INTO copy SELECT * FROM t").await;
    for table in ["t", "copy"] {
        let found = batches(&ctx, &format!("SELECT w, n, d FROM {table} ORDER BY id")).await;
        assert_eq!(
            found[0].schema().field(1).data_type(),
            &DataType::Decimal128(38, 37)
        );
        let wide = found[0].column(0).as_primitive::<Decimal128Type>();
        let exact = found[0].column(1).as_primitive::<Decimal128Type>();
        let nines: i128 = nines.parse().unwrap();
        assert_eq!(
            (wide.value(0), wide.value(1), wide.value(2)),
            (nines, -nines, 0)
        );
        let ones: i128 = format!("9{ones}").parse().unwrap();
        assert_eq!((exact.value(0), exact.value(1)), (ones, -1));
        let floats = found[0].column(2).as_primitive::<Float64Type>();
        let bits: Vec<u64> = floats.values().iter().map(|v| v.to_bits()).collect();
        let edges = [
            -0.0,
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            5e-324,
            f64::MAX,
            0.1 + 0.2,
        ];
        assert!(floats.value(1).is_nan());
        for i in [0, 2, 3, 4, 5, 6] {
            assert_eq!(bits[i], edges[i].to_bits(), "{table} {}", i + 1);
        }
    }
    // The server itself sees no difference.
    let differ = "SELECT count(*) FROM (SELECT * FROM edges.t EXCEPT SELECT * FROM edges.copy) x";
    assert_eq!(source.value(differ), "0");
}

#[tokio::test]
async fn what_no_number_or_time_can_say_is_refused() {
    let Some(source) = Source::postgres("unsayable") else {
        return;
    };
    source.run(
        "CREATE TABLE unsayable.t (id int, n numeric(10,2), d date, ts timestamp, tz timestamptz)",
    );
    source.run("INSERT INTO unsayable.t (id) SELECT g FROM generate_series(1, 300) g");
    let ctx = session();
    source.create(&ctx, "t").await;
    for (column, value, shown) in [
        ("n", "'NaN'", "'NaN'"),
        ("d", "'infinity'", "'infinity'"),
        ("d", "'-infinity'", "'-infinity'"),
        ("d", "'0044-03-15 BC'", "'0044-03-15 BC'"),
        ("d", "'20000-01-01'", "'20000-01-01'"),
        ("d", "'5874897-12-31'", "'5874897-12-31'"),
        ("ts", "'294276-12-31 23:59:59.999999'", "'294276-12-31"),
        ("ts", "'infinity'", "'infinity'"),
        ("ts", "'-infinity'", "'-infinity'"),
        ("ts", "'0044-03-15 12:00 BC'", "BC'"),
        ("tz", "'infinity'", "'infinity'"),
    ] {
        source.run(&format!(
            "UPDATE unsayable.t SET {column} = {value} WHERE id = 299"
        ));
        let sql = format!("SELECT id, {column} FROM t ORDER BY id");
        let said = error(&ctx, &sql).await;
        let name = format!("column {column}");
        assert_has(&said, &["unsayable.t", &name, "row ", shown]);
        source.run(&format!(
            "UPDATE unsayable.t SET {column} = null WHERE id = 299"
        ));
        assert_eq!(one(&ctx, "SELECT count(*) FROM t").await, "300");
    }
}

#[tokio::test]
async fn floats_of_sqlite_keep_all_their_digits() {
    let Some(source) = Source::sqlite() else {
        return;
    };
    source.run("CREATE TABLE t (id int, d double, r real)");
    let ctx = session();
    source.create(&ctx, "t").await;
    let edges = [
        0.1 + 0.2,
        -0.0,
        5e-324,
        f64::MAX,
        f64::INFINITY,
        f64::NEG_INFINITY,
        1.0 / 3.0,
    ];
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..edges.len() as i64));
    let floats: ArrayRef = Arc::new(Float64Array::from(edges.to_vec()));
    let columns = [("id", ids), ("d", Arc::clone(&floats)), ("r", floats)];
    let frame = ctx
        .read_batch(RecordBatch::try_from_iter(columns).unwrap())
        .unwrap();
    let options = DataFrameWriteOptions::new();
    frame.write_table("t", options).await.unwrap();
    // Whole numbers and nothing are in such columns, too.
    source.run("INSERT INTO t VALUES (7, 12, null)");
    let found = batches(&ctx, "SELECT d, r FROM t ORDER BY id").await;
    for column in [0, 1] {
        let floats = found[0].column(column).as_primitive::<Float64Type>();
        for (i, edge) in edges.iter().enumerate() {
            // SQLite keeps no sign of zero.
            let same = floats.value(i).to_bits() == edge.to_bits();
            assert!(
                same || *edge == 0.0 && floats.value(i) == 0.0,
                "{edge:e} {}",
                floats.value(i)
            );
        }
    }
    assert_eq!(
        found[0].column(0).as_primitive::<Float64Type>().value(7),
        12.0
    );
    assert!(found[0].column(1).is_null(7));
    let nan = "INSERT INTO t VALUES (8, CAST('NaN' AS DOUBLE), 1)";
    assert_has(&error(&ctx, nan).await, &["column d", "NaN", "SQLite"]);
    source.run("INSERT INTO t VALUES (9, 'much', 1)");
    let said = error(&ctx, "SELECT d FROM t ORDER BY id").await;
    assert_has(&said, &["reading t", "column d", "row 9", "'much'"]);
}

#[tokio::test]
async fn money_keeps_its_digits() {
    let Some(source) = Source::postgres("money") else {
        return;
    };
    source.run("CREATE TABLE money.t (m money)");
    source.run("INSERT INTO money.t VALUES (92233720368547758.07::numeric::money)");
    let ctx = session();
    source.create(&ctx, "t").await;
    let found = one(&ctx, "SELECT m FROM t").await;
    assert_has(&found.replace(',', ""), &["92233720368547758.07"]);
}

#[tokio::test]
async fn moments_of_a_zone_come_in_the_zone_of_the_session() {
    let Some(source) = Source::postgres("zones") else {
        return;
    };
    source.run("CREATE TABLE zones.t (tz timestamptz)");
    source.run(
        "INSERT INTO zones.t VALUES ('2026-07-01 12:00:00+02'), ('1969-12-31 23:59:59.999999+00')",
    );
    let ctx = session();
    let in_utc = format!("{}ConnSettings=SET TIME ZONE 'UTC';", source.connection);
    super::create(&ctx, "t", "zones.t", &in_utc, &[])
        .await
        .unwrap();
    let found = shown(&ctx, "SELECT tz FROM t").await;
    assert_has(
        &found,
        &["2026-07-01T10:00:00 ", "1969-12-31T23:59:59.999999 "],
    );
}

#[tokio::test]
async fn a_bad_value_is_named_on_the_way_in_and_out() {
    for source in Source::all("bad_values") {
        let table = source.table("t");
        source.run(&format!("CREATE TABLE {table} (id int, n int, d date)"));
        let ctx = session();
        source.create(&ctx, "t").await;
        for (values, parts) in [
            (
                "(1, '1', '2026-01-31'), (2, '7x', null)",
                ["row 2", "column n", "'7x'"],
            ),
            (
                "(1, '1', null), (2, '1', '2026-02-30')",
                ["row 2", "column d", "'2026-02-30'"],
            ),
        ] {
            // Of a table, because the planner casts what stands in a statement itself.
            let given = format!("CREATE OR REPLACE TABLE given AS VALUES {values}");
            ctx.sql(&given).await.unwrap();
            let said = error(&ctx, "INSERT INTO t SELECT * FROM given").await;
            assert_has(&said, &parts);
        }
        assert_eq!(one(&ctx, "SELECT count(*) FROM t").await, "0");
        // An int of SQLite has 64 bits.
        if !source.prefix.is_empty() {
            let wide =
                "INSERT INTO t SELECT value, value * 100000000000 AS wide, null FROM range(1, 3)";
            assert_has(&error(&ctx, wide).await, &["row 1", "column n"]);
        }
    }
    // SQLite keeps in a column what is put there.
    let Some(source) = Source::sqlite() else {
        return;
    };
    source.run("CREATE TABLE t (id int, n int, d date)");
    source.run(
        "INSERT INTO t WITH RECURSIVE g(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM g WHERE n < \
         600) SELECT n, CASE n WHEN 555 THEN '5x' ELSE n END, '2026-01-31' FROM g",
    );
    let ctx = session();
    source.create(&ctx, "t").await;
    let said = error(&ctx, "SELECT id, n FROM t").await;
    assert_has(&said, &["reading t", "column n", "row 555", "'5x'"]);
    source.run("UPDATE t SET n = 1, d = CASE id WHEN 300 THEN 'soon' ELSE d END");
    let said = error(&ctx, "SELECT id, d FROM t").await;
    assert_has(&said, &["reading t", "column d", "row 300", "'soon'"]);
    assert_eq!(one(&ctx, "SELECT sum(n) FROM t").await, "600");
    source.run("CREATE TABLE flags (id int, b boolean)");
    source.run("INSERT INTO flags VALUES (1, 1), (2, 0), (3, 'true'), (4, null)");
    source.create(&ctx, "flags").await;
    let found = batches(&ctx, "SELECT b FROM flags ORDER BY id").await;
    let flags: Vec<Option<bool>> = found[0].column(0).as_boolean().iter().collect();
    assert_eq!(flags, [Some(true), Some(false), Some(true), None]);
    for value in ["'maybe'", "2"] {
        source.run(&format!("UPDATE flags SET b = {value} WHERE id = 2"));
        let said = error(&ctx, "SELECT b FROM flags").await;
        let shown = format!("'{}'", value.trim_matches('\''));
        assert_has(&said, &["reading flags", "column b", "row 2", &shown]);
    }
}

#[tokio::test]
async fn texts_of_any_layout_are_written() {
    for source in Source::all("layouts") {
        let table = source.table("target");
        source.run(&format!("CREATE TABLE {table} (id bigint, body text)"));
        let ctx = session();
        source.create(&ctx, "target").await;
        let texts = ["a", "žluť \\ ''", ""];
        let layouts: [ArrayRef; 3] = [
            Arc::new(StringArray::from(texts.to_vec())),
            Arc::new(LargeStringArray::from(texts.to_vec())),
            Arc::new(StringViewArray::from(texts.to_vec())),
        ];
        for (i, texts) in layouts.into_iter().enumerate() {
            let ids = (0..3).map(|n| n + 3 * i as i64);
            let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(ids));
            let batch = RecordBatch::try_from_iter([("id", ids), ("body", texts)]).unwrap();
            let frame = ctx.read_batch(batch).unwrap();
            let options = DataFrameWriteOptions::new();
            frame.write_table("target", options).await.unwrap();
        }
        let found = batches(&ctx, "SELECT body FROM target ORDER BY id").await;
        let found: Vec<&str> = found
            .iter()
            .flat_map(|b| b.column(0).as_string_view().iter().flatten())
            .collect();
        let expected: Vec<&str> = texts.iter().cycle().take(9).copied().collect();
        assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn names_of_any_kind_are_names() {
    for source in Source::all("names_of_any_kind") {
        // Sixty-three bytes are the most that PostgreSQL keeps.
        let long = "n".repeat(63);
        let names = [
            "select",
            "a.b",
            "a\"b",
            "žluť 🎉",
            "Order",
            "x'y",
            "%_",
            long.as_str(),
        ];
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let columns: Vec<String> = names
            .iter()
            .map(|n| format!("{} text", quoted(n)))
            .collect();
        let table = source.table(&quoted("table \"of\" ž.all"));
        source.run(&format!("CREATE TABLE {table} ({})", columns.join(", ")));
        let ctx = session();
        source
            .create_with(&ctx, "t", &quoted("table \"of\" ž.all"), &[])
            .await
            .unwrap();
        let values: Vec<String> = names
            .iter()
            .map(|n| format!("'{}'", n.replace('\'', "''")))
            .collect();
        batches(
            &ctx,
            &format!("INSERT INTO t VALUES ({})", values.join(", ")),
        )
        .await;
        for name in names {
            let column = quoted(name);
            let value = name.replace('\'', "''");
            let sql = format!("SELECT {column} FROM t WHERE {column} = '{value}'");
            let found = batches(&ctx, &sql).await;
            assert_eq!(found[0].column(0).as_string_view().value(0), name);
        }
    }
}

#[tokio::test]
async fn a_table_without_columns_is_refused() {
    let Some(source) = Source::postgres("no_columns") else {
        return;
    };
    source.run("CREATE TABLE no_columns.t ()");
    let made = source.create_with(&session(), "t", "t", &[]).await;
    let said = made.unwrap_err().to_string();
    assert_has(&said, &["\"no_columns\".\"t\"", "without any"]);
}

#[tokio::test]
async fn staging_tables_of_dead_runs_are_removed_and_others_stay() {
    for source in Source::all("leftovers") {
        let [a, b, c, d] = ["a", "b", "c", "d"].map(|run| run.repeat(16));
        let now = std::time::SystemTime::now();
        let now = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let (old, fresh) = (now - 73 * 3600, now - 60);
        let dead = [
            format!("casebook_staging_{old}_{a}"),
            format!("casebook_staging_{old}_{c}"),
            format!("casebook_staging_{old}_{c}_{}", old + 30),
        ];
        let alive = [
            // It began long ago, and has given a sign of life since.
            format!("casebook_staging_{old}_{b}"),
            format!("casebook_staging_{old}_{b}_{fresh}"),
            format!("casebook_staging_{fresh}_{d}"),
            "casebook_staging_notes".to_owned(),
            "casebookxstaging_1_notes".to_owned(),
        ];
        for name in dead.iter().chain(&alive) {
            source.run(&format!("CREATE TABLE {} (n int)", source.table(name)));
        }
        source.run(&format!(
            "CREATE TABLE {} (id int, body text)",
            source.table("t")
        ));
        let ctx = session();
        // A dialect without temporary tables, as that of a system that is not known.
        let options = [("odbc.dialect", "standard")];
        source.create_with(&ctx, "t", "t", &options).await.unwrap();
        batches(&ctx, "INSERT INTO t VALUES (1, 'a'), (2, 'b')").await;
        let there = |name: &str| {
            let sql = match source.prefix.is_empty() {
                true => format!("SELECT count(*) FROM sqlite_master WHERE name = '{name}'"),
                false => format!(
                    "SELECT count(*) FROM pg_tables WHERE schemaname = 'leftovers' AND tablename \
                     = '{name}'"
                ),
            };
            source.value(&sql) == "1"
        };
        for name in &dead {
            assert!(!there(name), "{name} stayed");
        }
        for name in &alive {
            assert!(there(name), "{name} is gone");
        }
        let staging = match source.prefix.is_empty() {
            true => "SELECT count(*) FROM sqlite_master WHERE name LIKE 'casebook%'",
            false => {
                "SELECT count(*) FROM pg_tables WHERE schemaname = 'leftovers' AND tablename \
                      LIKE 'casebook%'"
            }
        };
        // The one of this INSERT is removed, too.
        assert_eq!(source.value(staging), alive.len().to_string());
        assert_eq!(one(&ctx, "SELECT count(*) FROM t").await, "2");
    }
}
