//! Opens the storage of a vended table: S3, Azure, GCS or this machine's disk, with credentials
//! that are asked for at each request.

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use url::Url;

use super::settings::Settings;
use super::vending::Vending;
use crate::error::{Error, ErrorKind, Result};
#[cfg(any(feature = "s3", feature = "azure", feature = "gcs"))]
use crate::http::store_options;

/// True if a listing of the storage at `location` comes in no order.
pub(super) fn is_unordered(location: &Url) -> bool {
    // Directory buckets of S3 Express list in no order either.
    let bucket = location.host_str().unwrap_or_default();
    location.scheme() == "file" || bucket.contains("--x-s3") || bucket.contains("-xa-s3")
}

/// The table's directory at `location`.
pub(super) async fn open(
    location: &Url,
    settings: &Settings,
    vending: &Arc<Vending>,
) -> object_store::Result<Arc<dyn ObjectStore>> {
    let (store, path) = built(location, settings, vending)
        .await
        .map_err(|e| vending.failed(e))?;
    Ok(Arc::new(PrefixStore::new(store, path)))
}

async fn built(
    location: &Url,
    settings: &Settings,
    vending: &Arc<Vending>,
) -> Result<(Arc<dyn ObjectStore>, Path)> {
    let wrong = |e: object_store::Error| {
        Error::invalid(format!("the storage location {location}: {e}")).with_source(e)
    };
    let path = Path::from_url_path(location.path())
        .map_err(|e| Error::invalid(format!("the storage location {location}: {e}")))?;
    let store: Arc<dyn ObjectStore> = match location.scheme() {
        "file" => Arc::new(LocalFileSystem::new()),
        #[cfg(feature = "s3")]
        "s3" | "s3a" => Arc::new(
            s3(location, settings, vending)
                .await?
                .build()
                .map_err(wrong)?,
        ),
        #[cfg(feature = "azure")]
        "abfs" | "abfss" | "az" => {
            Arc::new(azure(location, settings, vending)?.build().map_err(wrong)?)
        }
        #[cfg(feature = "gcs")]
        "gs" => Arc::new(gcs(location, settings, vending)?.build().map_err(wrong)?),
        other => {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "the table lies at {other}://, which this build of Casebook cannot open; \
                     build it with the feature s3, azure or gcs, or set databricks.warehouse_id"
                ),
            ));
        }
    };
    Ok((store, path))
}

#[cfg(feature = "s3")]
async fn s3(
    location: &Url,
    settings: &Settings,
    vending: &Arc<Vending>,
) -> Result<object_store::aws::AmazonS3Builder> {
    use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, resolve_bucket_region};

    let mut builder = AmazonS3Builder::new()
        .with_url(location.as_str())
        .with_client_options(store_options(settings.ca_file.as_deref(), &settings.proxy)?);
    for (key, value) in crate::stores::keys(&settings.options, "aws.") {
        builder = builder.with_config(crate::stores::parse_key(key)?, value);
    }
    let has = |key| builder.get_config_value(&key).is_some();
    if !has(AmazonS3ConfigKey::Region) && !has(AmazonS3ConfigKey::Endpoint) {
        // Credentials are vended without the region of the bucket.
        let bucket = location.host_str().unwrap_or_default();
        let client = store_options(settings.ca_file.as_deref(), &settings.proxy)?;
        let region = resolve_bucket_region(bucket, &client).await;
        builder = builder.with_region(region.map_err(|e| {
            Error::while_doing(
                format!("finding the region of the bucket {bucket} (say 'aws.region' to give it)"),
                e,
            )
        })?);
    }
    Ok(builder.with_credentials(Arc::new(keys::Aws(Arc::clone(vending)))))
}

#[cfg(feature = "azure")]
fn azure(
    location: &Url,
    settings: &Settings,
    vending: &Arc<Vending>,
) -> Result<object_store::azure::MicrosoftAzureBuilder> {
    let mut builder = object_store::azure::MicrosoftAzureBuilder::new()
        .with_url(location.as_str())
        .with_client_options(store_options(settings.ca_file.as_deref(), &settings.proxy)?);
    for (key, value) in crate::stores::keys(&settings.options, "azure.") {
        builder = builder.with_config(crate::stores::parse_key(key)?, value);
    }
    Ok(builder.with_credentials(Arc::new(keys::Azure(Arc::clone(vending)))))
}

