//! The columns of a Parquet file against those of its table, before any of them is read.
//!
//! The library finds columns by name: of two with one name the second is never read, and one whose
//! name is written in another case than the table's is null. Neither is told apart from what was
//! meant, so both are errors, of every file that is opened. What this does not do: compare types (`types`).

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::arrow::datatypes::{DataType, FieldRef, Fields, Schema, SchemaRef};
use datafusion::catalog::Session;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::datasource::physical_plan::parquet::{
    CachedParquetFileReaderFactory, ParquetFileReaderFactory,
};
use datafusion::execution::cache::cache_manager::FileMetadataCache;
use datafusion::parquet::arrow::arrow_reader::ArrowReaderOptions;
use datafusion::parquet::arrow::async_reader::AsyncFileReader;
use datafusion::parquet::arrow::parquet_to_arrow_schema;
use datafusion::parquet::errors::{ParquetError, Result as ParquetResult};
use datafusion::parquet::file::metadata::ParquetMetaData;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::future::BoxFuture;
use object_store::{ObjectMeta, ObjectStore};

use super::store::GuardedStore;
use crate::error::{Error, Result};

/// Checks the columns of `file` by themselves, and against those of `table` if it is known; its
/// footer. The library finds that in the session's cache afterwards.
pub(super) async fn check_file(
    state: &dyn Session,
    store: &dyn ObjectStore,
    file: &ObjectMeta,
    table: Option<&Schema>,
) -> datafusion::error::Result<Arc<ParquetMetaData>> {
    let cache = state.runtime_env().cache_manager.get_file_metadata_cache();
    let hint = state.config_options().execution.parquet.metadata_size_hint;
    let footer = DFParquetMetadata::new(store, file)
        .with_metadata_size_hint(hint)
        .with_file_metadata_cache(Some(cache));
    let footer = footer.fetch_metadata().await?;
    check(footer.as_ref(), table)?;
    Ok(footer)
}

fn check(footer: &ParquetMetaData, table: Option<&Schema>) -> Result<()> {
    let footer = footer.file_metadata();
    let found = parquet_to_arrow_schema(footer.schema_descr(), footer.key_value_metadata());
    // What is no schema is for the library to refuse.
    let Ok(found) = found else { return Ok(()) };
    check_distinct(found.fields(), "")?;
    match table {
        Some(table) => check_case(found.fields(), table.fields(), ""),
        None => Ok(()),
    }
}

/// The fields inside a type, and what to call them.
fn inner(kind: &DataType) -> Option<&Fields> {
    match kind {
        DataType::Struct(fields) => Some(fields),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _) => inner(item.data_type()),
        _ => None,
    }
}

fn check_distinct(fields: &Fields, above: &str) -> Result<()> {
    let mut names = HashSet::new();
    for field in fields {
        let path = format!("{above}{}", field.name());
        if !names.insert(field.name()) {
            return Err(Error::invalid(format!(
                "two columns are called {path}, and only one of them could be read; write the file \
                 again with a name for each"
            )));
        }
        if let Some(fields) = inner(field.data_type()) {
            check_distinct(fields, &format!("{path}."))?;
        }
    }
    Ok(())
}

fn check_case(found: &Fields, table: &Fields, above: &str) -> Result<()> {
    for field in table {
        let Some(own) = found.iter().find(|f| f.name() == field.name()) else {
            if let Some(other) = in_other_case(field.name(), found, table) {
                return Err(Error::invalid(format!(
                    "the column {above}{} of the table is called {above}{} in the file; declare it \
                     as \"{}\", in double quotes, or give a file whose columns are written as the \
                     table's",
                    field.name(),
                    other.name(),
                    other.name()
                )));
            }
            continue;
        };
        if let (Some(found), Some(table)) = (inner(own.data_type()), inner(field.data_type())) {
            check_case(found, table, &format!("{above}{}.", field.name()))?;
        }
    }
    Ok(())
}

/// The one of `found` that may be meant by `name`, which is not among them: it differs by case, and
/// is no other column of the `table`.
pub(crate) fn in_other_case<'a>(
    name: &str,
    found: &'a Fields,
    table: &Fields,
) -> Option<&'a FieldRef> {
    let lower = name.to_lowercase();
    found.iter().find(|other| {
        other.name().to_lowercase() == lower && table.iter().all(|f| f.name() != other.name())
    })
}

/// Opens the files of one scan.
#[derive(Debug)]
pub(super) struct CheckedReaders {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) cache: Arc<FileMetadataCache>,
    /// The columns of the table that its files have.
    pub(super) table: SchemaRef,
}

impl ParquetFileReaderFactory for CheckedReaders {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> datafusion::error::Result<Box<dyn AsyncFileReader + Send>> {
        let store = GuardedStore::of_version(Arc::clone(&self.store), file.object_meta.clone());
        let readers = CachedParquetFileReaderFactory::new(store, Arc::clone(&self.cache));
        Ok(Box::new(CheckedReader {
            inner: readers.create_reader(partition, file, hint, metrics)?,
            table: Arc::clone(&self.table),
        }))
    }
}

struct CheckedReader {
    inner: Box<dyn AsyncFileReader + Send>,
    table: SchemaRef,
}

impl AsyncFileReader for CheckedReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        self.inner.get_bytes(range)
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        self.inner.get_byte_ranges(ranges)
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        Box::pin(async move {
            let footer = self.inner.get_metadata(options).await?;
            check(&footer, Some(self.table.as_ref()))
                .map_err(|e| ParquetError::External(Box::new(e)))?;
            Ok(footer)
        })
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::Field;

    use super::*;

    fn fields(names: &[&str]) -> Fields {
        let fields = names.iter();
        fields
            .map(|name| Field::new(*name, DataType::Int64, true))
            .collect()
    }

    fn within(name: &str, inner: Fields) -> Fields {
        let item = Field::new("item", DataType::Struct(inner), true);
        Fields::from(vec![Field::new(name, DataType::List(Arc::new(item)), true)])
    }

    #[test]
    fn a_name_is_there_once_at_every_level() {
        assert!(check_distinct(&fields(&["a", "A", "b"]), "").is_ok());
        let error = |found: Fields| check_distinct(&found, "").unwrap_err().to_string();
        assert!(error(fields(&["a", "b", "a"])).contains("called a,"));
        assert!(error(within("l", fields(&["k", "k"]))).contains("called l.k,"));
        assert!(check_distinct(&within("k", fields(&["k"])), "").is_ok());
    }

    #[test]
    fn a_column_in_another_case_is_named_unless_it_is_another_one() {
        let check = |found: &[&str], table: &[&str]| check_case(&fields(found), &fields(table), "");
        for (found, table) in [
            (&["id", "ID"][..], &["id", "ID"][..]),
            (&["id"], &["id", "ID"]),
            (&["ID"], &["id", "ID"]),
            (&["id", "Id"], &["id"]),
            (&["id"], &["text"]),
            (&["id"], &["ID", "id", "text"]),
        ] {
            assert!(check(found, table).is_ok(), "{found:?} {table:?}");
        }
        for (found, table) in [
            (&["ID"][..], &["id"][..]),
            (&["text", "Id"], &["text", "id"]),
            (&["É"], &["é"]),
            (&["Id"], &["id", "ID"]),
        ] {
            assert!(check(found, table).is_err(), "{found:?} {table:?}");
        }
        let (found, table) = (within("l", fields(&["K"])), within("l", fields(&["k"])));
        let error = check_case(&found, &table, "").unwrap_err().to_string();
        assert!(error.contains("l.k") && error.contains("l.K"), "{error}");
    }
}
