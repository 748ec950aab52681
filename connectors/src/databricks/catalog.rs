//! Unity Catalog: what a table is, what else there is where it is missing, and temporary
//! credentials for its files (REST API 2.1).

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::listing::{self, Page};
use super::name::TableName;
use super::session::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;

/// A table as the catalog describes it. What is not documented as required may be absent.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct TableInfo {
    pub(super) table_id: Option<String>,
    #[serde(default)]
    pub(super) table_type: String,
    pub(super) data_source_format: Option<String>,
    pub(super) storage_location: Option<String>,
    pub(super) columns: Option<Vec<ColumnInfo>>,
    pub(super) row_filter: Option<Value>,
    pub(super) properties: Option<BTreeMap<String, String>>,
}

/// A column as the catalog describes it; manifests of results use the same words.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct ColumnInfo {
    pub(super) name: String,
    #[serde(default)]
    pub(super) type_text: String,
    #[serde(default)]
    pub(super) type_name: String,
    pub(super) type_precision: Option<u8>,
    pub(super) type_scale: Option<i8>,
    pub(super) mask: Option<Value>,
    pub(super) position: Option<u32>,
}

/// What credentials are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum Operation {
    Read,
    ReadWrite,
}

/// Temporary credentials in the form of one cloud; none of them for local files.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Credentials {
    pub(super) aws_temp_credentials: Option<AwsKeys>,
    pub(super) azure_user_delegation_sas: Option<AzureSas>,
    pub(super) azure_aad: Option<AzureToken>,
    pub(super) gcp_oauth_token: Option<GcpToken>,
    /// Milliseconds since 1970; absent where they do not expire.
    pub(super) expiration_time: Option<i64>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct AwsKeys {
    pub(super) access_key_id: Secret,
    pub(super) secret_access_key: Secret,
    pub(super) session_token: Option<Secret>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct AzureSas {
    pub(super) sas_token: Secret,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct AzureToken {
    pub(super) aad_token: Secret,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct GcpToken {
    pub(super) oauth_token: Secret,
}

/// The catalog of one workspace.
#[derive(Debug, Clone)]
pub(super) struct Catalog {
    pub(super) client: Arc<Client>,
}

impl Catalog {
    pub(super) fn new(client: Arc<Client>) -> Self {
        Self { client }
    }

    /// True if the caller is let in, told from a call that needs no privilege.
    pub(super) async fn sign_in(&self) -> Result<()> {
        let path = ["api", "2.1", "unity-catalog", "catalogs"];
        let what = "signing in to Unity Catalog";
        let page: Result<Page> = self.client.get(what, &path, &[("max_results", "1")]).await;
        page.map(drop).map_err(|error| match error.kind() {
            ErrorKind::Denied => Error::new(
                ErrorKind::Denied,
                format!("{error}; check that the token is of this workspace and not expired"),
            ),
            _ => error,
        })
    }

    /// The table called `name`.
    ///
    /// # Errors
    /// Where there is none: what there is instead, with the nearest name.
    pub(super) async fn table(&self, name: &TableName) -> Result<TableInfo> {
        let full = name.to_string();
        let what = format!("finding the table {name} in Unity Catalog");
        let path = ["api", "2.1", "unity-catalog", "tables", &full];
        let found: Result<TableInfo> = self.client.get(&what, &path, &[]).await;
        match found {
            Ok(mut table) => {
                if let Some(columns) = &mut table.columns {
                    columns.sort_by_key(|c| c.position);
                }
                Ok(table)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(listing::missing(&self.client, name)
                    .await
                    .with_source(error))
            }
            Err(error) if error.kind() == ErrorKind::Denied => Err(Error::new(
                ErrorKind::Denied,
                format!(
                    "{error}; check the token, and that its owner has USE CATALOG, USE SCHEMA and \
                     SELECT on {name}"
                ),
            )
            .with_source(error)),
            Err(error) => Err(error),
        }
    }

    /// The names of all tables in the schema of `name`.
    pub(super) async fn tables_beside(&self, name: &TableName) -> Result<HashSet<String>> {
        listing::tables(&self.client, name).await
    }

    /// Credentials for the files of a table.
    pub(super) async fn credentials(
        &self,
        name: &TableName,
        table_id: &str,
        operation: Operation,
    ) -> Result<Credentials> {
        #[derive(Serialize)]
        struct Request<'a> {
            table_id: &'a str,
            operation: Operation,
        }
        let what = format!("asking Unity Catalog for temporary credentials of {name}");
        let path = ["api", "2.1", "unity-catalog", "temporary-table-credentials"];
        let request = Request {
            table_id,
            operation,
        };
        let vended: Result<Credentials> = self.client.post(&what, &path, &request).await;
        vended.map_err(|error| match error.kind() {
            ErrorKind::Denied => Error::new(
                ErrorKind::Denied,
                format!(
                    "{error}; readers outside Databricks need external data access on the \
                     metastore and the privilege EXTERNAL USE SCHEMA on {}.{}",
                    name.catalog, name.schema
                ),
            )
            .with_source(error),
            _ => error,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_of_every_cloud_and_of_none() {
        let parse = |text: &str| serde_json::from_str::<Credentials>(text).unwrap();
        let aws = parse(
            r#"{"aws_temp_credentials": {"access_key_id": "ASIA", "secret_access_key": "hidden",
                "session_token": "hidden", "access_point": ""}, "expiration_time": 1,
                "url": "s3://b/t"}"#,
        );
        assert_eq!(aws.expiration_time, Some(1));
        assert!(!format!("{aws:?}").contains("hidden"));
        assert!(
            parse(r#"{"azure_user_delegation_sas": {"sas_token": "sv=1"}}"#)
                .azure_user_delegation_sas
                .is_some()
        );
        assert!(
            parse(r#"{"gcp_oauth_token": {"oauth_token": "t"}}"#)
                .gcp_oauth_token
                .is_some()
        );
        assert!(
            parse(r#"{"url": "file:///t", "aws_temp_credentials": null}"#)
                .expiration_time
                .is_none()
        );
    }
}
