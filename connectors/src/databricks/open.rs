//! From a name to a table: found in the catalog, then opened the best way there is.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use datafusion::catalog::{Session, TableProvider, TableProviderFactory};
use datafusion::logical_expr::CreateExternalTable;
use object_store::ObjectStore;
use url::Url;

use super::catalog::{Catalog, ColumnInfo, Operation, TableInfo};
use super::features::{self, Protocol};
use super::name::TableName;
use super::session::Client;
use super::settings::{ReadMode, Settings, Version};
use super::statement::Warehouse;
use super::system::WarehouseSystem;
use super::table::{DatabricksTable, Way};
use super::vended::VendedStore;
use super::vending::VendedTable;
use crate::delta::{self, DeltaFactory};
use crate::error::{Error, ErrorKind, Result};
use crate::evolve;
use crate::sql::table::SqlTable;
use crate::sql::target::Asked;

/// A workspace as one table's options describe it.
#[derive(Debug)]
pub(super) struct Workspace {
    pub(super) settings: Arc<Settings>,
    pub(super) client: Arc<Client>,
    pub(super) catalog: Catalog,
    pub(super) warehouse: Option<Warehouse>,
}

/// A table opened as files.
struct Files {
    delta: Arc<dyn TableProvider>,
    store: Arc<VendedStore>,
    /// Why it cannot be written to as files.
    against_writing: Option<String>,
}

/// Why a table is not opened as files: it ...
pub(super) struct Against {
    reason: String,
    error: Option<Error>,
}

impl From<String> for Against {
    fn from(reason: String) -> Self {
        Self {
            reason,
            error: None,
        }
    }
}

impl Workspace {
    pub(super) fn new(settings: Settings) -> Result<Self> {
        let client = Arc::new(Client::new(&settings)?);
        let warehouse = settings.warehouse_id.clone().map(|id| Warehouse {
            client: Arc::clone(&client),
            id,
            query_timeout: settings.query_timeout,
        });
        Ok(Self {
            settings: Arc::new(settings),
            catalog: Catalog::new(Arc::clone(&client)),
            client,
            warehouse,
        })
    }

    /// The table `name`, as the statement `asked` for it.
    pub(super) async fn open(
        &self,
        state: &dyn Session,
        cmd: &CreateExternalTable,
        delta: &DeltaFactory,
        name: TableName,
        asked: Asked,
    ) -> Result<DatabricksTable> {
        let pinned = self.settings.version.is_some();
        let info = match self.catalog.table(&name).await {
            Err(error) if error.kind() == ErrorKind::NotFound && asked.contract.is_some() => {
                let because: Arc<str> = "is not there yet".into();
                let way = self.through_warehouse(&name, None, because, asked).await?;
                let Way::Warehouse { table: Some(_), .. } = &way else {
                    return Err(Error::invalid(format!(
                        "there is no table {name}, and to create it the option \
                         databricks.warehouse_id is needed"
                    )));
                };
                return Ok(DatabricksTable {
                    name,
                    read: way.clone(),
                    write: way,
                    pinned,
                });
            }
            found => found?,
        };
        let mode = self.settings.read;
        let files = match mode {
            ReadMode::Warehouse => Err(Against::from("is read so by databricks.read".to_owned())),
            ReadMode::Auto | ReadMode::Files => self.files(state, cmd, delta, &name, &info).await?,
        };
        let known = Some(info.columns.unwrap_or_default());
        let (read, write) = match files {
            Ok(files) => {
                let Files { delta, store, .. } = files;
                let schema = delta.schema();
                let evolve = asked.write.evolve;
                let lacking = match &asked.contract {
                    Some(wanted) => evolve::missing(wanted, &schema, evolve, &name.to_string())?,
                    None => vec![],
                };
                let read = Way::Files { delta, store };
                if lacking.is_empty() {
                    asked.write.check_key(&schema)?;
                    let write = match files.against_writing {
                        None => read.clone(),
                        Some(because) => {
                            self.through_warehouse(&name, known, because.into(), asked)
                                .await?
                        }
                    };
                    (read, write)
                } else {
                    // Who adds a column to its files alone leaves the catalog behind.
                    let because = Arc::from("lacks columns that table.evolve adds");
                    let write = self.through_warehouse(&name, known, because, asked).await?;
                    match &write {
                        Way::Warehouse { table: Some(_), .. } => (write.clone(), write),
                        _ => (read, write),
                    }
                }
            }
            Err(against) if mode == ReadMode::Files || self.warehouse.is_none() => {
                return Err(self.refused(&name, against));
            }
            Err(Against { reason, .. }) => {
                let way = self.through_warehouse(&name, known, reason.into(), asked);
                let way = way.await?;
                (way.clone(), way)
            }
        };
        Ok(DatabricksTable {
            name,
            read,
            write,
            pinned,
        })
    }

    /// The way through the warehouse, if there is one.
    async fn through_warehouse(
        &self,
        name: &TableName,
        known: Option<Vec<ColumnInfo>>,
        because: Arc<str>,
        asked: Asked,
    ) -> Result<Way> {
        let table = match &self.warehouse {
            None => None,
            Some(warehouse) => {
                let system = WarehouseSystem {
                    warehouse: warehouse.clone(),
                    catalog: self.catalog.clone(),
                    name: name.clone(),
                    known: Arc::new(Mutex::new(known)),
                    version: self.settings.version.clone(),
                    because: Arc::clone(&because),
                };
                Some(Arc::new(SqlTable::open(Arc::new(system), asked).await?))
            }
        };
        Ok(Way::Warehouse { because, table })
    }

