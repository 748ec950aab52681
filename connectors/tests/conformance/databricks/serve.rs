//! Not a test of its own: the workspace in which tests/python/warehouses.py runs the example and
//! benches/memory.py reads. It has opinions as an external Delta table on the S3 server, which is
//! read with vended keys; the warehouse has them, too, and takes what is written.

use std::io::Read;

use super::*;

/// The columns of the example's source.
const COLUMNS: [&str; 6] = ["id", "name", "court", "decision_date", "citation", "text"];

#[tokio::test(flavor = "multi_thread")]
async fn serve() {
    // The file that is given the address.
    let Ok(place) = std::env::var("CASEBOOK_TEST_SERVE_DATABRICKS") else {
        return;
    };
    let s3 = std::env::var("CASEBOOK_TEST_S3").expect("tests/services/s3.sh start");
    let fake = Fake::start().await;
    let location = format!("s3://casebook-test/unity-{}/cases", std::process::id());
    write_cases(&s3, &location, &fake).await;
    let url = location.clone();
    fake.add_files("cases", &location, move |_, _| {
        let keys = json!({"access_key_id": "KEY", "secret_access_key": "hidden-key",
            "session_token": "hidden-key", "access_point": ""});
        let answer = json!({"url": url, "aws_temp_credentials": keys});
        (StatusCode::OK, answer)
    });
    std::fs::write(format!("{place}.part"), &fake.url).unwrap();
    std::fs::rename(format!("{place}.part"), place).unwrap();
    // Until whoever started this closes it.
    let wait = || std::io::stdin().read_to_end(&mut vec![]);
    tokio::task::spawn_blocking(wait).await.unwrap().unwrap();
    let vended = fake.get(|i| i.vended.len());
    assert!(vended > 0, "the opinions were not read as files");
}

async fn write_cases(s3: &str, location: &str, fake: &Fake) {
    let fields = COLUMNS.map(|name| Field::new(name, DataType::Utf8View, true));
    let options = ConnectorOptions {
        table_schemas: vec![("cases", Arc::new(Schema::new(fields.to_vec())))],
        ..ConnectorOptions::default()
    };
    let ctx = SessionContext::new();
    register(&ctx, &options).unwrap();
    let bundled = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/cases.csv");
    let csv = std::env::var_os("CASEBOOK_TEST_SERVE_CASES").map_or(bundled, Into::into);
    for sql in [
        format!(
            "CREATE EXTERNAL TABLE cases STORED AS CSV LOCATION '{}'",
            csv.display()
        ),
        format!(
            "CREATE EXTERNAL TABLE unity STORED AS DELTA LOCATION '{location}' OPTIONS \
             ('table.create' 'cases', 'aws.endpoint' '{s3}', 'aws.allow_http' 'true', \
             'aws.region' 'us-east-1', 'aws.access_key_id' 'any', 'aws.secret_access_key' 'any')"
        ),
        format!("INSERT INTO unity SELECT {} FROM cases", COLUMNS.join(", ")),
    ] {
        query(&ctx, &sql).await.unwrap();
    }
    let provider = ctx.table_provider("unity").await.unwrap();
    fake.ctx
        .register_table("main.legal.cases", provider)
        .unwrap();
}
