//! Column mapping by number: whether the names in the files lead to the same columns.
//!
//! In mode `id` a reader must find the columns of a file by their numbers
//! (<https://github.com/delta-io/delta/blob/master/PROTOCOL.md#column-mapping>); the library goes
//! by name in every mode, and a column that it does not find reads as null. Delta writers give
//! files the names that the table has for its columns, but files that came from another table
//! format may have others. Such a table is refused here, instead of read as nulls.

use std::collections::HashMap;

use datafusion::arrow::datatypes::Schema;
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::parquet::file::metadata::ParquetMetaData;
use deltalake::DeltaTable;
use deltalake::kernel::engine::arrow_conversion::TryIntoArrow;
use futures::TryStreamExt;
use object_store::ObjectStoreExt;

use crate::error::{Error, ErrorKind, Result};

/// Files whose footers are read at the same time.
const FOOTERS_AT_ONCE: usize = 16;

/// An error if `table`, at `location`, maps columns by number and a file has other names.
pub(super) async fn check(table: &DeltaTable, location: &str) -> Result<()> {
    let doing = || format!("reading the files of the Delta table at '{location}'");
    let state = table
        .snapshot()
        .map_err(|e| Error::while_doing(doing(), e))?;
    let mode = state
        .metadata()
        .configuration()
        .get("delta.columnMapping.mode");
    if mode.map(String::as_str) != Some("id") {
        return Ok(());
    }
    let columns: Schema = state
        .schema()
        .as_ref()
        .try_into_arrow()
        .map_err(|e: datafusion::arrow::error::ArrowError| Error::while_doing(doing(), e))?;
    let names: HashMap<i32, &str> = columns
        .fields()
        .iter()
        .filter_map(|field| {
            let setting = |name: &str| field.metadata().get(&format!("delta.columnMapping.{name}"));
            let number = setting("id")?.parse().ok()?;
            Some((number, setting("physicalName")?.as_str()))
        })
        .collect();
    let (names, log_store, store) = (&names, table.log_store(), &table.object_store());
    let views = state.snapshot().file_views(log_store.as_ref(), None);
    let footers = views.map_err(|e| Error::while_doing(doing(), e)).map_ok(|view| async move {
        let path = view.object_store_path();
        let mut file = store.head(&path).await.map_err(|e| Error::while_doing(doing(), e))?;
        // A store below a prefix takes paths without it, but names files with it.
        file.location = path.clone();
        let footer = DFParquetMetadata::new(store.as_ref(), &file).fetch_metadata().await;
        let footer = footer.map_err(|e| Error::while_doing(doing(), e))?;
        match other_name(&footer, names) {
            None => Ok(()),
            Some((number, name)) => Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "the Delta table at '{location}' finds columns by number \
                     (delta.columnMapping.mode = id), and its file {path} calls column {number} \
                     '{name}', not '{}': such files cannot be read here. If it is a Databricks \
                     table, set databricks.warehouse_id to go through its SQL warehouse; otherwise \
                     rewrite the table (REORG TABLE ... APPLY (PURGE) or CREATE TABLE ... AS SELECT)",
                    names.get(&number).copied().unwrap_or_default()
                ),
            )),
        }
    });
    footers
        .try_buffer_unordered(FOOTERS_AT_ONCE)
        .try_collect::<()>()
        .await
}

/// The first column of a file whose name is not the one that `names` has for its number.
fn other_name(footer: &ParquetMetaData, names: &HashMap<i32, &str>) -> Option<(i32, String)> {
    let schema = footer.file_metadata().schema_descr();
    let mut fields = schema.root_schema().get_fields().iter();
    fields.find_map(|field| {
        let info = field.get_basic_info();
        let number = info.has_id().then(|| info.id())?;
        let expected = names.get(&number)?;
        (*expected != info.name()).then(|| (number, info.name().to_owned()))
    })
}
