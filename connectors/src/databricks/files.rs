//! Tables of Unity Catalog as Delta tables: their stores under a URL of their own, the rest left
//! to the DELTA connector.
//!
//! DataFusion and deltalake find a store by scheme and host, and the first one registered stays.
//! Under `s3://bucket` two tables of one bucket would share the credentials of the first. So each
//! opened table gets a host that nothing else has, `databricks://main.legal.cases.7/`, and its
//! directory is the root there.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Once, PoisonError, RwLock, Weak};

use deltalake::logstore::{
    LogStore, LogStoreFactory, ObjectStoreFactory, ObjectStoreRef, StorageConfig, default_logstore,
    logstore_factories, object_store_factories,
};
use deltalake::{DeltaResult, DeltaTableError};
use object_store::path::Path;
use url::Url;

use super::name::TableName;
use super::vended::VendedStore;
use crate::error::{Error, ErrorKind, Result};

/// Stores by host, as long as their table lives.
static STORES: LazyLock<RwLock<HashMap<String, Weak<VendedStore>>>> =
    LazyLock::new(RwLock::default);

/// Counts the tables opened by this process.
static OPENED: AtomicU64 = AtomicU64::new(1);

/// Makes `store` known to deltalake; the URL that it is known under.
pub(super) fn register(store: &Arc<VendedStore>, name: &TableName) -> Result<Url> {
    static SCHEME: Once = Once::new();
    SCHEME.call_once(|| {
        if let Ok(scheme) = Url::parse("databricks://") {
            object_store_factories().insert(scheme.clone(), Arc::new(Known));
            logstore_factories().insert(scheme, Arc::new(Known));
        }
    });
    // Names may hold characters that hosts may not; the number tells tables apart.
    let plain: String = name
        .to_string()
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "._-".contains(c) {
                c
            } else {
                '-'
            }
        })
        .collect();
    let host = format!("{plain}.{}", OPENED.fetch_add(1, Ordering::Relaxed));
    let url = Url::parse(&format!("databricks://{host}/"))
        .map_err(|e| Error::new(ErrorKind::Internal, format!("the URL of table {name}: {e}")))?;
    let mut stores = STORES.write().unwrap_or_else(PoisonError::into_inner);
    stores.retain(|_, store| store.strong_count() > 0);
    stores.insert(host, Arc::downgrade(store));
    Ok(url)
}

/// Finds registered stores for deltalake.
#[derive(Debug)]
struct Known;

impl ObjectStoreFactory for Known {
    fn parse_url_opts(&self, url: &Url, _: &StorageConfig) -> DeltaResult<(ObjectStoreRef, Path)> {
        let stores = STORES.read().unwrap_or_else(PoisonError::into_inner);
        let store: ObjectStoreRef = stores
            .get(url.host_str().unwrap_or_default())
            .and_then(Weak::upgrade)
            .ok_or_else(|| DeltaTableError::InvalidTableLocation(url.to_string()))?;
        Ok((store, Path::from(url.path())))
    }
}

impl LogStoreFactory for Known {
    fn with_options(
        &self,
        prefixed_store: ObjectStoreRef,
        root_store: ObjectStoreRef,
        location: &Url,
        options: &StorageConfig,
    ) -> DeltaResult<Arc<dyn LogStore>> {
        // All three clouds put if absent, which is what commits need.
        Ok(default_logstore(
            prefixed_store,
            root_store,
            location,
            options,
        ))
    }
}
