//! From a name to a table: found in the catalog or created, then opened the best way there is.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider, TableProviderFactory};
use datafusion::logical_expr::CreateExternalTable;
use object_store::ObjectStore;
use url::Url;

use super::catalog::{Catalog, Operation, TableInfo};
use super::client::Client;
use super::features::{self, Protocol};
use super::name::TableName;
use super::settings::{ReadMode, Settings, Version};
use super::statement::{ResultForm, Statement, Warehouse};
use super::table::{DatabricksTable, Way};
use super::types;
use super::vended::{VendedStore, VendedTable};
use crate::declared::check_same;
use crate::delta::{self, DeltaFactory};
use crate::error::{Error, ErrorKind, Result};
use crate::sql::ddl;
use crate::sql::dialect::DATABRICKS;

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

    /// The table `name`; `declared` is its schema if it may be created.
    pub(super) async fn open(
        &self,
        state: &dyn Session,
        cmd: &CreateExternalTable,
        delta: &DeltaFactory,
        name: TableName,
        declared: Option<SchemaRef>,
    ) -> Result<DatabricksTable> {
        let info = match (self.catalog.table(&name).await, &declared) {
            (Err(error), Some(declared)) if error.kind() == ErrorKind::NotFound => {
                self.create(&name, declared).await?;
                self.catalog.table(&name).await?
            }
            (found, _) => found?,
        };
        let mode = self.settings.read;
        let files = match mode {
            ReadMode::Warehouse => Err(Against::from("is read so by databricks.read".to_owned())),
            ReadMode::Auto | ReadMode::Files => self.files(state, cmd, delta, &name, &info).await?,
        };
        let (read, write) = match files {
            Ok(files) => {
                let Files { delta, store, .. } = files;
                let write = match files.against_writing {
                    None => Way::Files {
                        delta: Arc::clone(&delta),
                        store: Arc::clone(&store),
                    },
                    Some(because) => Way::Warehouse {
                        because: because.into(),
                    },
                };
                (Way::Files { delta, store }, write)
            }
            Err(against) if mode == ReadMode::Files || self.warehouse.is_none() => {
                return Err(self.refused(&name, against));
            }
            Err(Against { reason, .. }) => {
                let because: Arc<str> = reason.into();
                let write = Way::Warehouse {
                    because: Arc::clone(&because),
                };
                (Way::Warehouse { because }, write)
            }
        };
        let columns = info.columns.unwrap_or_default();
        let (schema, columns) = match (&read, &self.warehouse) {
            (Way::Files { delta, .. }, _) => (delta.schema(), columns),
            (_, Some(warehouse)) if columns.is_empty() => {
                let columns = described(warehouse, &name).await?;
                (types::schema(&columns), columns)
            }
            _ => (types::schema(&columns), columns),
        };
        if let Some(declared) = &declared {
            check_same(declared, &schema, &name.to_string())?;
        }
        if let Some(key) = &self.settings.key
            && schema.column_with_name(key).is_none()
        {
            let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
            return Err(Error::unknown("column in write.key", key, &names));
        }
        Ok(DatabricksTable {
            name,
            schema,
            columns,
            read,
            write,
            warehouse: self.warehouse.clone(),
            key: self.settings.key.clone(),
            version: self.settings.version.clone(),
        })
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

    /// Creates the table with the declared schema, as the warehouse does it.
    async fn create(&self, name: &TableName, declared: &SchemaRef) -> Result<()> {
        let Some(warehouse) = &self.warehouse else {
            return Err(Error::invalid(format!(
                "there is no table {name}, and to create it the option databricks.warehouse_id \
                 is needed"
            )));
        };
        let key = self.settings.key.as_deref();
        let sql = ddl::create_table(&DATABRICKS, &name.sql(), declared, key)?;
        let sql = sql.replacen("CREATE TABLE", "CREATE TABLE IF NOT EXISTS", 1);
        let what = format!("creating {name}");
        warehouse
            .run(&what, &Statement::command(sql))
            .await
            .map(drop)
    }
}

/// Columns that the catalog does not tell, from the manifest of an empty result.
async fn described(
    warehouse: &Warehouse,
    name: &TableName,
) -> Result<Vec<super::catalog::ColumnInfo>> {
    let statement = Statement {
        result: ResultForm::Links,
        ..Statement::command(format!("SELECT * FROM {} LIMIT 0", name.sql()))
    };
    let what = format!("describing {name}");
    let finished = warehouse.run(&what, &statement).await?;
    let columns = finished.manifest.schema.and_then(|s| s.columns);
    columns.ok_or_else(|| {
        Error::new(
            ErrorKind::Corrupt,
            format!("{what}: the manifest of the result has no columns"),
        )
    })
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
    if let Some(key) = &settings.key {
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
