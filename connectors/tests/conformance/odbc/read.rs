//! What comes out of a table is what is in it: types, nulls, long texts, odd names.

use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::datatypes::{DataType, TimeUnit};

use super::{Source, batches, one, session, shown};

fn types(schema: &datafusion::common::DFSchema) -> Vec<(String, DataType)> {
    schema
        .fields()
        .iter()
        .map(|f| (f.name().clone(), f.data_type().clone()))
        .collect()
}

const MICROS: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

#[tokio::test]
async fn every_type_of_postgresql() {
    let Some(source) = Source::postgres("every_type") else {
        return;
    };
    source.run(
        "CREATE TABLE every_type.t (b bool, s smallint, i int, l bigint, r real, d double \
         precision, n numeric(10,2), u numeric, da date, ti time, ts timestamp, v varchar(20), \
         t text, by bytea, id uuid, j json)",
    );
    source.run(
        "INSERT INTO every_type.t VALUES (true, -1, 2, 9007199254740993, 1.5, 0.1, -12345678.91, \
         1234567890123456789012345.0123456789, '2026-01-31', '10:11:12.5', \
         '1969-12-31 23:59:59.999999', 'žluť', 'it''s \\ \"ok\" 🎉', '\\x00ff01', \
         'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{\"a\": 1}'), \
         (false, 32767, -2147483648, -9223372036854775808, 'NaN', 1e300, 0, 0, '0001-01-01', \
         '00:00', '9999-12-31 00:00:00', '', '', '', null, null)",
    );
    source.run("INSERT INTO every_type.t (t) VALUES (null)");
    let ctx = session();
    source.create(&ctx, "t").await;
    let frame = ctx.table("t").await.unwrap();
    let expected = [
        ("b", DataType::Boolean),
        ("s", DataType::Int16),
        ("i", DataType::Int32),
        ("l", DataType::Int64),
        ("r", DataType::Float32),
        ("d", DataType::Float64),
        ("n", DataType::Decimal128(10, 2)),
        ("u", DataType::Utf8View),
        ("da", DataType::Date32),
        ("ti", DataType::Utf8View),
        ("ts", MICROS),
        ("v", DataType::Utf8View),
        ("t", DataType::Utf8View),
        ("by", DataType::BinaryView),
        ("id", DataType::Utf8View),
        ("j", DataType::Utf8View),
    ];
    let expected: Vec<_> = expected
        .into_iter()
        .map(|(n, t)| (n.to_owned(), t))
        .collect();
    assert_eq!(types(frame.schema()), expected);
    let numbers = shown(&ctx, "SELECT b, s, i, l, r, d, n, u FROM t").await;
    assert_eq!(
        numbers,
        "\
+-------+-------+-------------+----------------------+-----+-------+--------------+--------------------------------------+
| b     | s     | i           | l                    | r   | d     | n            | u                                    |
+-------+-------+-------------+----------------------+-----+-------+--------------+--------------------------------------+
| true  | -1    | 2           | 9007199254740993     | 1.5 | 0.1   | -12345678.91 | 1234567890123456789012345.0123456789 |
| false | 32767 | -2147483648 | -9223372036854775808 | NaN | 1e300 | 0.00         | 0                                    |
|       |       |             |                      |     |       |              |                                      |
+-------+-------+-------------+----------------------+-----+-------+--------------+--------------------------------------+"
    );
    let texts = shown(&ctx, "SELECT da, ti, ts, v, t, by, id, j FROM t").await;
    let cells = |line: usize| -> Vec<String> {
        let line = texts.lines().nth(line).unwrap().trim_matches('|');
        line.split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    assert_eq!(
        cells(3),
        [
            "2026-01-31",
            "10:11:12.5",
            "1969-12-31T23:59:59.999999",
            "žluť",
            "it's \\ \"ok\" 🎉",
            "00ff01",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            "{\"a\": 1}"
        ]
    );
    assert_eq!(
        cells(4),
        [
            "0001-01-01",
            "00:00:00",
            "9999-12-31T00:00:00",
            "",
            "",
            "",
            "",
            ""
        ]
    );
    assert_eq!(cells(5), [""; 8]);
    let nulls = one(
        &ctx,
        "SELECT count(*) FROM t WHERE v = '' AND t = '' AND id IS NULL",
    )
    .await;
    assert_eq!(nulls, "1");
}

#[tokio::test]
async fn every_type_of_sqlite() {
    let Some(source) = Source::sqlite() else {
        return;
    };
    source.run(
        "CREATE TABLE t (b bool, i integer, l bigint, r real, n numeric(10,2), da date, ts \
         timestamp, v varchar(20), t text, by blob, x)",
    );
    source.run(
        "INSERT INTO t VALUES (1, 5000000000, -9223372036854775808, 1.5, 2.25, '2026-01-31', \
         '2026-01-31 10:11:12.123', 'longer than twenty characters žluť', 'it''s \\ \"ok\" 🎉', \
         x'00ff01', 7), (null, null, null, null, null, null, null, null, null, null, null)",
    );
    let ctx = session();
    source.create(&ctx, "t").await;
    let frame = ctx.table("t").await.unwrap();
    let found: Vec<_> = types(frame.schema()).into_iter().map(|(_, t)| t).collect();
    let text = DataType::Utf8View;
    assert_eq!(
        found,
        [
            DataType::Boolean,
            DataType::Int64,
            DataType::Int64,
            DataType::Float64,
            DataType::Float64,
            DataType::Date32,
            MICROS,
            text.clone(),
            text.clone(),
            DataType::BinaryView,
            text,
        ]
    );
    let table = shown(&ctx, "SELECT * FROM t").await;
    let row = table
        .lines()
        .nth(3)
        .unwrap()
        .split('|')
        .map(str::trim)
        .collect::<Vec<_>>();
    assert_eq!(
        row[1..12],
        [
            "true",
            "5000000000",
            "-9223372036854775808",
            "1.5",
            "2.25",
            "2026-01-31",
            "2026-01-31T10:11:12.123",
            "longer than twenty characters žluť",
            "it's \\ \"ok\" 🎉",
            "00ff01",
            "7"
        ]
    );
    source.run("INSERT INTO t (i) VALUES ('not a number')");
    let error = ctx
        .sql("SELECT i FROM t")
        .await
        .unwrap()
        .collect()
        .await
        .unwrap_err();
    assert!(error.to_string().contains("column i"), "{error}");
}

/// Five megabytes in which every part is different, so that a lost or moved piece shows.
fn long_text() -> String {
    let mut text = String::new();
    let mut n = 0;
    while text.len() < 5 << 20 {
        text.push_str(&format!("{n} 'žluť' 🎉 \\\n"));
        n += 1;
    }
    text
}

#[tokio::test]
async fn a_text_of_five_megabytes_is_whole() {
    let text = long_text();
    for source in Source::all("long_text") {
        let table = source.table("t");
        source.run(&format!(
            "CREATE TABLE {table} (id int, body text, tail text)"
        ));
        let quoted = text.replace('\'', "''");
        for id in 1..=2 {
            source.run(&format!(
                "INSERT INTO {table} VALUES ({id}, '{quoted}', 'after {id}')"
            ));
        }
        source.run(&format!("INSERT INTO {table} VALUES (3, 'short', null)"));
        let ctx = session();
        // A dialect whose texts come as UTF-16 is read whole, too.
        for (name, dialect) in [("t", None), ("t16", Some("standard"))] {
            let options: Vec<_> = dialect.map(|d| ("odbc.dialect", d)).into_iter().collect();
            source.create_with(&ctx, name, "t", &options).await.unwrap();
            let found = batches(&ctx, &format!("SELECT body, tail FROM {name} ORDER BY id")).await;
            let bodies: Vec<&str> = found
                .iter()
                .flat_map(|b| b.column(0).as_string_view().iter().flatten())
                .collect();
            assert_eq!(bodies.len(), 3);
            assert!(
                bodies[0] == text && bodies[1] == text,
                "{:?}",
                bodies[0].len()
            );
            assert_eq!(bodies[2], "short");
            let tails: Vec<_> = found
                .iter()
                .flat_map(|b| b.column(1).as_string_view().iter())
                .collect();
            assert_eq!(tails, [Some("after 1"), Some("after 2"), None]);
        }
    }
}

#[tokio::test]
async fn arrays_of_rows_and_single_rows_agree() {
    let Some(source) = Source::postgres("arrays") else {
        return;
    };
    source.run(
        "CREATE TABLE arrays.t AS SELECT g AS id, g::smallint AS s, g * 1.5::real AS r, (g % 7 = \
         0) AS b, DATE '2026-01-01' + g AS d, TIMESTAMP '2026-01-01' + g * INTERVAL '1 us' AS ts, \
         (CASE WHEN g % 5 > 0 THEN g / 8.0 END)::numeric(12,3) AS n, ('ž' || g)::varchar(20) AS v \
         FROM generate_series(1, 3000) g",
    );
    let ctx = session();
    let narrow = "id, s, r, b, d, ts, n";
    for (name, options) in [
        ("auto", &[][..]),
        ("rows", &[("odbc.fetch", "rows")]),
        // Widths of texts hold there, so these come in arrays, as UTF-16.
        ("wide", &[("odbc.dialect", "sql_server")]),
    ] {
        source.create_with(&ctx, name, "t", options).await.unwrap();
    }
    let rows = shown(&ctx, &format!("SELECT {narrow}, v FROM rows ORDER BY id")).await;
    assert_eq!(rows.lines().count(), 3004);
    let wide = shown(&ctx, &format!("SELECT {narrow}, v FROM wide ORDER BY id")).await;
    assert!(wide == rows, "{}", &wide[..2000]);
    let narrow_rows = shown(&ctx, &format!("SELECT {narrow} FROM rows ORDER BY id")).await;
    let arrays = shown(&ctx, &format!("SELECT {narrow} FROM auto ORDER BY id")).await;
    assert!(arrays == narrow_rows, "{}", &arrays[..2000]);
}

#[tokio::test]
async fn blocks_of_a_server_cursor_join_without_a_gap() {
    let Some(source) = Source::postgres("blocks") else {
        return;
    };
    // Short texts, long ones without warning, short ones again: blocks grow, shrink and grow.
    source.run(
        "CREATE TABLE blocks.t AS SELECT g AS id, repeat('ž', CASE WHEN g BETWEEN 900 AND 920 \
         THEN 500000 ELSE g % 50 END) || g AS body FROM generate_series(1, 3000) g",
    );
    let ctx = session();
    // Counts around the ends of the first blocks, and of none at all.
    for rows in [0, 1, 15, 16, 17, 47, 48, 49, 1000, 3000] {
        let view = format!("first_{rows}");
        source.run(&format!(
            "CREATE VIEW blocks.{view} AS SELECT * FROM blocks.t WHERE id <= {rows}"
        ));
        source.create(&ctx, &view).await;
        let sql = format!(
            "SELECT count(*), count(DISTINCT id), sum(length(body)), sum(CASE WHEN \
             body LIKE '%ž' || id OR body = id::text THEN 1 END) FROM {view}"
        );
        let there = source.value(&format!(
            "SELECT count(*) || ' ' || coalesce(sum(length(body)), 0) FROM blocks.{view}"
        ));
        let here = shown(&ctx, &sql).await;
        let cells: Vec<&str> = here
            .lines()
            .nth(3)
            .unwrap()
            .split('|')
            .map(str::trim)
            .collect();
        let length = if rows == 0 { "0" } else { cells[3] };
        assert_eq!(format!("{} {length}", cells[1]), there, "{here}");
        assert_eq!(cells[1], cells[2]);
        assert!(rows == 0 || cells[4] == cells[1], "{here}");
    }
}

#[tokio::test]
async fn an_empty_table_keeps_its_columns() {
    for source in Source::all("empty") {
        source.run(&format!(
            "CREATE TABLE {} (id bigint, body text)",
            source.table("t")
        ));
        let ctx = session();
        source.create(&ctx, "t").await;
        let frame = ctx.table("t").await.unwrap();
        assert_eq!(frame.schema().fields().len(), 2);
        assert_eq!(
            frame
                .collect()
                .await
                .unwrap()
                .iter()
                .map(|b| b.num_rows())
                .sum::<usize>(),
            0
        );
        assert_eq!(one(&ctx, "SELECT count(*) FROM t").await, "0");
    }
}

#[tokio::test]
async fn rows_that_nobody_wants_are_not_asked_for() {
    let Some(source) = Source::postgres("wanted") else {
        return;
    };
    source.run("CREATE SEQUENCE wanted.asked");
    // Every row that the server makes is counted.
    source.run(
        "CREATE VIEW wanted.v AS SELECT nextval('wanted.asked') AS n, 'text ' || g AS body FROM \
         generate_series(1, 100000) g",
    );
    let ctx = session();
    source.create(&ctx, "v").await;
    for columns in ["n", "n, body"] {
        source.run("SELECT setval('wanted.asked', 1)");
        // The filter stays here, and so does the LIMIT.
        let sql = format!("SELECT {columns} FROM v WHERE upper(body) LIKE 'TEXT%' LIMIT 300");
        assert_eq!(shown(&ctx, &sql).await.lines().count(), 300 + 4);
        let asked: u64 = source
            .value("SELECT last_value FROM wanted.asked")
            .parse()
            .unwrap();
        // Batches of 256 rows, of which the second is the last; some are under way.
        assert!((300..=8 * 256).contains(&asked), "{columns}: {asked}");
    }
}

#[tokio::test]
async fn odd_names_are_names() {
    for mut source in Source::all("odd_names") {
        let table = match source.prefix.is_empty() {
            true => "\"t.a\"\"b ž\"".to_owned(),
            false => {
                source.run("DROP SCHEMA IF EXISTS \"s.x\"\"y ž\" CASCADE");
                source.run("CREATE SCHEMA \"s.x\"\"y ž\"");
                source.prefix.clear();
                "\"s.x\"\"y ž\".\"t.a\"\"b ž\"".to_owned()
            }
        };
        source.run(&format!(
            "CREATE TABLE {table} (\"I d\" int, \"te\"\"xt ž'\" text, \"SELECT\" text)"
        ));
        source.run(&format!(
            "INSERT INTO {table} VALUES (1, 'a''b', 'x'), (2, 'c', 'y')"
        ));
        let ctx = session();
        source.create_with(&ctx, "t", &table, &[]).await.unwrap();
        let sql = "SELECT \"te\"\"xt ž'\", \"SELECT\" FROM t WHERE \"I d\" = 1 AND \"te\"\"xt ž'\" = 'a''b'";
        let found = shown(&ctx, sql).await;
        assert!(found.contains("| a'b      | x      |"), "{found}");
        let found = batches(&ctx, "SELECT \"SELECT\" FROM t ORDER BY \"I d\" DESC").await;
        assert_eq!(found[0].column(0).as_string_view().value(0), "y");
        assert_eq!(found[0].column(0).len(), 2);
    }
}
