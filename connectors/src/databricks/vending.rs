//! Credentials that Unity Catalog lends for one table, renewed before they expire.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use url::Url;

use super::catalog::{Catalog, Credentials, Operation};
use super::name::TableName;
use super::settings::Settings;
use crate::error::{Error, ErrorKind, Result};
use crate::expiring::{Expiring, Fresh};

/// Which table, and where it lies.
#[derive(Debug)]
pub(super) struct VendedTable {
    pub(super) catalog: Catalog,
    pub(super) name: TableName,
    pub(super) id: String,
    pub(super) location: Url,
    /// They say the endpoint and region of its storage.
    pub(super) settings: Arc<Settings>,
}

/// Credentials of a table for one operation.
#[derive(Debug)]
pub(super) struct Vending {
    pub(super) table: Arc<VendedTable>,
    pub(super) operation: Operation,
    pub(super) held: Expiring<Credentials>,
}

impl Vending {
    /// Credentials that are good now.
    pub(super) async fn credentials(&self) -> Result<Arc<Credentials>> {
        let table = &self.table;
        let renew = async {
            let vended = table
                .catalog
                .credentials(&table.name, &table.id, self.operation)
                .await?;
            Ok::<_, Error>(Fresh {
                lifetime: vended.expiration_time.map(lifetime),
                value: vended,
            })
        };
        self.held.get(renew).await
    }

    /// The same for the object stores.
    pub(super) async fn keys(&self) -> object_store::Result<Arc<Credentials>> {
        self.credentials().await.map_err(|e| self.failed(e))
    }

    /// Our errors in the words of the object stores, so that theirs and ours are told apart alike.
    pub(super) fn failed(&self, error: Error) -> object_store::Error {
        let path = self.table.name.to_string();
        match error.kind() {
            ErrorKind::Denied => object_store::Error::PermissionDenied {
                path,
                source: Box::new(error),
            },
            _ => object_store::Error::Generic {
                store: "Unity Catalog",
                source: Box::new(error),
            },
        }
    }
}

/// Time left until `expiration`, in milliseconds since 1970.
fn lifetime(expiration: i64) -> Duration {
    let expires = UNIX_EPOCH + Duration::from_millis(u64::try_from(expiration).unwrap_or(0));
    expires
        .duration_since(SystemTime::now())
        .unwrap_or_default()
}