#[cfg(feature = "gcs")]
fn gcs(
    location: &Url,
    settings: &Settings,
    vending: &Arc<Vending>,
) -> Result<object_store::gcp::GoogleCloudStorageBuilder> {
    let mut builder = object_store::gcp::GoogleCloudStorageBuilder::new()
        .with_url(location.as_str())
        .with_client_options(store_options(settings.ca_file.as_deref(), &settings.proxy)?);
    for (key, value) in crate::stores::keys(&settings.options, "gcp.") {
        builder = builder.with_config(crate::stores::parse_key(key)?, value);
    }
    Ok(builder.with_credentials(Arc::new(keys::Gcp(Arc::clone(vending)))))
}

/// The vended credentials in each cloud's form.
#[cfg(any(feature = "s3", feature = "azure", feature = "gcs"))]
mod keys {
    use std::sync::Arc;

    use async_trait::async_trait;
    use object_store::CredentialProvider;

    use super::{Error, ErrorKind, Vending};

    /// An answer without the form that the location needs.
    fn absent(vending: &Vending, cloud: &str) -> object_store::Error {
        vending.failed(Error::new(
            ErrorKind::Unsupported,
            format!(
                "Unity Catalog vended no {cloud} credentials for a table on {cloud}; set \
                 databricks.warehouse_id to read it through a warehouse"
            ),
        ))
    }

    #[cfg(feature = "s3")]
    #[derive(Debug)]
    pub(super) struct Aws(pub(super) Arc<Vending>);

    #[cfg(feature = "s3")]
    #[async_trait]
    impl CredentialProvider for Aws {
        type Credential = object_store::aws::AwsCredential;

        async fn get_credential(&self) -> object_store::Result<Arc<Self::Credential>> {
            let vended = self.0.keys().await?;
            let keys = vended.aws_temp_credentials.as_ref();
            let keys = keys.ok_or_else(|| absent(&self.0, "AWS"))?;
            Ok(Arc::new(object_store::aws::AwsCredential {
                key_id: keys.access_key_id.expose().to_owned(),
                secret_key: keys.secret_access_key.expose().to_owned(),
                token: keys.session_token.as_ref().map(|t| t.expose().to_owned()),
            }))
        }
    }

    #[cfg(feature = "azure")]
    #[derive(Debug)]
    pub(super) struct Azure(pub(super) Arc<Vending>);

    #[cfg(feature = "azure")]
    #[async_trait]
    impl CredentialProvider for Azure {
        type Credential = object_store::azure::AzureCredential;

        async fn get_credential(&self) -> object_store::Result<Arc<Self::Credential>> {
            use object_store::azure::AzureCredential;
            let vended = self.0.keys().await?;
            if let Some(sas) = &vended.azure_user_delegation_sas {
                // A query string, with or without its question mark; a plus is no space there.
                let query = sas.sas_token.expose().trim_start_matches('?');
                let query = query.replace('+', "%2B");
                let pairs = url::form_urlencoded::parse(query.as_bytes());
                return Ok(Arc::new(AzureCredential::SASToken(
                    pairs.into_owned().collect(),
                )));
            }
            let token = vended.azure_aad.as_ref();
            let token = token.ok_or_else(|| absent(&self.0, "Azure"))?;
            Ok(Arc::new(AzureCredential::BearerToken(
                token.aad_token.expose().to_owned(),
            )))
        }
    }

    #[cfg(feature = "gcs")]
    #[derive(Debug)]
    pub(super) struct Gcp(pub(super) Arc<Vending>);

    #[cfg(feature = "gcs")]
    #[async_trait]
    impl CredentialProvider for Gcp {
        type Credential = object_store::gcp::GcpCredential;

        async fn get_credential(&self) -> object_store::Result<Arc<Self::Credential>> {
            let vended = self.0.keys().await?;
            let token = vended.gcp_oauth_token.as_ref();
            let token = token.ok_or_else(|| absent(&self.0, "GCP"))?;
            Ok(Arc::new(object_store::gcp::GcpCredential {
                bearer: token.oauth_token.expose().to_owned(),
            }))
        }
    }
}
