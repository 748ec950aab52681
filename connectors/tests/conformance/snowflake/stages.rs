//! Many rows: through a stage in each cloud, or as bound values where that cannot be.

use std::time::Duration;

use bytes::Bytes;
use datafusion::arrow::array::{Array, RecordBatch};
use datafusion::arrow::util::display::array_value_to_string;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use object_store::signer::Signer;
use serde_json::{Value, json};

use super::faults::{rows, table};
use crate::fake::gcs::Gcs;
use crate::fake::s3::{Key, S3};
use crate::fake::snowflake::{Fake, Faults, PASSWORD};
use crate::fake::tls::Tls;
use crate::files::place::{azure_container, unique};

/// More rows than one statement takes: three columns make 20,000.
const MANY: &str = "INSERT INTO t SELECT value, NULL, 'text ' || value FROM \
                    generate_series(1, 50000)";

/// Writes where PUT is answered with `stage`: how many statements had bound values, and the
/// statements of the stage.
async fn written(stage: Option<Value>) -> (usize, Vec<String>) {
    written_with(stage, "").await
}

/// The same with `more` options.
async fn written_with(stage: Option<Value>, more: &str) -> (usize, Vec<String>) {
    let faults = Faults {
        stage: stage.map(|answer| (answer, 30_000)),
        ..Faults::default()
    };
    let fake = Fake::start(rows(1), faults).await;
    let ctx = table(&fake.url, PASSWORD, more).await.unwrap();
    let done = ctx.sql(MANY).await.unwrap().collect().await.unwrap();
    assert_eq!(done.len(), 1);
    let events = fake.events();
    let writes = events.iter().filter_map(|e| e.strip_prefix("write "));
    let writes: Vec<&str> = writes.collect();
    let inserts = writes
        .iter()
        .filter(|w| w.starts_with("INSERT INTO CASEBOOK"));
    let steps = ["CREATE TEMPORARY STAGE", "PUT", "COPY"];
    let staged = writes
        .iter()
        .filter(|w| steps.iter().any(|s| w.starts_with(s)));
    (inserts.count(), staged.map(|s| (*s).to_owned()).collect())
}

/// Writes by way of `stage`; its statements are as they should be.
async fn staged(stage: Value) {
    staged_with(stage, "").await;
}

async fn staged_with(stage: Value, more: &str) {
    let (inserts, steps) = written_with(Some(stage), more).await;
    assert_eq!(inserts, 1);
    // One PUT to see what storage that is, one for the file.
    assert_eq!(steps.len(), 4, "{steps:?}");
    assert!(
        steps[3].contains("(C1, C2, C3) FROM (SELECT $1:C1::VARCHAR,"),
        "{steps:?}"
    );
    // A text \N stays one.
    assert!(
        steps[3].ends_with("(TYPE = PARQUET NULL_IF = ())"),
        "{steps:?}"
    );
}

/// `file` holds the rows beyond those of one statement.
fn check(file: Bytes) {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let reader = reader.with_batch_size(100_000).build().unwrap();
    let found: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
    let found = &found[0];
    assert_eq!(found.num_rows(), 30_000);
    let cell = |column| array_value_to_string(found.column(column), 0).unwrap();
    assert_eq!(cell(2), format!("text {}", cell(0)));
    assert_eq!(found.column(1).null_count(), 30_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_s3_with_temporary_keys() {
    let s3 = s3(true).await;
    staged(in_s3(&s3.endpoint)).await;
    check(s3.object("stages/of/mine/part-00000.parquet").unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn in_s3_behind_an_authority_of_ones_own() {
    let s3 = s3(true).await;
    let tls = Tls::before(&s3.endpoint).await;
    let ca_file = format!(", 'tls.ca_file' '{}'", tls.ca_file.display());
    staged_with(in_s3(&tls.url), &ca_file).await;
    check(s3.object("stages/of/mine/part-00000.parquet").unwrap());
}

/// A bucket and a key for it, which may write or only read.
async fn s3(writes: bool) -> S3 {
    let s3 = S3::start().await;
    let key = Key {
        prefix: "stages/of/mine/".into(),
        writes,
        session_token: "hidden-token".into(),
        expires: None,
    };
    s3.allow("AKIA1", key);
    s3
}

/// What PUT is answered with.
fn in_s3(endpoint: &str) -> Value {
    json!({"stageInfo": {"locationType": "S3", "location": "stages/of/mine/",
        "region": "us-east-1", "endPoint": endpoint, "creds": {"AWS_KEY_ID": "AKIA1",
        "AWS_SECRET_KEY": "hidden-key", "AWS_TOKEN": "hidden-token"}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn in_google_storage_with_a_token() {
    let gcs = Gcs::shared();
    gcs.allow("hidden-stage-token");
    staged(
        json!({"stageInfo": {"locationType": "GCS", "location": "stages/of mine/",
        "endPoint": gcs.endpoint, "creds": {"GCS_ACCESS_TOKEN": "hidden-stage-token"}}}),
    )
    .await;
    check(gcs.object("stages/of mine/part-00000.parquet").unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn in_azure_with_a_shared_access_signature() {
    let Some((endpoint, container)) = azure_container() else {
        return;
    };
    let folder = unique();
    let path = Path::from(format!("{folder}/part-00000.parquet"));
    // Good for this file only, as ours is good for the stage's folder only.
    let hour = Duration::from_secs(3600);
    let signed = container
        .signed_url(reqwest::Method::PUT, &path, hour)
        .await
        .unwrap();
    staged(
        json!({"stageInfo": {"locationType": "AZURE", "endPoint": endpoint,
        "location": format!("casebook-test/{folder}/"), "storageAccount": "devstoreaccount1",
        "creds": {"AZURE_SAS_TOKEN": format!("?{}", signed.query().unwrap())}}}),
    )
    .await;
    check(container.get(&path).await.unwrap().bytes().await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_stage_can_be_used_rows_go_as_bound_values() {
    let encrypted = json!({"stageInfo": {"locationType": "GCS", "presignedUrl": "http://x"},
        "encryptionMaterial": {"queryStageMasterKey": "k"}});
    let elsewhere = json!({"stageInfo": {"locationType": "LOCAL_FS", "creds": {}}});
    let closed = s3(false).await;
    let closed = Some(in_s3(&closed.endpoint));
    for stage in [None, Some(encrypted), Some(elsewhere), closed] {
        assert_eq!(written(stage).await.0, 3);
    }
}
