//! Tables that are read and written as files, with vended credentials.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::StreamExt;

use super::*;
use crate::fake::gcs::Gcs;
use crate::fake::s3::{Key, S3};

#[tokio::test(flavor = "multi_thread")]
async fn an_external_table_is_read_as_files() {
    let fake = Fake::start().await;
    let dir = tempfile::tempdir().unwrap();
    delta_cases(dir.path(), 1000, 300).await;
    fake.add_files(
        "cases",
        &format!("file://{}", dir.path().display()),
        no_keys,
    );
    let ctx = session();
    create(&ctx, &fake, "cases", &[("databricks.warehouse_id", "")])
        .await
        .unwrap();
    let sum = shown(&ctx, "SELECT count(*), sum(id), min(text) FROM cases").await;
    assert_has(&sum, &["1000", "499500"]);
    let found = shown(&ctx, "SELECT id FROM cases WHERE id = 777").await;
    assert_has(&found, &["777"]);
    assert_eq!(
        fake.get(|i| i.vended.clone()),
        [("id-cases".to_owned(), "READ".to_owned())]
    );
    assert_eq!(fake.get(|i| i.statements.len()), 0);
    // The latest version per statement.
    delta_cases(dir.path(), 5, 5).await;
    assert_has(&shown(&ctx, "SELECT count(*) FROM cases").await, &["1005"]);
    create_at(
        &ctx,
        &fake,
        "old",
        "main.legal.cases",
        &[("delta.version", "0")],
    )
    .await
    .unwrap();
    assert_has(&shown(&ctx, "SELECT count(*) FROM old").await, &["300"]);
    let plan = shown(&ctx, "EXPLAIN VERBOSE SELECT * FROM cases").await;
    assert_no_secret(&plan);
}

/// Keys named after the call, good for one prefix of the bucket.
fn keys(
    s3: &S3,
    name: &'static str,
    lifetime: Option<Duration>,
) -> impl Fn(u32, &str) -> (StatusCode, Value) + Send + use<> {
    let s3 = s3.clone();
    move |count, operation| {
        let id = format!("KEY-{name}-{count}");
        s3.allow(
            &id,
            Key {
                prefix: format!("lake/{name}"),
                writes: operation == "READ_WRITE",
                session_token: format!("hidden-key-{name}-{count}"),
                expires: lifetime.map(|l| Instant::now() + l),
            },
        );
        let mut answer = json!({"url": format!("s3://lake/{name}"), "aws_temp_credentials": {
            "access_key_id": id, "secret_access_key": "hidden-key",
            "session_token": format!("hidden-key-{name}-{count}"), "access_point": ""}});
        if let Some(lifetime) = lifetime {
            let end = SystemTime::now() + lifetime;
            let millis = end.duration_since(UNIX_EPOCH).unwrap().as_millis();
            answer["expiration_time"] = json!(millis as u64);
        }
        (StatusCode::OK, answer)
    }
}

fn s3_options(s3: &S3) -> [(&str, &str); 4] {
    [
        ("databricks.warehouse_id", ""),
        ("aws.endpoint", &s3.endpoint),
        ("aws.region", "us-east-1"),
        ("aws.allow_http", "true"),
    ]
}

