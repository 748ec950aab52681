//! How one statement reads one version of a table: whose credentials, and which partition reads
//! which files.
//!
//! The library reads every file of a scan in one partition as soon as one of them has a deletion
//! vector. Such a table is therefore read by several scans, each of some of the files.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::catalog::{Session, TableProvider};
use datafusion::common::ScalarValue;
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::error::DataFusionError;
use datafusion::execution::object_store::ObjectStoreRegistry;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::{Expr, Operator};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{Column, binary, case, lit};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::union::UnionExec;
use deltalake::DeltaTable;
use deltalake::delta_datafusion::{
    DeltaScanConfig, DeltaScanNext, FileSelection, MissingSelectedFilePolicy,
};
use deltalake::kernel::{DataType, MetadataValue};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use url::Url;

use super::deletions;
use super::exec::DeltaExec;
use super::listed::{self, Listed};
use super::log;
use super::numbers;
use crate::error::{Error, Result};
use crate::guard::{GuardedStore, caught, caught_while, may_prune_planned, named};

/// Scans planned at the same time; each reads up to eight deletion vectors at once.
const PLANNED_AT_ONCE: usize = 4;

/// The library's scan of the version that `table` was opened at. Text is Utf8View.
pub(super) fn provider(table: &DeltaTable, location: &str) -> Result<DeltaScanNext> {
    let doing = || format!("reading the log of the Delta table at '{location}'");
    let state = table
        .snapshot()
        .map_err(|e| Error::while_doing(doing(), e))?;
    let config = DeltaScanConfig::new().with_wrap_partition_values(false);
    let what = format!("the log of the Delta table at '{location}'");
    let made = caught(&what, || {
        DeltaScanNext::new(state.snapshot().clone(), config)
    })?;
    made.map_err(|e| Error::while_doing(doing(), e))
}

/// `outer` with the stores of `table` alone, and dates of all years.
///
/// The registry of a session has one store per bucket, the first registered: the second table of
/// a bucket would be read with the credentials of the first. A scan takes its store from the
/// session it is planned in, so each is planned in such a session of its own.
fn session(stores: &Arc<dyn ObjectStoreRegistry>, outer: &dyn Session) -> SessionState {
    let runtime = RuntimeEnv {
        object_store_registry: Arc::clone(stores),
        ..outer.runtime_env().as_ref().clone()
    };
    let mut builder = match outer.as_any().downcast_ref::<SessionState>() {
        Some(state) => SessionStateBuilder::new_from_existing(state.clone()),
        None => SessionStateBuilder::new()
            .with_default_features()
            .with_config(outer.config().clone()),
    };
    if let Some(config) = builder.config() {
        let parquet = &mut config.options_mut().execution.parquet;
        if parquet.coerce_int96.is_none() {
            // Nanoseconds, which is what the library makes of INT96, end in the year 2262. Delta's
            // timestamps are microseconds of UTC.
            parquet.coerce_int96 = Some("us".into());
            parquet.coerce_int96_tz.get_or_insert_with(|| "UTC".into());
        }
    }
    builder.with_runtime_env(Arc::new(runtime)).build()
}

/// Reads `table`, at `location`, for the session `outer`.
pub(super) async fn plan(
    table: &DeltaTable,
    location: &str,
    outer: &dyn Session,
    projection: Option<&Vec<usize>>,
    filters: &[Expr],
    limit: Option<usize>,
) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
    let planned = plan_some(table, location, outer, projection, filters, limit, None);
    let what = format!("the Delta table at '{location}'");
    match caught_while(&what, planned).await {
        Ok(plan) => Ok(plan),
        Err(error) => Err(named(
            &what,
            damaged_file(table, location).await.unwrap_or(error),
        )),
    }
}

