//! A server, or what stands in its place, that says what is not so: the right rows or an error.

use casebook_connectors::{Error, ErrorKind};
use datafusion::arrow::array::{ArrayRef, AsArray, Int32Array, StringArray};
use datafusion::arrow::datatypes::Int64Type;

use super::*;
use crate::fake::databricks::Fault;
use crate::fake::proxy::Proxy;
use crate::fake::tls::Tls;

/// A view of 500 rows in five chunks.
async fn view() -> (Arc<Fake>, SessionContext) {
    let fake = Fake::start().await;
    fake.add_rows("cases", cases(500));
    fake.set(|inner| inner.rows_per_chunk = 100);
    let ctx = session();
    create(&ctx, &fake, "cases", &[("databricks.read", "warehouse")])
        .await
        .unwrap();
    (fake, ctx)
}

fn kind(error: &(dyn std::error::Error + 'static)) -> Option<ErrorKind> {
    match error.downcast_ref::<Error>() {
        Some(own) => Some(own.kind()),
        None => error.source().and_then(kind),
    }
}

/// The error of reading all rows.
async fn refused(ctx: &SessionContext, expected: ErrorKind, parts: &[&str]) {
    for sql in ["SELECT * FROM cases", "SELECT count(*) FROM cases"] {
        let error = query(ctx, sql).await.unwrap_err();
        assert_has(&message(&error), &["main.legal.cases"]);
        assert_has(&message(&error), parts);
        assert_eq!(kind(&error), Some(expected), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_that_do_not_go_together_are_refused() {
    let (fake, ctx) = view().await;
    let chunk = |i: u32, rows: u32| json!({"chunk_index": i, "row_count": rows});
    for (said, part) in [
        (Some(json!({"total_row_count": 501})), "announced 501"),
        (Some(json!({"total_row_count": 499})), "announced 499"),
        // A chunk too few, and nothing that says so but the list.
        (
            Some(json!({"total_chunk_count": 4, "total_row_count": null})),
            "chunk 4 is listed",
        ),
        (
            Some(json!({"total_chunk_count": 0, "chunks": null})),
            "rows but no chunks",
        ),
        (
            Some(json!({"total_chunk_count": null, "chunks": null, "total_row_count": null})),
            "links but no chunks",
        ),
        (None, "links but no chunks"),
        (Some(json!({"chunks": [chunk(0, 99)]})), "announced 99"),
        (
            Some(json!({"chunks": [chunk(7, 100)]})),
            "chunk 7 is listed",
        ),
    ] {
        fake.set(|inner| inner.manifest = Some(said));
        refused(&ctx, ErrorKind::Corrupt, &[part]).await;
    }
    // What only leaves things out is no lie.
    for said in [
        json!({"chunks": null}),
        json!({"total_chunk_count": null}),
        json!({"total_row_count": null}),
        json!({"chunks": [chunk(4, 100), chunk(0, 100)]}),
    ] {
        fake.set(|inner| inner.manifest = Some(Some(said)));
        assert_has(&shown(&ctx, "SELECT sum(id) FROM cases").await, &["124750"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_leads_to_another_chunk_is_noticed() {
    let (fake, ctx) = view().await;
    // The chunks are alike in all that was announced.
    fake.set(|inner| inner.same_link = Some(3));
    refused(
        &ctx,
        ErrorKind::Corrupt,
        &["downloading chunk", "the server gave the link of chunk"],
    )
    .await;
}

fn with_id(batch: &RecordBatch, id: ArrayRef) -> RecordBatch {
    let text = Arc::clone(batch.column(1));
    RecordBatch::try_from_iter_with_nullable([("id", id, true), ("text", text, true)]).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn types_may_change_between_chunks_and_values_may_not() {
    let (fake, ctx) = view().await;
    fake.set(|inner| {
        inner.chunk = Some(|number, batch| {
            let ids = batch.column(0).as_primitive::<Int64Type>();
            match number {
                1 => with_id(
                    &batch,
                    Arc::new(Int32Array::from_iter(
                        ids.iter().map(|v| v.map(|v| v as i32)),
                    )),
                ),
                2 => with_id(
                    &batch,
                    Arc::new(StringArray::from_iter(
                        ids.iter().map(|v| v.map(|v| v.to_string())),
                    )),
                ),
                _ => batch,
            }
        });
    });
    let all = query(&ctx, "SELECT * FROM cases").await.unwrap();
    let all = datafusion::arrow::compute::concat_batches(&cases(0).schema(), &all).unwrap();
    assert_eq!(all, cases(500));
    // Row 205 of the result has a text that is no number.
    fake.set(|inner| {
        inner.chunk = Some(|number, batch| match number {
            2 => {
                let texts = (200..300).map(|v| match v {
                    204 => "20A".to_owned(),
                    v => v.to_string(),
                });
                with_id(&batch, Arc::new(StringArray::from_iter_values(texts)))
            }
            _ => batch,
        });
    });
    let error = query(&ctx, "SELECT * FROM cases").await.unwrap_err();
    assert_has(
        &message(&error),
        &["main.legal.cases", "column id", "row 205", "'20A'"],
    );
    // A column too few.
    fake.set(|inner| inner.chunk = Some(|_, batch| batch.project(&[1]).unwrap()));
    let error = query(&ctx, "SELECT * FROM cases").await.unwrap_err();
    assert_has(&message(&error), &["1 columns, not 2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_for_people_is_no_answer() {
    for at in [
        "POST /api/2.0/sql/statements",
        "GET /storage",
        "/result/chunks/3",
    ] {
        let (fake, ctx) = view().await;
        for _ in 0..20 {
            fake.fail(at, Fault::Page);
        }
        let error = query(&ctx, "SELECT * FROM cases").await.unwrap_err();
        assert_has(&message(&error), &["main.legal.cases"]);
        assert_eq!(kind(&error), Some(ErrorKind::Corrupt), "{at}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_goes_to_nobody_else() {
    let other = Fake::start().await;
    for at in [
        "POST /api/2.0/sql/statements",
        "GET /storage",
        "unity-catalog/tables",
    ] {
        let fake = Fake::start().await;
        fake.add_rows("cases", cases(500));
        for _ in 0..20 {
            fake.fail(
                at,
                Fault::Moved(format!("{}/api/2.0/sql/statements", other.url)),
            );
        }
        let ctx = session();
        let options = [("databricks.read", "warehouse")];
        let read = match create(&ctx, &fake, "cases", &options).await {
            Ok(()) => query(&ctx, "SELECT * FROM cases").await.map(drop),
            Err(error) => Err(error),
        };
        message(&read.unwrap_err());
    }
    assert_eq!(
        other.get(|inner| inner.requests.clone()),
        Vec::<String>::new()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_refusal_is_cut() {
    let (fake, ctx) = view().await;
    fake.fail("POST /api/2.0/sql/statements", Fault::Long(400, 100 << 20));
    let error = query(&ctx, "SELECT * FROM cases").await.unwrap_err();
    assert!(message(&error).len() < 4000, "{}", error.to_string().len());
    // And what a statement that failed says.
    fake.set(|inner| {
        let says = json!({"error_code": "BAD_REQUEST", "message": "no ".repeat(10 << 20)});
        inner.failing = Some(("SELECT".into(), says));
    });
    let error = query(&ctx, "SELECT * FROM cases").await.unwrap_err();
    assert!(message(&error).len() < 4000, "{}", error.to_string().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_of_ones_own_is_trusted_when_it_is_named() {
    let fake = Fake::start().await;
    fake.add_rows("cases", cases(10));
    let tls = Tls::before(&fake.url).await;
    let (ca, other) = (
        tls.ca_file.display().to_string(),
        tls.other_ca_file.display().to_string(),
    );
    let options = [
        ("databricks.host", tls.url.as_str()),
        ("databricks.read", "warehouse"),
    ];
    let with = |file| [options[0], options[1], ("tls.ca_file", file)];
    let ctx = session();
    create(&ctx, &fake, "cases", &with(&ca)).await.unwrap();
    assert_has(&shown(&ctx, "SELECT sum(id) FROM cases").await, &["45"]);
    // Nobody that is trusted vouches for the server; nothing was sent to it.
    let before = fake.get(|inner| inner.requests.len());
    for refused in [&options[..], &with(&other)] {
        let error = create(&session(), &fake, "t", refused).await.unwrap_err();
        assert_has(&message(&error), &["localhost", "tls.ca_file"]);
    }
    assert_eq!(fake.get(|inner| inner.requests.len()), before);
    let no_pem = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    for (file, part) in [
        ("/no/such/file", "/no/such/file"),
        (no_pem, "BEGIN CERTIFICATE"),
    ] {
        let error = create(&session(), &fake, "t", &with(file)).await;
        assert_has(&message(&error.unwrap_err()), &["tls.ca_file", part]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_named_stands_before_every_request() {
    let fake = Fake::start().await;
    fake.add_rows("cases", cases(10));
    let proxy = Proxy::before(&fake.url).await;
    let url = format!("http://bob:hidden-key@{}", proxy.address);
    // A host that nobody else could find.
    let options = [
        ("databricks.host", "http://workspace.example"),
        ("databricks.allow_http", "true"),
        ("databricks.read", "warehouse"),
        ("databricks.proxy", url.as_str()),
    ];
    let ctx = session();
    create(&ctx, &fake, "cases", &options).await.unwrap();
    assert_has(&shown(&ctx, "SELECT sum(id) FROM cases").await, &["45"]);
    let heads = proxy.heads();
    assert!(!heads.is_empty());
    for head in heads {
        let line = head.lines().next().unwrap();
        assert!(line.contains(" http://"), "{line}");
        let head = head.to_lowercase();
        assert!(head.contains("proxy-authorization: basic"), "{head}");
    }
    for (value, part) in [("hidden-key", "URL"), ("ftp://hidden-key", "scheme is ftp")] {
        let mut wrong = options;
        wrong[3].1 = value;
        let error = create(&session(), &fake, "t", &wrong).await.unwrap_err();
        assert_has(&message(&error), &["databricks.proxy", part]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_opens_no_file_of_this_machine_unasked() {
    let fake = Fake::start().await;
    let dir = tempfile::tempdir().unwrap();
    delta_cases(dir.path(), 10, 10).await;
    let location = format!("file://{}", dir.path().display());
    fake.add_files("cases", &location, no_keys);
    fake.add_rows("cases", cases(3));
    for off in ["", "false"] {
        let no_warehouse = [
            ("databricks.allow_local_files", off),
            ("databricks.warehouse_id", ""),
        ];
        let error = create(&session(), &fake, "cases", &no_warehouse)
            .await
            .unwrap_err();
        assert_has(
            &message(&error),
            &[
                "main.legal.cases",
                "'databricks.allow_local_files' is 'true'",
            ],
        );
        // Where there is another way, that one is taken: three rows, not the ten of the files.
        let ctx = session();
        create(
            &ctx,
            &fake,
            "cases",
            &[("databricks.allow_local_files", off)],
        )
        .await
        .unwrap();
        assert_has(&shown(&ctx, "SELECT count(*) FROM cases").await, &["| 3 "]);
    }
    let ctx = session();
    let allowed = [
        ("databricks.allow_local_files", "true"),
        ("databricks.warehouse_id", ""),
    ];
    create(&ctx, &fake, "cases", &allowed).await.unwrap();
    assert_has(&shown(&ctx, "SELECT count(*) FROM cases").await, &["10"]);
    // Nobody was asked for keys of a place that may not be opened.
    assert_eq!(fake.get(|inner| inner.vended.len()), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_of_any_layout_are_written() {
    use datafusion::arrow::array::{LargeStringArray, StringViewArray};
    use datafusion::dataframe::DataFrameWriteOptions;

    let fake = Fake::start().await;
    fake.add_rows("target", cases(0));
    let ctx = session();
    create(&ctx, &fake, "target", &[("databricks.read", "warehouse")])
        .await
        .unwrap();
    let texts = ["a", "žluť \\ ''", ""];
    let layouts: [ArrayRef; 3] = [
        Arc::new(StringArray::from(texts.to_vec())),
        Arc::new(LargeStringArray::from(texts.to_vec())),
        Arc::new(StringViewArray::from(texts.to_vec())),
    ];
    for (i, texts) in layouts.into_iter().enumerate() {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(
            (0..3).map(|n| n + 3 * i as i64),
        ));
        let batch = RecordBatch::try_from_iter([("id", ids), ("text", texts)]).unwrap();
        let frame = ctx.read_batch(batch).unwrap();
        frame
            .write_table("target", DataFrameWriteOptions::new())
            .await
            .unwrap();
    }
    let all = query(&ctx, "SELECT text FROM target ORDER BY id")
        .await
        .unwrap();
    let all = datafusion::arrow::compute::concat_batches(&all[0].schema(), &all).unwrap();
    let found: Vec<Option<&str>> = all.column(0).as_string_view().iter().collect();
    let expected: Vec<Option<&str>> = texts.iter().cycle().take(9).map(|t| Some(*t)).collect();
    assert_eq!(found, expected);
    // Another type is not bent.
    let ids: ArrayRef = Arc::new(StringArray::from(vec!["7x"]));
    let text: ArrayRef = Arc::new(StringArray::from(vec!["t"]));
    let batch = RecordBatch::try_from_iter([("id", ids), ("text", text)]).unwrap();
    let frame = ctx.read_batch(batch).unwrap();
    let error = frame
        .write_table("target", DataFrameWriteOptions::new())
        .await;
    assert_has(
        &message(&error.unwrap_err()),
        &["row 1", "column id", "'7x'", "CAST"],
    );
    // Of a table, because the planner casts what stands in a statement itself.
    let given = "CREATE TABLE given AS VALUES ('1', 'a'), ('7x', 'b')";
    query(&ctx, given).await.unwrap();
    let error = query(&ctx, "INSERT INTO target SELECT * FROM given").await;
    assert_has(
        &message(&error.unwrap_err()),
        &["row 2", "column id", "'7x'", "main.legal.target"],
    );
}
