//! Reading from fakesnow: types, names, long texts, the connection check.

use casebook_connectors::{CONNECTORS, CheckRequest, ErrorKind};
use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::datatypes::DataType;

use super::{Admin, run, service, shown, table};

#[tokio::test]
async fn every_type_is_read() {
    let Some(url) = service() else { return };
    let admin = Admin::new(&url, "TYPES").await;
    let made = "CREATE OR REPLACE TABLE TYPES.PUBLIC.ALL_OF_THEM (ID INTEGER, N NUMBER(9,0), \
                M NUMBER(10,2), T VARCHAR, F FLOAT, B BOOLEAN, D DATE, TS TIMESTAMP_NTZ, \
                TZ TIMESTAMP_TZ, TM TIME, V VARIANT, X BINARY, \"Odd \"\"name\" VARCHAR)";
    admin.run(made).await;
    admin
        .run(
            "INSERT INTO TYPES.PUBLIC.ALL_OF_THEM SELECT 1, 2, 3.45, 'é''\\\\ \"q\"', 1.5, true, \
             '2020-02-29', '2020-01-02 03:04:05.678', '2020-01-02 03:04:05.678', '01:02:03', \
             parse_json('{\"a\":1}'), to_binary('ff00', 'hex'), 'x'",
        )
        .await;
    admin
        .run("INSERT INTO TYPES.PUBLIC.ALL_OF_THEM (ID) VALUES (2)")
        .await;
    let ctx = table(&url, "", "types.public.all_of_them", "")
        .await
        .unwrap();
    let batches = run(&ctx, "SELECT * FROM t ORDER BY id").await.unwrap();
    let types: Vec<String> = batches[0]
        .schema()
        .fields()
        .iter()
        .map(|f| format!("{} {}", f.name(), f.data_type()))
        .collect();
    assert_eq!(
        types,
        [
            "id Decimal128(38, 0)",
            "n Int64",
            "m Decimal128(10, 2)",
            "t Utf8View",
            "f Float64",
            "b Boolean",
            "d Date32",
            "ts Timestamp(ns)",
            "tz Timestamp(ns, \"UTC\")",
            "tm Time64(ns)",
            "v Utf8View",
            "x Binary",
            "Odd \"name Utf8View",
        ]
    );
    let row = shown(&[batches[0].slice(0, 1)]);
    for part in [
        "| 1  | 2 | 3.45 | é'\\ \"q\" | 1.5 | true | 2020-02-29 | 2020-01-02T03:04:05.678 |",
        "01:02:03",
        "ff00",
    ] {
        assert!(row.contains(part), "{row}");
    }
    for column in &batches[0].columns()[1..] {
        assert!(column.is_null(1));
    }
    // A column list chooses columns and types.
    let ctx = table(
        &url,
        "(id BIGINT, t VARCHAR)",
        "TYPES.PUBLIC.ALL_OF_THEM",
        "",
    )
    .await
    .unwrap();
    let batches = run(&ctx, "SELECT * FROM t WHERE id = 1").await.unwrap();
    assert_eq!(batches[0].schema().field(0).data_type(), &DataType::Int64);
    assert_eq!(batches[0].num_columns(), 2);
}

#[tokio::test]
async fn names_are_found_as_written_or_in_upper_case() {
    let Some(url) = service() else { return };
    let admin = Admin::new(&url, "NAMES").await;
    admin.run("CREATE OR REPLACE TABLE NAMES.PUBLIC.\"naïve table.x\" (\"Ü col\" VARCHAR, \"a\"\"b\" INTEGER)").await;
    admin
        .run("INSERT INTO NAMES.PUBLIC.\"naïve table.x\" VALUES ('ß', 1)")
        .await;
    let ctx = table(&url, "", "NAMES.PUBLIC.\"naïve table.x\"", "")
        .await
        .unwrap();
    let rows = run(&ctx, "SELECT \"a\"\"b\" FROM t WHERE \"Ü col\" = 'ß'")
        .await
        .unwrap();
    assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 1);
    let wrong = table(&url, "", "names.public.nothing", "")
        .await
        .err()
        .unwrap();
    let text = wrong.to_string();
    assert!(text.contains("\"NAMES\".\"PUBLIC\".\"NOTHING\""), "{text}");
    assert!(text.contains("table.create"), "{text}");
    let wrong = table(&url, "(nope VARCHAR)", "NAMES.PUBLIC.\"naïve table.x\"", "").await;
    assert!(wrong.err().unwrap().to_string().contains("nope"));
    let wrong = run(&ctx, "SELECT nope FROM t")
        .await
        .unwrap_err()
        .to_string();
    assert!(wrong.contains("nope"), "{wrong}");
}

#[tokio::test]
async fn long_texts_are_whole() {
    let Some(url) = service() else { return };
    let admin = Admin::new(&url, "LONG").await;
    admin
        .run("CREATE OR REPLACE TABLE LONG.PUBLIC.L (N NUMBER(9,0), T VARCHAR)")
        .await;
    admin
        .run("INSERT INTO LONG.PUBLIC.L SELECT 1, repeat('é0123456789', 500000)")
        .await;
    let ctx = table(&url, "", "LONG.PUBLIC.L", "").await.unwrap();
    let rows = run(&ctx, "SELECT t FROM t").await.unwrap();
    assert_eq!(
        rows[0].column(0).as_string_view().value(0),
        "é0123456789".repeat(500_000)
    );
    // And back: larger than one INSERT's bound.
    run(&ctx, "INSERT INTO t SELECT n + 1, t FROM t")
        .await
        .unwrap();
    let rows = run(&ctx, "SELECT t FROM t WHERE n = 2").await.unwrap();
    assert_eq!(rows[0].column(0).as_string_view().value(0).len(), 6_000_000);
}

#[tokio::test]
async fn the_check_goes_step_by_step() {
    let Some(url) = service() else { return };
    let admin = Admin::new(&url, "CHECKED").await;
    admin
        .run("CREATE OR REPLACE TABLE CHECKED.PUBLIC.C (N NUMBER(9,0))")
        .await;
    let connector = CONNECTORS.iter().find(|c| c.name == "SNOWFLAKE").unwrap();
    let check = async |location: &str| {
        let given = [
            ("snowflake.account", "acct"),
            ("snowflake.host", url.as_str()),
            ("snowflake.allow_http", "true"),
            ("snowflake.user", "me"),
            ("snowflake.password", "hunter2"),
        ];
        connector
            .check(CheckRequest {
                location: location.into(),
                options: given.map(|(k, v)| (k.into(), v.into())).into(),
                write: true,
            })
            .await
    };
    let steps = check("CHECKED.PUBLIC.C").await;
    let names: Vec<&str> = steps.iter().map(|s| s.name).collect();
    assert_eq!(
        names,
        ["options", "reach", "sign in", "read", "write"],
        "{steps:?}"
    );
    assert!(steps.iter().all(|s| s.result.is_ok()), "{steps:?}");
    let steps = check("CHECKED.PUBLIC.NOTHING").await;
    let last = steps.last().unwrap();
    assert_eq!(last.name, "read");
    assert_eq!(
        last.result.as_ref().unwrap_err().kind(),
        ErrorKind::NotFound
    );
}
