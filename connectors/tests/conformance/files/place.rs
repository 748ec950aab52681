//! Where the tests keep their files, and what they ask of a session.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use casebook_connectors::{ConnectorOptions, register};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::prelude::{SessionConfig, SessionContext};
use object_store::aws::AmazonS3Builder;
use object_store::azure::{MicrosoftAzure, MicrosoftAzureBuilder};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path as StorePath;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt, PutPayload};
use tempfile::TempDir;

use crate::fake::gcs::Gcs;

pub(crate) const SECRET: &str = "hunter2secretvalue";
/// The public key of the Azure emulator.
const AZURE_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// A directory of files somewhere.
pub(crate) struct Place {
    /// Ends with a slash.
    pub(crate) base: String,
    /// What OPTIONS hold for it, with a comma at the end; empty for the disk.
    pub(crate) options: String,
    store: Arc<dyn ObjectStore>,
    _folder: Option<TempDir>,
}

impl Place {
    pub(crate) fn local() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            base: format!("{}/", folder.path().display()),
            options: String::new(),
            store: Arc::new(LocalFileSystem::new()),
            _folder: Some(folder),
        }
    }

    pub(crate) fn s3() -> Option<Self> {
        let url = service("CASEBOOK_TEST_S3", "tests/services/s3.sh")?;
        make_bucket(&url);
        let store = AmazonS3Builder::new()
            .with_endpoint(&url)
            .with_allow_http(true)
            .with_region("us-east-1")
            .with_bucket_name("casebook-test")
            .with_access_key_id("casebook")
            .with_secret_access_key(SECRET);
        Some(Self {
            base: format!("s3://casebook-test/{}/", unique()),
            options: s3_options(&url, SECRET),
            store: Arc::new(store.build().unwrap()),
            _folder: None,
        })
    }

    pub(crate) fn azure() -> Option<Self> {
        let (_, store) = azure_container()?;
        Some(Self {
            base: format!("az://casebook-test/{}/", unique()),
            options: azure_options(AZURE_KEY)?,
            store: Arc::new(store),
            _folder: None,
        })
    }

    /// A server of our own: no emulator speaks the interface that Google's clients in Rust use.
    pub(crate) fn gcs() -> Self {
        let gcs = Gcs::shared();
        let store = GoogleCloudStorageBuilder::new()
            .with_base_url(&gcs.endpoint)
            .with_client_options(ClientOptions::new().with_allow_http(true))
            .with_bucket_name("casebook-test")
            .with_service_account_key(&gcs.account_key);
        Self {
            base: format!("gs://casebook-test/{}/", unique()),
            options: gcs_options(&gcs.account_key),
            store: Arc::new(store.build().unwrap()),
            _folder: None,
        }
    }

    /// Writes a file as it is.
    pub(crate) async fn put(&self, name: &str, content: impl Into<PutPayload>) {
        let path = match self.base.split_once("://casebook-test/") {
            Some((_, prefix)) => prefix,
            None => self.base.trim_start_matches('/'),
        };
        let path = StorePath::from(format!("{path}{name}"));
        self.store.put(&path, content.into()).await.unwrap();
    }

    /// The disk, and the services that run.
    pub(crate) fn all() -> Vec<Self> {
        let remote = [Self::s3(), Self::azure()];
        [Self::local(), Self::gcs()]
            .into_iter()
            .chain(remote.into_iter().flatten())
            .collect()
    }
}

/// The emulator's container, and the URL that it is below.
pub(crate) fn azure_container() -> Option<(String, MicrosoftAzure)> {
    let url = service("CASEBOOK_TEST_AZURE", "tests/services/azure.sh")?;
    let endpoint = format!("{url}/devstoreaccount1");
    let container = MicrosoftAzureBuilder::new()
        .with_endpoint(endpoint.clone())
        .with_allow_http(true)
        .with_account("devstoreaccount1")
        .with_access_key(AZURE_KEY)
        .with_container_name("casebook-test");
    Some((endpoint, container.build().unwrap()))
}

