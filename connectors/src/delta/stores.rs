//! The stores of tables that do not lie on the local disk, each under a URL of its own.
//!
//! DataFusion and deltalake find a store by scheme and host, and the first one registered stays.
//! Under `s3://bucket` a table of a bucket would be read with the credentials of another. So each
//! opened table gets a host that nothing else has, `delta://main.legal.cases.7/`, and its directory
//! is the root there. The stores themselves are ours ([`crate::stores`]), or a catalog's.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Once, PoisonError, RwLock, Weak};

use deltalake::logstore::{
    LogStore, LogStoreFactory, ObjectStoreFactory, ObjectStoreRef, StorageConfig, default_logstore,
    logstore_factories, object_store_factories,
};
use deltalake::{DeltaResult, DeltaTableError};
use object_store::ObjectStore;
use object_store::path::Path;
use url::Url;

use crate::error::{Error, ErrorKind, Result};

/// Scheme of the URLs that stand for tables.
const SCHEME: &str = "delta";

/// Stores by host, as long as their table lives.
static STORES: LazyLock<RwLock<HashMap<String, Weak<dyn ObjectStore>>>> =
    LazyLock::new(RwLock::default);

/// Counts the tables opened by this process.
static OPENED: AtomicU64 = AtomicU64::new(1);

/// Makes `store`, whose root is the directory of the table `name`, known to deltalake as long as it
/// lives; the URL that it is known under.
pub(crate) fn register(store: &Arc<dyn ObjectStore>, name: &str) -> Result<Url> {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        if let Ok(scheme) = Url::parse(&format!("{SCHEME}://")) {
            object_store_factories().insert(scheme.clone(), Arc::new(Known));
            logstore_factories().insert(scheme, Arc::new(Known));
        }
    });
    // Names may hold characters that hosts may not; the number tells tables apart.
    let plain = |c: char| match c.is_ascii_alphanumeric() || "._-".contains(c) {
        true => c.to_ascii_lowercase(),
        false => '-',
    };
    let plain: String = name.chars().map(plain).collect();
    let host = format!("{plain}.{}", OPENED.fetch_add(1, Ordering::Relaxed));
    let url = Url::parse(&format!("{SCHEME}://{host}/"))
        .map_err(|e| Error::new(ErrorKind::Internal, format!("the URL of table {name}: {e}")))?;
    let mut stores = STORES.write().unwrap_or_else(PoisonError::into_inner);
    stores.retain(|_, store| store.strong_count() > 0);
    stores.insert(host, Arc::downgrade(store));
    Ok(url)
}

/// The store that is registered under `url`; None if that is no URL of ours, or its table is gone.
pub(super) fn registered(url: &Url) -> Option<Arc<dyn ObjectStore>> {
    if url.scheme() != SCHEME {
        return None;
    }
    let stores = STORES.read().unwrap_or_else(PoisonError::into_inner);
    stores.get(url.host_str()?).and_then(Weak::upgrade)
}

/// Finds registered stores for deltalake.
#[derive(Debug)]
struct Known;

impl ObjectStoreFactory for Known {
    fn parse_url_opts(&self, url: &Url, _: &StorageConfig) -> DeltaResult<(ObjectStoreRef, Path)> {
        let store = registered(url);
        let store = store.ok_or_else(|| DeltaTableError::InvalidTableLocation(url.to_string()))?;
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
