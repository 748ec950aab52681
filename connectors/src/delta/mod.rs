//! Delta Lake tables: opened per statement, created by an INSERT on request, added to exactly once.
//!
//! The provider of the deltalake crate is a fixed snapshot; ours finds the latest version for each
//! statement, so that `INSERT INTO qa ...; SELECT ... FROM qa` in one session sees its own rows.
//!
//! | what | where |
//! |---|---|
//! | which table, which version, whose store | `source`, `stores`, `options` |
//! | may it be read, written to | `features`, `numbers` |
//! | reading, several partitions | `table`, `scan`, `exec` |
//! | the files of a table are its own, and their deletion vectors fit | `listed`, `deletions` |
//! | INSERT: the table is made, and takes columns | `wanted`, `schema` |
//! | INSERT: rows to files | `sink`, `checks`, `layout`, `files` |
//! | INSERT: files to a version, once | `target`, `keys`, `log` |

mod checks;
mod deletions;
mod exec;
mod features;
mod files;
mod keys;
mod layout;
mod listed;
mod log;
mod numbers;
mod options;
mod scan;
mod schema;
mod sink;
mod source;
pub(crate) mod stores;
mod table;
mod target;
mod wanted;

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider, TableProviderFactory};
use datafusion::logical_expr::CreateExternalTable;

use crate::connector::{Connector, ConnectorOptions, FILES, Maturity};
use crate::declared;
use crate::error::{Error, ErrorKind, Result};
use crate::evolve;
use crate::files::check;
use crate::options::TableOptions;
use crate::write::{self, WriteOptions};

use options::OPTIONS;
pub(crate) use source::DeltaSource;
pub(crate) use table::DeltaProvider;
use wanted::Wanted;

/// `STORED AS DELTA`.
pub(crate) static CONNECTOR: Connector = Connector {
    name: "DELTA",
    summary: "Delta Lake tables, created and merged by key if asked",
    reads: true,
    writes: true,
    pushdown: "projection, filters (files, row groups), LIMIT",
    authentication: FILES,
    maturity: Maturity::Stable,
    options: OPTIONS,
    check: |c, request, steps| Box::pin(check::check(c, request, steps)),
    is_table: |table| table.is::<DeltaProvider>(),
    factory: |c, o| Arc::new(DeltaFactory::new(c, o)),
};

/// Opens or creates the table that a statement names.
#[derive(Debug)]
pub(crate) struct DeltaFactory {
    connector: &'static Connector,
    table_schemas: Vec<(&'static str, SchemaRef)>,
}

impl DeltaFactory {
    pub(crate) fn new(connector: &'static Connector, options: &ConnectorOptions) -> Self {
        Self {
            connector,
            table_schemas: options.table_schemas.clone(),
        }
    }

    async fn provider(&self, cmd: &CreateExternalTable) -> Result<DeltaProvider> {
        let name = cmd.name.to_string();
        let options = TableOptions::parse(self.connector, &name, &cmd.options)?;
        let location = write::one_location(cmd)?;
        let (known, more) = (&self.table_schemas, cmd.schema.inner());
        let declared = declared::asked_for(known, options.get("table.create"), more)?;
        let source = DeltaSource::new(location, &options)?;
        let location = source.location().to_owned();
        let location = location.as_str();
        let evolve = evolve::asked_for(&options)?;
        let listed = (!more.fields().is_empty()).then(|| Arc::clone(more));
        let folders = &cmd.table_partition_cols;
        let wanted = declared.or(listed).map(|columns| Wanted {
            columns,
            evolve,
            folders: folders.clone(),
        });
        wanted.as_ref().map_or(Ok(()), Wanted::check)?;
        let columns = match (source.open().await, &wanted) {
            (Ok(table), wanted) => {
                wanted::check_folders(&table, folders, location)?;
                let found = scan::provider(&table, location)?.schema();
                match wanted {
                    Some(wanted) => wanted.after(&found, location).await?,
                    None => found,
                }
            }
            (Err(error), _) if error.kind() != ErrorKind::NotFound || source.is_pinned() => {
                return Err(error);
            }
            (Err(_), Some(wanted)) => wanted.fresh(location).await?,
            (Err(_), None) => {
                return Err(Error::new(
                    ErrorKind::NotFound,
                    format!(
                        "there is no Delta table at '{location}'; to create one, list its columns, or \
                         say OPTIONS ('table.create' 'qa_pairs')"
                    ),
                ));
            }
        };
        let write = WriteOptions::parse(&options)?;
        let provider = DeltaProvider::try_new(source, columns, write, wanted)?;
        Ok(provider.with_defaults(cmd.column_defaults.clone()))
    }
}

#[async_trait]
impl TableProviderFactory for DeltaFactory {
    async fn create(
        &self,
        _: &dyn Session,
        cmd: &CreateExternalTable,
    ) -> datafusion::error::Result<Arc<dyn TableProvider>> {
        Ok(Arc::new(self.provider(cmd).await?))
    }
}