    /// The table as files, or what stands in the way. What may pass, such as a server that is
    /// down, is an error: the other way costs a warehouse.
    async fn files(
        &self,
        state: &dyn Session,
        cmd: &CreateExternalTable,
        delta: &DeltaFactory,
        name: &TableName,
        info: &TableInfo,
    ) -> Result<Result<Files, Against>> {
        let store = match self.store(name, info) {
            Ok(store) => store,
            Err(against) => return Ok(Err(against)),
        };
        match open_files(state, cmd, delta, name, info, store, &self.settings).await {
            Ok(files) => Ok(Ok(files)),
            Err(Against {
                error: Some(error), ..
            }) if error.kind() == ErrorKind::Unavailable => Err(Error::new(
                ErrorKind::Unavailable,
                format!(
                    "{error}; if the storage of {name} can never be reached from here, say \
                     'databricks.read' 'warehouse'"
                ),
            )
            .with_source(error)),
            Err(against) => Ok(Err(against)),
        }
    }

    /// The store of the table's files; nothing is asked for yet.
    pub(super) fn store(
        &self,
        name: &TableName,
        info: &TableInfo,
    ) -> Result<Arc<VendedStore>, Against> {
        if let Some(reason) = features::against_reading(info) {
            return Err(reason.into());
        }
        let (Some(location), Some(id)) = (&info.storage_location, &info.table_id) else {
            return Err("has no storage location".to_owned().into());
        };
        let location = Url::parse(location)
            .map_err(|_| Against::from(format!("lies at '{location}', which is no URL")))?;
        if location.scheme() == "file" && !self.settings.allow_local_files {
            let reason = "lies at file://, which a catalog must not open on this machine unless \
                          'databricks.allow_local_files' is 'true'";
            return Err(reason.to_owned().into());
        }
        Ok(Arc::new(VendedStore::new(VendedTable {
            catalog: self.catalog.clone(),
            name: name.clone(),
            id: id.clone(),
            location,
            settings: Arc::clone(&self.settings),
        })))
    }

    fn refused(&self, name: &TableName, against: Against) -> Error {
        let advice = match (self.settings.read, &self.warehouse) {
            (ReadMode::Files, Some(_)) => "say 'databricks.read' 'auto'",
            (ReadMode::Files, None) => {
                "say 'databricks.read' 'auto' and set databricks.warehouse_id"
            }
            _ => "set databricks.warehouse_id",
        };
        let kind = match against.error.as_ref().map(Error::kind) {
            // The libraries say most of what they cannot do without a kind.
            None | Some(ErrorKind::Internal) => ErrorKind::Unsupported,
            Some(kind) => kind,
        };
        let error = Error::new(
            kind,
            format!(
                "{name} cannot be read as files, because it {}; {advice} to read it through a SQL \
                 warehouse",
                against.reason
            ),
        );
        match against.error {
            Some(cause) => error.with_source(cause),
            None => error,
        }
    }
}

async fn open_files(
    state: &dyn Session,
    cmd: &CreateExternalTable,
    delta: &DeltaFactory,
    name: &TableName,
    info: &TableInfo,
    store: Arc<VendedStore>,
    settings: &Settings,
) -> Result<Files, Against> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |error: Error| Against {
            reason: format!("{what}: {error}"),
            error: Some(error),
        }
    };
    let vended = store.credentials(Operation::Read).await;
    vended.map_err(failed("is not opened to readers outside Databricks"))?;
    let known: Arc<dyn ObjectStore> = Arc::<VendedStore>::clone(&store);
    let url = delta::stores::register(&known, &name.to_string())
        .map_err(failed("has no place in this session"))?;
    let protocol = Protocol::read(&url, settings.version.as_ref()).await;
    let protocol = protocol.map_err(failed("has a log that cannot be read from outside"))?;
    if let Some(reason) = protocol.against_reading() {
        return Err(reason.into());
    }
    let provider = delta
        .create(state, &delta_command(cmd, &url, settings))
        .await;
    let provider = provider
        .map_err(|e| Error::while_doing(format!("opening {name}"), e))
        .map_err(failed("cannot be opened from outside"))?;
    Ok(Files {
        delta: provider,
        store,
        against_writing: features::against_writing(info).or_else(|| protocol.against_writing()),
    })
}

/// The statement that makes the same table of the files at `url`.
fn delta_command(cmd: &CreateExternalTable, url: &Url, settings: &Settings) -> CreateExternalTable {
    let mut options = HashMap::new();
    if let Some(key) = &settings.write.key {
        options.insert("write.key".to_owned(), key.clone());
    }
    match &settings.version {
        Some(Version::Number(n)) => options.insert("delta.version".to_owned(), n.to_string()),
        Some(Version::Timestamp(t)) => options.insert("delta.timestamp".to_owned(), t.clone()),
        None => None,
    };
    CreateExternalTable {
        locations: vec![url.to_string()],
        file_type: "DELTA".to_owned(),
        options,
        definition: None,
        ..cmd.clone()
    }
}