pub(crate) fn s3_options(url: &str, secret: &str) -> String {
    format!(
        "'aws.endpoint' '{url}', 'aws.allow_http' 'true', 'aws.region' 'us-east-1', \
         'aws.access_key_id' 'casebook', 'aws.secret_access_key' '{secret}', "
    )
}

pub(crate) fn azure_options(key: &str) -> Option<String> {
    let url = service("CASEBOOK_TEST_AZURE", "tests/services/azure.sh")?;
    Some(format!(
        "'azure.endpoint' '{url}/devstoreaccount1', 'azure.allow_http' 'true', \
         'azure.account_name' 'devstoreaccount1', 'azure.account_key' '{key}', "
    ))
}

/// With the service account that has `key`.
pub(crate) fn gcs_options(key: &str) -> String {
    format!(
        "'gcp.base_url' '{}', 'gcp.allow_http' 'true', 'gcp.service_account_key' '{key}', ",
        Gcs::shared().endpoint
    )
}

fn service(variable: &str, script: &str) -> Option<String> {
    match std::env::var(variable) {
        Ok(url) => Some(url),
        Err(_) => {
            let required = std::env::var("CASEBOOK_REQUIRE_SERVICES").is_ok_and(|v| v == "1");
            assert!(!required, "{variable} is not set: run {script} start");
            eprintln!("skipped: {variable} is not set; {script} start would set it");
            None
        }
    }
}

fn make_bucket(url: &str) {
    let host = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    let request = format!(
        "PUT /casebook-test HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    // 409: another test made it.
    assert!(
        answer.contains(" 200 ") || answer.contains(" 409 "),
        "{answer}"
    );
}

pub(crate) fn unique() -> String {
    format!("t-{}", uuid())
}

fn uuid() -> String {
    let folder = tempfile::tempdir().unwrap();
    let name = folder
        .path()
        .file_name()
        .unwrap()
        .to_string_lossy()
        .into_owned();
    format!("{}{}", name.trim_start_matches('.'), std::process::id())
}

/// A session with `partitions` and Casebook's connectors, which know the schema `qa_pairs`.
pub(crate) fn session(partitions: usize) -> SessionContext {
    let mut config = SessionConfig::new()
        .with_target_partitions(partitions)
        .with_batch_size(256)
        .with_information_schema(true);
    config
        .options_mut()
        .optimizer
        .enable_round_robin_repartition = false;
    let ctx = SessionContext::new_with_config(config);
    let options = ConnectorOptions {
        table_schemas: vec![("qa_pairs", qa_pairs())],
        ..ConnectorOptions::default()
    };
    register(&ctx, &options).unwrap();
    ctx
}

pub(crate) fn qa_pairs() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("qa_id", DataType::Utf8View, true),
        Field::new("question_no", DataType::Int32, true),
        Field::new("answer", DataType::Utf8View, true),
    ]))
}

pub(crate) async fn rows(ctx: &SessionContext, sql: &str) -> Result<Vec<RecordBatch>, String> {
    let frame = ctx.sql(sql).await.map_err(|e| e.to_string())?;
    frame.collect().await.map_err(|e| e.to_string())
}

/// The result as a text table.
pub(crate) async fn ask(ctx: &SessionContext, sql: &str) -> Result<String, String> {
    let batches = rows(ctx, sql).await?;
    Ok(pretty_format_batches(&batches)
        .map_err(|e| e.to_string())?
        .to_string())
}

/// The one number that `sql` gives.
pub(crate) async fn number(ctx: &SessionContext, sql: &str) -> u64 {
    let shown = ask(ctx, sql).await.unwrap();
    let line = shown.lines().nth(3).unwrap();
    line.trim_matches(['|', ' ']).parse().unwrap()
}

/// CREATE EXTERNAL TABLE.
pub(crate) async fn create(
    ctx: &SessionContext,
    name: &str,
    format: &str,
    location: &str,
    options: &str,
) -> Result<(), String> {
    let options = options.trim_end_matches([',', ' ']);
    let options = match options.is_empty() {
        true => String::new(),
        false => format!(" OPTIONS ({options})"),
    };
    let sql =
        format!("CREATE EXTERNAL TABLE {name} STORED AS {format} LOCATION '{location}'{options}");
    rows(ctx, &sql).await.map(drop)
}
