//! The table of an INSERT: made if it is not there, and given the columns that it lacks, before a
//! row is asked for. Nothing else makes or changes a table.

use std::sync::Arc;

use datafusion::arrow::datatypes::{FieldRef, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use deltalake::DeltaTable;
use object_store::memory::InMemory;
use url::Url;

use super::source::DeltaSource;
use super::{features, log, scan, schema};
use crate::error::{Error, ErrorKind, Result};
use crate::evolve;

/// Attempts to add columns. Each is lost to another writer that committed meanwhile.
const ATTEMPTS: usize = 20;

/// The columns that `table.create` or the statement declares.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(super) columns: SchemaRef,
    /// A table that lacks some takes them.
    pub(super) evolve: bool,
    /// PARTITIONED BY.
    pub(super) folders: Vec<String>,
}

impl Wanted {
    /// The columns of the table at `location` after an INSERT; it has the columns `found`.
    pub(super) async fn after(&self, found: &SchemaRef, location: &str) -> Result<SchemaRef> {
        let lacking = evolve::missing(&self.columns, found, self.evolve, location)?;
        if lacking.is_empty() {
            return Ok(Arc::clone(found));
        }
        let new = as_delta(&Arc::new(Schema::new(lacking)), location).await?;
        let all: Vec<FieldRef> = found.fields().iter().chain(new.fields()).cloned().collect();
        Ok(Arc::new(Schema::new(all)))
    }

    /// # Errors
    /// A column of PARTITIONED BY that is not declared.
    pub(super) fn check(&self) -> Result<()> {
        let names: Vec<&str> = self
            .columns
            .fields()
            .iter()
            .map(|f| f.name().as_str())
            .collect();
        match self
            .folders
            .iter()
            .find(|name| !names.contains(&name.as_str()))
        {
            Some(name) => Err(Error::unknown("column in PARTITIONED BY", name, &names)),
            None => Ok(()),
        }
    }

    /// The columns of a table at `location` that an INSERT makes.
    pub(super) async fn fresh(&self, location: &str) -> Result<SchemaRef> {
        as_delta(&self.columns, location).await
    }
}

/// An error if the table at `location` has other folders than `asked` for by PARTITIONED BY.
pub(super) fn check_folders(table: &DeltaTable, asked: &[String], location: &str) -> Result<()> {
    let state = table.snapshot().map_err(|e| log::opening(location, e))?;
    let found = state.metadata().partition_columns();
    if asked.is_empty() || asked == found {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the Delta table at '{location}' is partitioned by ({}), not by ({}); leave PARTITIONED BY \
         out to take it as it is",
        found.join(", "),
        asked.join(", ")
    )))
}

/// `columns` as a Delta table of them has them: such a table is made in memory.
async fn as_delta(columns: &SchemaRef, location: &str) -> Result<SchemaRef> {
    let url = Url::parse("memory:///").map_err(|e| Error::while_doing("naming a table", e))?;
    let scratch = DeltaSource::with_store(location, url, Arc::new(InMemory::new()));
    let table = scratch.create(columns, &[]).await?;
    Ok(scan::provider(&table, location)?.schema())
}

/// Opens the table at `source` for an INSERT.
pub(super) async fn open(source: &DeltaSource, wanted: Option<&Wanted>) -> Result<DeltaTable> {
    let Some(wanted) = wanted else {
        return source.open().await;
    };
    let mut table = match source.open().await {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            source.create(&wanted.columns, &wanted.folders).await?
        }
        opened => opened?,
    };
    if !wanted.evolve {
        return Ok(table);
    }
    let location = source.location();
    let doing = || format!("adding columns to the Delta table at '{location}'");
    for _ in 0..ATTEMPTS {
        let found = scan::provider(&table, location)?.schema();
        let lacking = evolve::missing(&wanted.columns, &found, true, location)?;
        if lacking.is_empty() {
            return Ok(table);
        }
        let state = table.snapshot().map_err(|e| log::opening(location, e))?;
        features::check_write(state, location, false)?;
        let fields = schema::delta_fields(&Schema::new(lacking))?;
        match table.add_columns().with_fields(fields).await {
            Ok(_) => {}
            Err(error) if log::is_conflict(&error) => {}
            Err(error) => return Err(Error::while_doing(doing(), error)),
        }
        table = source.open().await?;
    }
    Err(Error::new(
        ErrorKind::Unavailable,
        format!(
            "{}: other writers commit faster; run the INSERT again",
            doing()
        ),
    ))
}