async fn in_s3(s3: &S3, fake: &Fake, name: &'static str, rows: i64, lifetime: Option<Duration>) {
    let dir = tempfile::tempdir().unwrap();
    delta_cases(dir.path(), rows, 100).await;
    s3.load(dir.path(), &format!("lake/{name}"));
    fake.add_files(name, &format!("s3://lake/{name}"), keys(s3, name, lifetime));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tables_of_one_bucket_keep_their_own_keys() {
    let (fake, s3) = (Fake::start().await, S3::start().await);
    in_s3(&s3, &fake, "cases", 200, None).await;
    in_s3(&s3, &fake, "opinions", 300, None).await;
    let ctx = session();
    create(&ctx, &fake, "cases", &s3_options(&s3))
        .await
        .unwrap();
    create(&ctx, &fake, "opinions", &s3_options(&s3))
        .await
        .unwrap();
    let sql = "SELECT count(*), sum(o.id) FROM cases c JOIN opinions o ON c.id = o.id \
               WHERE c.text = o.text";
    assert_has(&shown(&ctx, sql).await, &["200", "19900"]);
    // A key used for the other table would have been refused.
    assert_eq!(s3.refused(), Vec::<String>::new());
    assert_no_secret(&shown(&ctx, &format!("EXPLAIN ANALYZE VERBOSE {sql}")).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_renewed_while_a_scan_runs() {
    let (fake, s3) = (Fake::start().await, S3::start().await);
    let lifetime = Duration::from_secs(1);
    in_s3(&s3, &fake, "cases", 2000, Some(lifetime)).await;
    let ctx = session();
    create(&ctx, &fake, "cases", &s3_options(&s3))
        .await
        .unwrap();
    let frame = ctx.sql("SELECT * FROM cases").await.unwrap();
    let mut stream = frame.execute_stream().await.unwrap();
    let mut rows = stream.next().await.unwrap().unwrap().num_rows();
    let (before, first_key_dies) = (fake.get(|i| i.vended.len()), Instant::now() + lifetime);
    // The keys of the first files are good for nothing after this.
    tokio::time::sleep_until(first_key_dies.into()).await;
    while let Some(batch) = stream.next().await {
        rows += batch.unwrap().num_rows();
    }
    assert_eq!(rows, 2000);
    assert!(fake.get(|i| i.vended.len()) > before, "no key was renewed");
    // Each was renewed before it expired: the storage never saw an old one.
    assert_eq!(s3.refused(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_to_write_are_asked_for_when_something_is_written() {
    let (fake, s3) = (Fake::start().await, S3::start().await);
    in_s3(&s3, &fake, "cases", 100, None).await;
    let ctx = session();
    let mut more = s3_options(&s3).to_vec();
    more.push(("write.key", "id"));
    create(&ctx, &fake, "cases", &more).await.unwrap();
    let operations = || fake.get(|i| i.vended.iter().map(|v| v.1.clone()).collect::<Vec<_>>());
    let insert = "INSERT INTO cases SELECT column1, column2 FROM (VALUES (99, 'a'), (100, 'b'))";
    query(&ctx, &format!("EXPLAIN {insert}")).await.unwrap();
    assert_eq!(operations(), ["READ"]);
    for _ in 0..2 {
        // 99 is there already, 100 is after the first time.
        query(&ctx, insert).await.unwrap();
        assert_has(&shown(&ctx, "SELECT count(*) FROM cases").await, &["101"]);
    }
    assert_eq!(operations(), ["READ", "READ_WRITE"]);
    assert_eq!(s3.refused(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_in_google_storage_is_read_and_written_with_its_token() {
    let (fake, gcs) = (Fake::start().await, Gcs::shared());
    let dir = tempfile::tempdir().unwrap();
    delta_cases(dir.path(), 200, 100).await;
    gcs.load(dir.path(), "lake/cases");
    fake.add_files("cases", "gs://lake/cases", |count, _| {
        let token = format!("hidden-token-{count}");
        gcs.allow(&token);
        let answer = json!({"url": "gs://lake/cases", "gcp_oauth_token": {"oauth_token": token}});
        (StatusCode::OK, answer)
    });
    let ctx = session();
    let options = [
        ("databricks.warehouse_id", ""),
        ("gcp.base_url", &gcs.endpoint),
        ("gcp.allow_http", "true"),
        ("write.key", "id"),
    ];
    create(&ctx, &fake, "cases", &options).await.unwrap();
    let insert = "INSERT INTO cases SELECT column1, column2 FROM (VALUES (199, 'a'), (200, 'b'))";
    for _ in 0..2 {
        query(&ctx, insert).await.unwrap();
        let found = shown(&ctx, "SELECT count(*), sum(id) FROM cases").await;
        assert_has(&found, &["201", "20100"]);
    }
    assert_eq!(gcs.refused("lake/"), 0);
    assert_no_secret(&shown(&ctx, "EXPLAIN VERBOSE SELECT * FROM cases").await);
}

/// A table whose log says what `protocol` says.
fn with_protocol(path: &Path, protocol: Value) {
    let schema = json!({"type": "struct", "fields": [
        {"name": "id", "type": "long", "nullable": true, "metadata": {}},
        {"name": "text", "type": "string", "nullable": true, "metadata": {}}]});
    let log = [
        json!({"protocol": protocol}),
        json!({"metaData": {"id": "5fba94ed-9794-4965-ba6e-6ee3c0d22af9", "format":
            {"provider": "parquet", "options": {}}, "schemaString": schema.to_string(),
            "partitionColumns": [], "configuration": {}, "createdTime": 0}}),
    ];
    let lines: Vec<String> = log.iter().map(Value::to_string).collect();
    std::fs::create_dir_all(path.join("_delta_log")).unwrap();
    let file = path.join("_delta_log/00000000000000000000.json");
    std::fs::write(file, lines.join("\n")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn features_that_only_databricks_reads_are_named() {
    let fake = Fake::start().await;
    let dir = tempfile::tempdir().unwrap();
    for feature in ["typeWidening", "catalogManaged"] {
        let path = dir.path().join(feature);
        with_protocol(
            &path,
            json!({"minReaderVersion": 3, "minWriterVersion": 7,
                "readerFeatures": [feature], "writerFeatures": [feature, "inCommitTimestamp"]}),
        );
        let name = feature.to_lowercase();
        fake.add_files(&name, &format!("file://{}", path.display()), no_keys);
        let ctx = session();
        let files = [("databricks.warehouse_id", "")];
        let error = create(&ctx, &fake, &name, &files).await.unwrap_err();
        assert_has(&message(&error), &[&name, "set databricks.warehouse_id"]);
        fake.add_rows(&name, cases(7));
        create(&ctx, &fake, &name, &[]).await.unwrap();
        let plan = shown(&ctx, &format!("EXPLAIN SELECT * FROM {name}")).await;
        assert_has(&plan, &["WarehouseScan", "because it"]);
        let rows = query(&ctx, &format!("SELECT * FROM {name}")).await.unwrap();
        assert_eq!(rows[0].num_rows(), 7);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn features_that_prevent_appending_are_named() {
    let fake = Fake::start().await;
    let dir = tempfile::tempdir().unwrap();
    with_protocol(
        dir.path(),
        json!({"minReaderVersion": 1, "minWriterVersion": 7,
            "writerFeatures": ["clustering", "domainMetadata"]}),
    );
    fake.add_files(
        "cases",
        &format!("file://{}", dir.path().display()),
        no_keys,
    );
    let ctx = session();
    create(&ctx, &fake, "cases", &[("databricks.warehouse_id", "")])
        .await
        .unwrap();
    let error = query(&ctx, "INSERT INTO cases VALUES (1, 'a')")
        .await
        .unwrap_err();
    assert_has(
        &message(&error),
        &[
            "clustering, domainMetadata",
            "cannot be written",
            "databricks.warehouse_id",
        ],
    );
    // Read as files, written through the warehouse.
    fake.add_rows("cases", cases(0));
    create_at(&ctx, &fake, "both", "main.legal.cases", &[])
        .await
        .unwrap();
    query(&ctx, "INSERT INTO both VALUES (1, 'a')")
        .await
        .unwrap();
    let there = fake.rows("SELECT * FROM main.legal.cases").await;
    assert_eq!(there.iter().map(RecordBatch::num_rows).sum::<usize>(), 1);
    let plan = shown(&ctx, "EXPLAIN SELECT * FROM both").await;
    assert!(!plan.contains("WarehouseScan"), "{plan}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_in_files_takes_new_columns_through_the_warehouse() {
    let fake = Fake::start().await;
    let dir = tempfile::tempdir().unwrap();
    let whole = local_pairs().await;
    let half = whole.project(&[0, 1]).unwrap();
    let url = url::Url::from_directory_path(dir.path()).unwrap();
    let table = deltalake::DeltaTable::try_from_url(url).await.unwrap();
    table.write(vec![half.clone()]).await.unwrap();
    let location = format!("file://{}", dir.path().display());
    fake.add_files("qa", &location, no_keys);
    let more = [
        ("table.create", "qa_pairs"),
        ("table.evolve", "add_columns"),
    ];
    // What it lacks is said with the way out.
    let error = create(&session(), &fake, "qa", &more[..1])
        .await
        .unwrap_err();
    assert_has(&message(&error), &["chunk_no is missing", "table.evolve"]);
    let without = [more[0], more[1], ("databricks.warehouse_id", "")];
    let ctx = session();
    create(&ctx, &fake, "qa", &without).await.unwrap();
    assert_has(&shown(&ctx, "SELECT qa_id FROM qa").await, &["| a "]);
    let insert = "INSERT INTO qa (qa_id) VALUES ('b')";
    let error = query(&ctx, insert).await.unwrap_err();
    assert_has(
        &message(&error),
        &[
            "lacks columns that table.evolve adds",
            "databricks.warehouse_id",
        ],
    );
    fake.add_rows("qa", half);
    let ctx = session();
    create(&ctx, &fake, "qa", &more).await.unwrap();
    let all = "SELECT qa_id, chunk_no IS NULL AS none FROM qa";
    assert_has(&shown(&ctx, all).await, &["| a     | true"]);
    // The engine behind the fake cannot do what it is asked for.
    query(&ctx, "INSERT INTO qa VALUES ('b', 'q', 1, 0.5)")
        .await
        .unwrap_err();
    let asked = fake.get(|i| i.statements.clone());
    let added = asked.iter().find(|s| s.starts_with("ALTER TABLE"));
    assert_has(added.unwrap(), &["ADD COLUMN `chunk_no` INTEGER"]);
}

/// One row of the contract.
async fn local_pairs() -> RecordBatch {
    let sql = "SELECT 'a' AS qa_id, 'q' AS question, CAST(1 AS INT) AS chunk_no, \
               CAST(1 AS FLOAT) AS grounding";
    query(&session(), sql).await.unwrap().remove(0)
}

/// moto accepts any key, but it is another S3 than ours.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_on_moto() {
    let Ok(endpoint) = std::env::var("CASEBOOK_TEST_S3") else {
        let required = std::env::var("CASEBOOK_REQUIRE_SERVICES").is_ok_and(|v| v == "1");
        assert!(
            !required,
            "CASEBOOK_TEST_S3 is not set: tests/services/s3.sh start"
        );
        println!("skipped: CASEBOOK_TEST_S3 is not set (tests/services/s3.sh start)");
        return;
    };
    let fake = Fake::start().await;
    let bucket = format!("casebook-databricks-{}", std::process::id());
    let made = reqwest::Client::new().put(format!("{endpoint}/{bucket}"));
    // moto takes an unsigned request for one of its default account.
    assert!(made.send().await.unwrap().status().is_success());
    let location = format!("s3://{bucket}/cases");
    let (key, secret) = ("AKIAIOSFODNN7EXAMPLE", "hidden-key");
    let ctx = session();
    let aws = format!(
        "'aws.endpoint' '{endpoint}', 'aws.region' 'us-east-1', 'aws.allow_http' 'true', \
         'aws.access_key_id' '{key}', 'aws.secret_access_key' '{secret}'"
    );
    ctx.sql(&format!(
        "CREATE EXTERNAL TABLE direct STORED AS DELTA LOCATION '{location}' OPTIONS \
         ('table.create' 'qa_pairs', {aws})"
    ))
    .await
    .unwrap();
    query(&ctx, "INSERT INTO direct VALUES ('a', 'why?', 1, 0.5)")
        .await
        .unwrap();
    fake.add_files("qa", &location, move |count, _| {
        let end = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_millis() as u64;
        let keys = json!({"access_key_id": key, "secret_access_key": "hidden-key",
            "session_token": format!("hidden-key-{count}")});
        // Expired when it arrives: each request asks anew.
        (
            StatusCode::OK,
            json!({"aws_temp_credentials": keys, "expiration_time": end}),
        )
    });
    let more = [
        ("databricks.warehouse_id", ""),
        ("aws.endpoint", endpoint.as_str()),
        ("aws.region", "us-east-1"),
        ("aws.allow_http", "true"),
        ("write.key", "qa_id"),
    ];
    create(&ctx, &fake, "qa", &more).await.unwrap();
    for _ in 0..2 {
        query(
            &ctx,
            "INSERT INTO qa VALUES ('a', 'why?', 1, 0.5), ('b', 'who?', 2, 1.0)",
        )
        .await
        .unwrap();
    }
    let text = shown(&ctx, "SELECT qa_id, question FROM qa ORDER BY qa_id").await;
    assert_has(&text, &["a     | why?", "b     | who?"]);
    assert_eq!(text.lines().count(), 6, "{text}");
    assert!(fake.get(|i| i.vended.len()) > 4);
}
