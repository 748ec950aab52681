//! Which columns a table of files has: declared, read from the files, named by folders.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::Session;
use datafusion::datasource::listing::ListingOptions;
use futures::{StreamExt, TryStreamExt};

use super::locate::Located;
use crate::declared::check_same;
use crate::error::{Error, Result};

/// Files that are already there must have the declared columns. Types are those of the files in
/// Parquet alone; JSON leaves out nulls.
pub(super) async fn check_declared(
    format: &str,
    state: &dyn Session,
    listing: &ListingOptions,
    located: &[Located],
    declared: &SchemaRef,
) -> Result<()> {
    for place in located {
        if place.is_empty(state, &listing.file_extension).await? {
            continue;
        }
        let found = listing.infer_schema(state, &place.url).await;
        let found = found.map_err(|e| Error::while_doing(format!("reading {}", place.shown), e))?;
        let names = |schema: &Schema| -> SchemaRef {
            let fields = schema.fields().iter();
            let texts = fields.map(|f| Field::new(f.name(), DataType::Utf8View, true));
            Arc::new(Schema::new(texts.collect::<Vec<_>>()))
        };
        match format {
            "PARQUET" => check_same(declared, &found, &place.shown)?,
            "CSV" => check_same(&names(declared), &names(&found), &place.shown)?,
            _ => {
                let extra = found.fields().iter().map(|f| f.name());
                let extra = extra.filter(|n| declared.column_with_name(n).is_none());
                let extra: Vec<&str> = extra.map(String::as_str).collect();
                if !extra.is_empty() {
                    return Err(Error::invalid(format!(
                        "the files at '{}' have columns that are not declared: {}; choose \
                         another location or declare them",
                        place.shown,
                        extra.join(", ")
                    )));
                }
            }
        }
    }
    Ok(())
}

/// A folder such as `year=2026` is a column of the rows below it, if the session says so.
pub(super) async fn with_found_partitions(
    state: &dyn Session,
    listing: ListingOptions,
    located: &[Located],
) -> datafusion::error::Result<ListingOptions> {
    let config = &state.config_options().execution;
    let Some(first) = located.first() else {
        return Ok(listing);
    };
    let asked = config.listing_table_factory_infer_partitions;
    if !asked || !listing.table_partition_cols.is_empty() || !first.url.is_collection() {
        return Ok(listing);
    }
    let names = listing.infer_partitions(state, &first.url).await?;
    let columns = names.into_iter().map(|name| (name, partition_type()));
    Ok(listing.with_table_partition_cols(columns.collect()))
}

/// Few values, each in many rows.
pub(super) fn partition_type() -> DataType {
    DataType::Dictionary(Box::new(DataType::UInt16), Box::new(DataType::Utf8))
}

/// All places must have the same columns.
pub(super) fn agree(inferred: &mut Option<SchemaRef>, found: SchemaRef, shown: &str) -> Result<()> {
    match inferred {
        None => *inferred = Some(found),
        Some(first) if first.fields() != found.fields() => {
            let names = |s: &Schema| -> Vec<String> {
                s.fields()
                    .iter()
                    .map(|f| format!("{} {}", f.name(), f.data_type()))
                    .collect()
            };
            return Err(Error::invalid(format!(
                "'{shown}' has the columns {}, the first location has {}; give files with the \
                 same columns",
                names(&found).join(", "),
                names(first).join(", ")
            )));
        }
        Some(_) => {}
    }
    Ok(())
}

/// Texts are Utf8View, so that no batch of them can be too large.
pub(super) fn with_views(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| match field.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 => {
            Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8View))
        }
        _ => Arc::clone(field),
    });
    Arc::new(Schema::new_with_metadata(
        fields.collect::<Vec<_>>(),
        schema.metadata().clone(),
    ))
}

impl Located {
    /// True if no file is there yet.
    async fn is_empty(&self, state: &dyn Session, extension: &str) -> Result<bool> {
        let doing = || format!("listing {}", self.shown);
        let store = state.runtime_env().object_store(&self.url);
        let store = store.map_err(|e| Error::while_doing(doing(), e))?;
        let files = self
            .url
            .list_all_files(state, store.as_ref(), extension)
            .await;
        let mut files = files.map_err(|e| Error::while_doing(doing(), e))?.boxed();
        let first = files.try_next().await;
        Ok(first.map_err(|e| Error::while_doing(doing(), e))?.is_none())
    }
}