/// Planning reads the footers of files with deletion vectors, and does not say which is damaged:
/// the error of the first that cannot be read.
async fn damaged_file(table: &DeltaTable, location: &str) -> Option<DataFusionError> {
    let store: Arc<dyn ObjectStore> = GuardedStore::new(table.object_store(), None);
    let files = listed::files(table, location).await.ok()?;
    for file in files.iter().filter(|file| file.deletes.is_some()) {
        let what = format!("'{}'", file.path);
        let read = async {
            let path = Path::parse(&file.path).unwrap_or_else(|_| Path::from(file.path.as_str()));
            let mut file = store.head(&path).await?;
            // A store below a prefix takes paths without it, but names files with it.
            file.location = path;
            let footer = DFParquetMetadata::new(store.as_ref(), &file);
            footer.fetch_metadata().await
        };
        if let Err(error) = caught_while(&what, read).await {
            return Some(named(&what, error));
        }
    }
    None
}

/// As [`plan`], of those files that `paths` select and that are still there.
pub(super) async fn plan_files(
    table: &DeltaTable,
    location: &str,
    outer: &dyn Session,
    projection: &Vec<usize>,
    paths: Vec<String>,
) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
    let what = format!("the Delta table at '{location}'");
    let planned = plan_some(
        table,
        location,
        outer,
        Some(projection),
        &[],
        None,
        Some(paths),
    );
    let planned = caught_while(&what, planned).await;
    planned.map_err(|e| named(&what, e))
}

async fn plan_some(
    table: &DeltaTable,
    location: &str,
    outer: &dyn Session,
    projection: Option<&Vec<usize>>,
    filters: &[Expr],
    limit: Option<usize>,
    paths: Option<Vec<String>>,
) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
    let files = listed::files(table, location).await?;
    numbers::check(table, location).await?;
    deletions::check(table, &files, location).await?;
    let stores = listed::stores_of(table, location);
    let session = session(&stores, outer);
    let scan = provider(table, location)?;
    let deletes = files.iter().any(|file| file.deletes.is_some());
    let what = format!("the Delta table at '{location}'");
    let columns = scan.schema();
    let blank = blank(table, location, &files)?;
    let by_blank = |filter: &Expr| filter.column_refs().iter().any(|c| blank.contains(&c.name));
    let sound = filters
        .iter()
        .filter(|filter| !by_blank(filter) && may_prune_planned(filter, &columns, &session));
    let filters: Vec<Expr> = sound.cloned().collect();
    let (what, session, stores, filters) = (&what, &session, &stores, &filters[..]);
    let run = |scan: DeltaScanNext| async move {
        let plan = scan.scan(session, projection, filters, limit).await?;
        DeltaExec::around(plan, what, stores, deletes)
    };
    if let Some(paths) = paths {
        let files = FileSelection::from_file_paths(paths)
            .with_missing_file_policy(MissingSelectedFilePolicy::Ignore);
        return with_nulls(run(scan.with_file_selection(files)).await?, &blank);
    }
    let groups = match deletes {
        true => file_groups(files, session.config().target_partitions()),
        false => vec![],
    };
    if groups.len() < 2 {
        return with_nulls(run(scan).await?, &blank);
    }
    let scans = groups
        .into_iter()
        .map(|paths| run(scan.clone().with_file_paths(paths)));
    let scans: Vec<_> = futures::stream::iter(scans)
        .buffered(PLANNED_AT_ONCE)
        .try_collect()
        .await?;
    with_nulls(UnionExec::try_new(scans)?, &blank)
}

/// Columns of texts and bytes that are empty in the folder of one of `files`. By the protocol that is
/// null, <https://github.com/delta-io/delta/blob/master/PROTOCOL.md#partition-value-serialization>; the
/// library goes by that in other types only.
fn blank(table: &DeltaTable, location: &str, files: &[Listed]) -> Result<Vec<String>> {
    let names: HashSet<&String> = files.iter().flat_map(|file| &file.blank).collect();
    if names.is_empty() {
        return Ok(vec![]);
    }
    let state = table.snapshot().map_err(|e| log::opening(location, e))?;
    let schema = state.schema();
    let blank = schema.fields().filter(|field| {
        let texts = [DataType::STRING, DataType::BINARY].contains(field.data_type());
        let own = field.metadata().get("delta.columnMapping.physicalName");
        let own = match own {
            Some(MetadataValue::String(own)) => own,
            _ => field.name(),
        };
        texts && names.contains(own)
    });
    Ok(blank.map(|field| field.name().clone()).collect())
}

