//! A value that its column does not hold exactly is an error that names row, column and value,
//! whatever the target and however the rows come: never rounded, cut or NULL.

use casebook_connectors::{ConnectorOptions, register};
use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::prelude::{SessionConfig, SessionContext};

use crate::files::place::{ask, number, rows};

const FORMATS: [&str; 4] = ["CSV", "JSON", "PARQUET", "DELTA"];

/// A column's type; what goes in, with the text that comes out; what is refused.
type Case = (
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static [&'static str],
);

const CASES: &[Case] = &[
    (
        "INT",
        &[
            ("CAST(7 AS BIGINT)", "7"),
            ("CAST(-7 AS SMALLINT)", "-7"),
            ("'7'", "7"),
            ("2.0", "2"),
            ("-0.0", "0"),
            ("CAST(3 AS DECIMAL(10, 2))", "3"),
            ("round(1.7)", "2"),
            ("NULL", ""),
        ],
        &[
            "1.7",
            "true",
            "3000000000",
            "'abc'",
            "'1.7'",
            "''",
            "CAST(1.5 AS DECIMAL(3, 1))",
            "TIMESTAMP '2026-01-02T00:00:00'",
            "DATE '2026-01-02'",
            "CAST('NaN' AS DOUBLE)",
            "arrow_cast(5, 'Duration(s)')",
        ],
    ),
    (
        "BIGINT",
        &[
            ("9007199254740993", "9007199254740993"),
            ("9007199254740992.0", "9007199254740992"),
            ("CAST(5 AS INT)", "5"),
        ],
        &["1e300", "0.5", "false", "9223372036854775808", "now()"],
    ),
    (
        "DOUBLE",
        &[
            ("9007199254740992", "9007199254740992.0"),
            ("9007199254740994", "9007199254740994.0"),
            ("0.1", "0.1"),
            ("'0.10'", "0.1"),
            ("'1e3'", "1000.0"),
            ("CAST(0.1 AS DECIMAL(3, 1))", "0.1"),
            ("CAST(0.5 AS REAL)", "0.5"),
        ],
        &[
            "9007199254740993",
            "'9007199254740993'",
            "9223372036854775807",
            "'0.1000000000000000000001'",
            "true",
            "CAST('123456789012345678901' AS DECIMAL(38, 0))",
            "CAST('0.12345678901234567890' AS DECIMAL(38, 20))",
            "'1e400'",
        ],
    ),
    (
        "REAL",
        &[
            ("0.1", "0.1"),
            ("16777216", "16777216.0"),
            ("'0.5'", "0.5"),
            ("CAST(0.1 AS DECIMAL(3, 1))", "0.1"),
        ],
        &["16777217", "0.123456789", "1e300", "'16777217'"],
    ),
    (
        "DECIMAL(4, 1)",
        &[
            ("1.2", "1.2"),
            ("'1.20'", "1.2"),
            ("5", "5.0"),
            ("CAST(1.2 AS DECIMAL(9, 4))", "1.2"),
            ("CAST(-0.5 AS REAL)", "-0.5"),
        ],
        &[
            "1.26",
            "'1.26'",
            "12345",
            "CAST(1.26 AS DECIMAL(9, 4))",
            "true",
            "'x'",
        ],
    ),
    (
        "DECIMAL(38, 10)",
        &[
            (
                "CAST('1234567890123456789012345678.0123456789' AS DECIMAL(38, 10))",
                "1234567890123456789012345678.0123456789",
            ),
            ("'0.0000000001'", "0.0000000001"),
        ],
        &["'0.00000000001'", "0.00000000001"],
    ),
    (
        "DATE",
        &[
            ("DATE '1969-12-31'", "1969-12-31"),
            ("TIMESTAMP '2026-01-02T00:00:00'", "2026-01-02"),
            ("'2026-01-02'", "2026-01-02"),
            ("'2026-01-02T00:00:00Z'", "2026-01-02"),
        ],
        &[
            "TIMESTAMP '2026-01-02T03:04:05'",
            "TIMESTAMP '1969-12-31T23:59:59'",
            "'2026-01-02T03:04:05'",
            "'2026-01-02T00:00:00+02:00'",
            "'soon'",
            "20260102",
        ],
    ),
    (
        "TIMESTAMP(6)",
        &[
            ("DATE '2026-01-02'", "2026-01-02T00:00:00"),
            ("'2026-01-02T03:04:05.123456'", "2026-01-02T03:04:05.123456"),
            (
                "'2026-01-02T03:04:05.1234560'",
                "2026-01-02T03:04:05.123456",
            ),
            (
                "arrow_cast('9999-12-31T00:00:00', 'Timestamp(us)')",
                "9999-12-31T00:00:00",
            ),
            (
                "arrow_cast('1969-12-31T23:59:59.000001', 'Timestamp(ns)')",
                "1969-12-31T23:59:59.000001",
            ),
            (
                "arrow_cast('2026-01-02T03:04:05', 'Timestamp(s)')",
                "2026-01-02T03:04:05",
            ),
        ],
        &[
            "arrow_cast('2026-01-02T03:04:05.123456789', 'Timestamp(ns)')",
            "'2026-01-02T03:04:05.1234567'",
            "'2026-01-02T03:04:05+02:00'",
            "arrow_cast('2026-01-02T03:04:05', 'Timestamp(us, \"+02:00\")')",
            "'2026-13-01'",
            "5",
        ],
    ),
    (
        "VARCHAR",
        &[
            ("1.5", "1.5"),
            ("true", "true"),
            ("DATE '2026-01-02'", "2026-01-02"),
            ("9007199254740993", "9007199254740993"),
        ],
        &["make_array(1, 2)"],
    ),
    (
        "BOOLEAN",
        &[("true", "true"), ("'false'", "false")],
        &["1", "0.0", "'maybe'"],
    ),
];

fn session() -> SessionContext {
    // Rows are counted as they arrive, which two partitions would leave to chance.
    let ctx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    register(&ctx, &ConnectorOptions::default()).unwrap();
    ctx
}

/// A table `t` of rows with an id and an `x`.
async fn table(format: &str, kind: &str, at: &std::path::Path) -> SessionContext {
    let ctx = session();
    let sql = format!(
        "CREATE EXTERNAL TABLE t (id BIGINT, x {kind}) STORED AS {format} LOCATION '{}/'",
        at.display()
    );
    rows(&ctx, &sql).await.unwrap();
    ctx
}

/// The `x` of the row `id`.
async fn held(ctx: &SessionContext, id: usize) -> String {
    let sql = format!("SELECT arrow_cast(x, 'Utf8') FROM t WHERE id = {id}");
    let shown = ask(ctx, &sql).await.unwrap();
    let line = shown.lines().nth(3).unwrap();
    line.trim_matches(['|', ' ']).to_owned()
}

fn named(error: &str, row: usize) -> bool {
    error.contains(&format!("row {row} of the INSERT has '"))
        && error.contains("in column x, which is ")
        && error.contains("nothing was written")
        && !error.contains("simplify_expressions")
}

#[tokio::test]
async fn every_sink_holds_each_value_exactly_or_names_it() {
    for format in FORMATS {
        for (kind, fine, refused) in CASES {
            let folder = tempfile::tempdir().unwrap();
            let ctx = table(format, kind, folder.path()).await;
            let mut id = 0;
            for (given, out) in *fine {
                for insert in [
                    format!("INSERT INTO t SELECT {id}, {given}"),
                    format!("INSERT INTO t VALUES ({}, {given})", id + 1),
                    format!("INSERT INTO t (x, id) SELECT {given}, {}", id + 2),
                ] {
                    let added = rows(&ctx, &insert).await;
                    added.unwrap_or_else(|e| panic!("{format}: {insert} into {kind}: {e}"));
                    assert_eq!(held(&ctx, id).await, *out, "{format}: {insert} into {kind}");
                    id += 1;
                }
            }
            for given in *refused {
                let select = format!("INSERT INTO t SELECT -1, {given}");
                let error = rows(&ctx, &select).await.expect_err(&select);
                // A type none of whose values fits is refused before a row is made.
                let before = error.contains("column x of the table is ") && error.contains("CAST")
                    || error.contains("Cannot automatically convert");
                assert!(named(&error, 1) || before, "{format}: {select}: {error}");
                let values = format!("INSERT INTO t VALUES (-1, NULL), (-1, {given})");
                let error = rows(&ctx, &values).await.expect_err(&values);
                let before = error.contains("no valid cast exists")
                    || error.contains("Cannot automatically convert");
                assert!(named(&error, 2) || before, "{format}: {values}: {error}");
            }
            let unwanted = "SELECT count(*) FROM t WHERE id < 0";
            assert_eq!(number(&ctx, unwanted).await, 0, "{format} {kind}");
        }
    }
}

#[tokio::test]
async fn what_a_user_casts_is_his_decision() {
    for format in FORMATS {
        let folder = tempfile::tempdir().unwrap();
        let ctx = table(format, "INT", folder.path()).await;
        for (id, (given, out)) in [
            ("CAST(1.7 AS INT)", "1"),
            ("CAST(v AS INT) FROM (SELECT 1.7 AS v)", "1"),
            ("CAST(true AS INT)", "1"),
            ("round(v) FROM (SELECT 1.7 AS v)", "2"),
        ]
        .into_iter()
        .enumerate()
        {
            ask(&ctx, &format!("INSERT INTO t SELECT {id}, {given}"))
                .await
                .unwrap();
            assert_eq!(held(&ctx, id).await, out, "{format}: {given}");
        }
        // The planner casts such a list before it is rounded, without a word.
        let nested = "INSERT INTO t SELECT id, round(v) FROM (VALUES (9, 1.7)) AS l(id, v)";
        let error = rows(&ctx, nested).await.unwrap_err();
        assert!(error.contains("has '1.7'"), "{error}");
    }
}

#[tokio::test]
async fn the_row_is_counted_over_all_batches() {
    for format in FORMATS {
        let folder = tempfile::tempdir().unwrap();
        let ctx = table(format, "INT", folder.path()).await;
        let insert = "INSERT INTO t SELECT value, CASE WHEN value = 20000 THEN '1.5' ELSE '2' END \
                      FROM generate_series(1, 30000)";
        let error = rows(&ctx, insert).await.unwrap_err();
        assert!(
            named(&error, 20000) && error.contains("'1.5'"),
            "{format}: {error}"
        );
        assert_eq!(number(&ctx, "SELECT count(*) FROM t").await, 0);
    }
}

#[tokio::test]
async fn rows_of_a_program_are_looked_at_as_those_of_sql() {
    for format in FORMATS {
        let folder = tempfile::tempdir().unwrap();
        let ctx = table(format, "INT", folder.path()).await;
        let write = async |sql: &str| {
            let frame = ctx.sql(sql).await.unwrap();
            let written = frame.write_table("t", DataFrameWriteOptions::new()).await;
            written.map(drop).map_err(|e| e.to_string())
        };
        write("SELECT 1 AS id, '7' AS x").await.unwrap();
        assert_eq!(held(&ctx, 1).await, "7");
        let error = write("SELECT 1 AS id, v AS x FROM (VALUES (2.0), (1.7)) AS l(v)").await;
        let error = error.unwrap_err();
        assert!(
            named(&error, 2) && error.contains("'1.7'"),
            "{format}: {error}"
        );
        let error = write("SELECT 1 AS id, true AS x").await.unwrap_err();
        assert!(
            error.contains("column x of the table is Int32"),
            "{format}: {error}"
        );
        assert_eq!(number(&ctx, "SELECT count(*) FROM t").await, 1);
    }
}

#[tokio::test]
async fn a_moment_beyond_the_years_of_nanoseconds_names_the_type_that_holds_it() {
    for format in ["CSV", "JSON", "PARQUET"] {
        let folder = tempfile::tempdir().unwrap();
        let ctx = table(format, "TIMESTAMP", folder.path()).await;
        let late = "INSERT INTO t SELECT 1, arrow_cast('9999-12-31T00:00:00', 'Timestamp(us)')";
        let error = rows(&ctx, late).await.unwrap_err();
        assert!(
            named(&error, 1) && error.contains("TIMESTAMP(6)"),
            "{format}: {error}"
        );
    }
    // Delta has microseconds whatever the statement says.
    let folder = tempfile::tempdir().unwrap();
    let ctx = table("DELTA", "TIMESTAMP", folder.path()).await;
    let late = "INSERT INTO t SELECT 1, arrow_cast('9999-12-31T00:00:00', 'Timestamp(us)')";
    rows(&ctx, late).await.unwrap();
    assert_eq!(held(&ctx, 1).await, "9999-12-31T00:00:00");
}

#[tokio::test]
async fn a_column_that_is_not_null_names_the_row_without_a_value() {
    for format in FORMATS {
        let folder = tempfile::tempdir().unwrap();
        let ctx = table(format, "INT NOT NULL", folder.path()).await;
        let error = rows(&ctx, "INSERT INTO t VALUES (1, 2), (2, NULL)").await;
        let error = error.unwrap_err();
        assert!(
            error.contains("row 2 of the INSERT has no x"),
            "{format}: {error}"
        );
    }
}

/// Fields go by their names, in whatever order they are given.
#[tokio::test]
async fn a_struct_is_taken_by_the_names_of_its_fields() {
    for format in ["JSON", "PARQUET", "DELTA"] {
        let folder = tempfile::tempdir().unwrap();
        let ctx = table(format, "STRUCT<a DOUBLE, b BIGINT>", folder.path()).await;
        let lists = tempfile::tempdir().unwrap();
        let many = format!(
            "CREATE EXTERNAL TABLE many (id BIGINT, x STRUCT<a DOUBLE, b BIGINT>[]) STORED AS \
             {format} LOCATION '{}/'",
            lists.path().display()
        );
        rows(&ctx, &many).await.unwrap();
        let given = "SELECT 1 AS id, named_struct('b', 7, 'a', 0.5) AS s";
        for insert in [
            format!("INSERT INTO t SELECT id, s FROM ({given})"),
            "INSERT INTO t SELECT 2, named_struct('b', 7, 'a', 0.5)".to_owned(),
            "INSERT INTO t SELECT 3, named_struct('a', 0.5, 'b', 7.0)".to_owned(),
            "INSERT INTO t SELECT 4, struct(0.5, 7)".to_owned(),
            format!("INSERT INTO many SELECT id, make_array(s) FROM ({given})"),
        ] {
            let added = rows(&ctx, &insert).await;
            added.unwrap_or_else(|e| panic!("{format}: {insert}: {e}"));
        }
        let whole = "SELECT count(*) FROM t WHERE x['a'] = 0.5 AND x['b'] = 7";
        assert_eq!(number(&ctx, whole).await, 4, "{format}");
        let whole = "SELECT count(*) FROM many WHERE x[1]['a'] = 0.5 AND x[1]['b'] = 7";
        assert_eq!(number(&ctx, whole).await, 1, "{format}");
        for given in [
            "named_struct('b', 1.5, 'a', 3)",
            "named_struct('a', 3.0, 'b', 1.5)",
            "named_struct('b', 1, 'c', 2)",
            "named_struct('a', 1)",
            "named_struct('a', 1, 'b', 2, 'c', 3)",
        ] {
            for insert in [
                format!("INSERT INTO t SELECT -1, {given}"),
                format!("INSERT INTO t SELECT -1, s FROM (SELECT {given} AS s)"),
            ] {
                let error = rows(&ctx, &insert).await.expect_err(&insert);
                assert!(
                    error.contains("column x") || error.contains("ast"),
                    "{insert}: {error}"
                );
            }
        }
        assert_eq!(number(&ctx, "SELECT count(*) FROM t").await, 4, "{format}");
    }
}

#[tokio::test]
async fn the_present_fits_into_microseconds() {
    for format in FORMATS {
        let folder = tempfile::tempdir().unwrap();
        let ctx = table(format, "TIMESTAMP(6)", folder.path()).await;
        for insert in [
            "INSERT INTO t SELECT 1, now()",
            "INSERT INTO t VALUES (2, now())",
            "INSERT INTO t SELECT id, r FROM (SELECT 3 AS id, current_timestamp() AS r)",
            "INSERT INTO t (x, id) VALUES (now() + INTERVAL '1 day', 4)",
        ] {
            for _ in 0..3 {
                let added = rows(&ctx, insert).await;
                added.unwrap_or_else(|e| panic!("{format}: {insert}: {e}"));
            }
        }
        assert_eq!(
            number(&ctx, "SELECT count(*) FROM t WHERE x > '2020-01-01'").await,
            12
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let ctx = table("DELTA", "TIMESTAMP", folder.path()).await;
    rows(&ctx, "INSERT INTO t SELECT 1, now()").await.unwrap();
    let seconds = tempfile::tempdir().unwrap();
    let ctx = table("PARQUET", "TIMESTAMP(0)", seconds.path()).await;
    let fine = "TIMESTAMP '2026-01-02T03:04:05.5'";
    let error = rows(&ctx, &format!("INSERT INTO t SELECT 1, {fine}"))
        .await
        .unwrap_err();
    assert!(error.contains("date_trunc('second', ...)"), "{error}");
    let advised = format!("INSERT INTO t SELECT 1, date_trunc('second', {fine})");
    rows(&ctx, &advised).await.unwrap();
}

#[tokio::test]
async fn a_moment_with_a_zone_stays_one_in_delta() {
    let config = SessionConfig::new().set_str("datafusion.execution.time_zone", "+00:00");
    let ctx = SessionContext::new_with_config(config);
    register(&ctx, &ConnectorOptions::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let create = format!(
        "CREATE EXTERNAL TABLE t (id BIGINT, x TIMESTAMP WITH TIME ZONE, y TIMESTAMP) STORED AS DELTA \
         LOCATION '{}/'",
        folder.path().display()
    );
    rows(&ctx, &create).await.unwrap();
    rows(&ctx, "INSERT INTO t VALUES (1, now(), now())")
        .await
        .unwrap();
    let types = "SELECT arrow_typeof(x), arrow_typeof(y) FROM t";
    let types = ask(&ctx, types).await.unwrap();
    assert!(
        types.contains("\"UTC\"") && types.contains("Timestamp(µs)"),
        "{types}"
    );
}
