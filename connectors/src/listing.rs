//! CSV, PARQUET and JSON: DataFusion's listing tables, reached through our options and stores.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider, TableProviderFactory};
use datafusion::datasource::listing_table_factory::ListingTableFactory;
use datafusion::error::Result;
use datafusion::logical_expr::CreateExternalTable;

use crate::connector::{self, Connector, ConnectorOptions};
use crate::error::Error;
use crate::options::TableOptions;
use crate::stores;

/// Checks options, registers the object store, then leaves the rest to the library.
#[derive(Debug)]
pub(crate) struct ListingFactory {
    name: &'static str,
}

impl ListingFactory {
    pub(crate) fn new(connector: &Connector, _: &ConnectorOptions) -> Self {
        Self {
            name: connector.name,
        }
    }
}

#[async_trait]
impl TableProviderFactory for ListingFactory {
    async fn create(
        &self,
        state: &dyn Session,
        cmd: &CreateExternalTable,
    ) -> Result<Arc<dyn TableProvider>> {
        let connector = connector::named(self.name)?;
        let table = cmd.name.to_string();
        let options = TableOptions::parse(connector, &table, &cmd.options)?;
        let mut cmd = cmd.clone();
        for location in &mut cmd.locations {
            if cmd.or_replace || !is_new_target(location) {
                stores::prepare(state.runtime_env(), location, &options)?;
            }
            if stores::is_local(location)
                && Path::new(location).is_dir()
                && !location.ends_with('/')
            {
                location.push('/');
            }
        }
        let mut passed: HashMap<String, String> = options.format.clone();
        for (key, value) in &options.own {
            passed.insert((*key).to_owned(), value.clone());
        }
        if self.name == "CSV" || self.name == "JSON" {
            add_compression(&mut passed, &cmd.locations);
        }
        cmd.options = passed;
        cmd.file_type = self.name.to_owned();
        ListingTableFactory::new().create(state, &cmd).await
    }
}

/// A directory path that does not exist yet can be the target of an INSERT.
fn is_new_target(location: &str) -> bool {
    location.ends_with('/') && stores::is_local(location) && !Path::new(location).exists()
}

/// `cases.csv.gz` says how it is compressed; an option may say so too.
fn add_compression(options: &mut HashMap<String, String>, locations: &[String]) {
    const EXTENSIONS: &[(&str, &str)] = &[
        (".gz", "gzip"),
        (".zst", "zstd"),
        (".bz2", "bzip2"),
        (".xz", "xz"),
    ];
    let found = EXTENSIONS
        .iter()
        .find(|(ext, _)| !locations.is_empty() && locations.iter().all(|l| l.ends_with(ext)));
    if let Some((_, compression)) = found {
        options
            .entry("format.compression".into())
            .or_insert_with(|| (*compression).to_owned());
    }
}