/// `rows`, with null for what is empty in the columns that are `blank` somewhere: nothing else can be.
fn with_nulls(
    rows: Arc<dyn ExecutionPlan>,
    blank: &[String],
) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
    if blank.is_empty() {
        return Ok(rows);
    }
    let schema = rows.schema();
    let columns = schema.fields().iter().enumerate().map(|(at, field)| {
        let own: Arc<dyn PhysicalExpr> = Arc::new(Column::new(field.name(), at));
        let value = match blank.contains(field.name()) {
            false => own,
            true => {
                let empty = ScalarValue::Utf8(Some(String::new())).cast_to(field.data_type())?;
                let null = lit(ScalarValue::try_from(field.data_type())?);
                let is_empty = binary(Arc::clone(&own), Operator::Eq, lit(empty), &schema)?;
                case(None, vec![(is_empty, null)], Some(own))?
            }
        };
        Ok(ProjectionExpr::new(value, field.name().clone()))
    });
    let columns = columns.collect::<datafusion::error::Result<Vec<_>>>()?;
    Ok(Arc::new(ProjectionExec::try_new(columns, rows)?))
}

/// `files` in at most `partitions` groups of about the same size.
fn file_groups(files: Vec<Listed>, partitions: usize) -> Vec<Vec<String>> {
    let sized = files.into_iter();
    let mut files: Vec<_> = sized.map(|f| (f.bytes, selection_path(&f.path))).collect();
    // The largest first, each to the group that has least.
    files.sort_by(|a, b| b.cmp(a));
    let mut groups: Vec<(i64, Vec<String>)> = vec![(0, vec![]); partitions.min(files.len())];
    for (size, path) in files {
        if let Some((sum, paths)) = groups.iter_mut().min_by_key(|(sum, _)| *sum) {
            *sum = sum.saturating_add(size);
            paths.push(path);
        }
    }
    groups.into_iter().map(|(_, paths)| paths).collect()
}

/// A decoded path of the log as the library selects files by: an encoded URL reference.
pub(super) fn selection_path(path: &str) -> String {
    match Url::parse(path) {
        Ok(url) => url.to_string(),
        Err(_) => Path::from(path).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{DeltaProvider, DeltaSource};
    use crate::write::WriteOptions;
    use datafusion::arrow::array::AsArray;
    use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use datafusion::prelude::SessionContext;
    use object_store::memory::InMemory;
    use std::sync::Arc;
    use url::Url;

    /// Two buckets of one name stand for one bucket behind two sets of credentials.
    #[tokio::test]
    async fn tables_of_one_bucket_are_each_read_through_their_own_store() {
        let ctx = SessionContext::new();
        let columns = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true)]));
        for (name, id) in [("one", 1), ("two", 2)] {
            let url = Url::parse("memory:///same").unwrap();
            let source = DeltaSource::with_store(name, url, Arc::new(InMemory::new()));
            source.create(&columns, &[]).await.unwrap();
            let schema = Arc::clone(&columns);
            let provider = DeltaProvider::try_new(source, schema, WriteOptions::default(), None);
            ctx.register_table(name, Arc::new(provider.unwrap()))
                .unwrap();
            let insert = format!("INSERT INTO {name} VALUES ({id})");
            ctx.sql(&insert).await.unwrap().collect().await.unwrap();
        }
        for (name, id) in [("one", 1), ("two", 2)] {
            let select = ctx.sql(&format!("SELECT id FROM {name}")).await.unwrap();
            let found = select.collect().await.unwrap();
            assert_eq!(found[0].column(0).as_primitive::<Int64Type>().value(0), id);
        }
    }
}
