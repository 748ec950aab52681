//! A schema of tables that are opened when first named, laid over the schema that was there.
//!
//! An opened table stays open for the session. An error goes to the statement that named the table
//! and is not kept: the next one tries again.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

use async_trait::async_trait;
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::common::exec_err;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{CreateExternalTable, TableType};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};

use crate::context::Host;
use crate::error::{Error, ErrorKind};

/// Tables known by name, over the `inner` schema, which takes every other name.
#[derive(Debug)]
pub(crate) struct DeclaredTables {
    inner: Arc<dyn SchemaProvider>,
    tables: RwLock<BTreeMap<String, Arc<Declared>>>,
}

impl DeclaredTables {
    /// Lays `tables` over `inner`; `origin` is where they are written.
    pub(super) fn over(
        inner: Arc<dyn SchemaProvider>,
        host: Host,
        origin: &str,
        tables: Vec<CreateExternalTable>,
    ) -> Result<Self> {
        let mut known = BTreeMap::new();
        for statement in tables {
            let name = statement.name.table().to_owned();
            if inner.table_exist(&name) {
                return exec_err!("{origin} [tables.{name}]: the session has a table '{name}'");
            }
            let declared = Declared {
                doing: format!("{origin} [tables.{name}]"),
                host: host.clone(),
                statement,
                opening: Mutex::default(),
            };
            known.insert(name, Arc::new(declared));
        }
        Ok(Self {
            inner,
            tables: RwLock::new(known),
        })
    }

    /// Names of the tables declared with `format`, opened or not, and the schema below.
    pub(crate) fn of_format(&self, format: &str) -> (Vec<String>, &Arc<dyn SchemaProvider>) {
        let tables = self.read();
        let found = tables
            .iter()
            .filter(|(_, table)| table.statement.file_type.eq_ignore_ascii_case(format));
        (found.map(|(name, _)| name.clone()).collect(), &self.inner)
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<String, Arc<Declared>>> {
        self.tables.read().unwrap_or_else(|e| e.into_inner())
    }

    /// The table that a name means which no table has exactly: SQL reads `Cases` as `cases`. The file
    /// has no two names that differ by case alone.
    fn alike(&self, name: &str) -> Option<Arc<Declared>> {
        let lower = name.to_lowercase();
        let tables = self.read();
        let found = tables
            .iter()
            .find(|(known, _)| known.to_lowercase() == lower);
        found.map(|(_, declared)| Arc::clone(declared))
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<String, Arc<Declared>>> {
        self.tables.write().unwrap_or_else(|e| e.into_inner())
    }
}

#[async_trait]
impl SchemaProvider for DeclaredTables {
    fn owner_name(&self) -> Option<&str> {
        self.inner.owner_name()
    }

    fn table_names(&self) -> Vec<String> {
        let mut names = self.inner.table_names();
        names.extend(self.read().keys().cloned());
        names
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let declared = self.read().get(name).cloned();
        match declared {
            Some(declared) => declared.open().await.map(Some),
            None => match (self.inner.table(name).await?, self.alike(name)) {
                (None, Some(declared)) => declared.open().await.map(Some),
                (found, _) => Ok(found),
            },
        }
    }

    async fn table_type(&self, name: &str) -> Result<Option<TableType>> {
        // Known without opening it: what CREATE EXTERNAL TABLE makes is never a view.
        if self.read().contains_key(name) {
            return Ok(Some(TableType::Base));
        }
        match self.inner.table_type(name).await? {
            None if self.alike(name).is_some() => Ok(Some(TableType::Base)),
            found => Ok(found),
        }
    }

    fn register_table(
        &self,
        name: String,
        table: Arc<dyn TableProvider>,
    ) -> Result<Option<Arc<dyn TableProvider>>> {
        match self.read().contains_key(&name) {
            true => exec_err!("The table {name} already exists"),
            false => self.inner.register_table(name, table),
        }
    }

    fn deregister_table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let mut tables = self.write();
        let lower = name.to_lowercase();
        let key = match tables.contains_key(name) || self.inner.table_exist(name) {
            true => Some(name.to_owned()),
            false => tables.keys().find(|k| k.to_lowercase() == lower).cloned(),
        };
        let declared = key.and_then(|key| tables.remove(&key));
        drop(tables);
        match declared {
            Some(declared) => Ok(declared.opened()),
            None => self.inner.deregister_table(name),
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        self.inner.table_exist(name) || self.alike(name).is_some()
    }
}

/// The work of opening one table. Shared, because a look-up may be dropped half way (a planner
/// polls it once before it waits): the next one goes on with the same work instead of a second.
type Opening = Shared<BoxFuture<'static, Result<Arc<dyn TableProvider>, Arc<DataFusionError>>>>;

/// One table that is known by name.
struct Declared {
    /// For errors: the file and the section.
    doing: String,
    host: Host,
    statement: CreateExternalTable,
    opening: Mutex<Option<Opening>>,
}

impl Declared {
    async fn open(&self) -> Result<Arc<dyn TableProvider>> {
        let opening = {
            let mut slot = self.slot();
            slot.get_or_insert_with(|| self.begin().boxed().shared())
                .clone()
        };
        opening.clone().await.map_err(|error| {
            let mut slot = self.slot();
            if slot.as_ref().is_some_and(|kept| kept.ptr_eq(&opening)) {
                *slot = None;
            }
            DataFusionError::Shared(error)
        })
    }

    /// What [`Declared::open`] shares.
    fn begin(
        &self,
    ) -> impl Future<Output = Result<Arc<dyn TableProvider>, Arc<DataFusionError>>> + use<> {
        let (host, statement, doing) = (
            self.host.clone(),
            self.statement.clone(),
            self.doing.clone(),
        );
        async move {
            let opened = async {
                let lost = || Error::new(ErrorKind::Internal, "the session has ended");
                let state = host.upgrade().ok_or_else(lost)?.read().clone();
                let format = statement.file_type.to_uppercase();
                let factory = state.table_factories().get(&format).ok_or_else(|| {
                    let known: Vec<&str> =
                        state.table_factories().keys().map(String::as_str).collect();
                    Error::unknown("format", &format, &known)
                })?;
                factory.create(&state, &statement).await
            };
            opened.await.map_err(|error| {
                let error = Error::from_datafusion(error);
                let message = format!("{doing}: {error}");
                let named = Error::new(error.kind(), message).with_source(error);
                Arc::new(DataFusionError::from(named))
            })
        }
    }

    /// The table, if it is open.
    fn opened(&self) -> Option<Arc<dyn TableProvider>> {
        self.slot().as_ref()?.peek()?.as_ref().ok().cloned()
    }

    fn slot(&self) -> MutexGuard<'_, Option<Opening>> {
        self.opening.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl fmt::Debug for Declared {
    /// Without the statement: its options hold credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Declared")
            .field("doing", &self.doing)
            .field("open", &self.opened().is_some())
            .finish_non_exhaustive()
    }
}
