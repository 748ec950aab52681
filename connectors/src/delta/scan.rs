//! How one statement reads one version of a table: whose credentials, and which partition reads
//! which files.
//!
//! The library reads every file of a scan in one partition as soon as one of them has a deletion
//! vector. Such a table is therefore read by several scans, each of some of the files.

use std::sync::Arc;

use datafusion::catalog::{Session, TableProvider};
use datafusion::execution::object_store::DefaultObjectStoreRegistry;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::union::UnionExec;
use deltalake::DeltaTable;
use deltalake::delta_datafusion::engine::AsObjectStoreUrl;
use deltalake::delta_datafusion::{DeltaScanConfig, DeltaScanNext};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use url::Url;

use super::numbers;
use crate::error::{Error, Result};

/// Scans planned at the same time; each reads up to eight deletion vectors at once.
const PLANNED_AT_ONCE: usize = 4;

/// The library's scan of the version that `table` was opened at. Text is Utf8View.
pub(super) fn provider(table: &DeltaTable, location: &str) -> Result<DeltaScanNext> {
    let doing = || format!("reading the log of the Delta table at '{location}'");
    let state = table
        .snapshot()
        .map_err(|e| Error::while_doing(doing(), e))?;
    let config = DeltaScanConfig::new().with_wrap_partition_values(false);
    DeltaScanNext::new(state.snapshot().clone(), config).map_err(|e| Error::while_doing(doing(), e))
}

/// `outer` with a registry of object stores of its own, which holds the store of `table`.
///
/// The registry of a session has one store per bucket, the first registered: the second table of
/// a bucket would be read with the credentials of the first. A scan takes its store from the
/// session it is planned in, so each is planned in such a session of its own.
pub(super) fn session(table: &DeltaTable, outer: &dyn Session) -> SessionState {
    let log_store = table.log_store();
    let url = log_store.root_url().as_object_store_url();
    let store = log_store.root_object_store(None);
    if outer.runtime_env().object_store(&url).is_err() {
        // Execution wants some store there, though it does not read from it.
        outer
            .runtime_env()
            .register_object_store(url.as_ref(), Arc::clone(&store));
    }
    let runtime = RuntimeEnv {
        object_store_registry: Arc::new(DefaultObjectStoreRegistry::new()),
        ..outer.runtime_env().as_ref().clone()
    };
    runtime.register_object_store(url.as_ref(), store);
    let builder = match outer.as_any().downcast_ref::<SessionState>() {
        Some(state) => SessionStateBuilder::new_from_existing(state.clone()),
        None => SessionStateBuilder::new()
            .with_default_features()
            .with_config(outer.config().clone()),
    };
    builder.with_runtime_env(Arc::new(runtime)).build()
}

/// Reads `table`, at `location`, in a session from [`session`].
pub(super) async fn plan(
    table: &DeltaTable,
    location: &str,
    session: &SessionState,
    projection: Option<&Vec<usize>>,
    filters: &[Expr],
    limit: Option<usize>,
) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
    numbers::check(table, location).await?;
    let scan = provider(table, location)?;
    let partitions = session.config().target_partitions();
    let groups = file_groups(table, location, partitions).await?;
    if groups.len() < 2 {
        return scan.scan(session, projection, filters, limit).await;
    }
    let scans = groups.into_iter().map(|paths| {
        let part = scan.clone().with_file_paths(paths);
        async move { part.scan(session, projection, filters, limit).await }
    });
    let scans: Vec<_> = futures::stream::iter(scans)
        .buffered(PLANNED_AT_ONCE)
        .try_collect()
        .await?;
    UnionExec::try_new(scans)
}

/// The files in at most `partitions` groups of about the same size; none if the library reads
/// the table in parallel by itself.
async fn file_groups(
    table: &DeltaTable,
    location: &str,
    partitions: usize,
) -> Result<Vec<Vec<String>>> {
    let doing = || format!("listing the files of the Delta table at '{location}'");
    let state = table
        .snapshot()
        .map_err(|e| Error::while_doing(doing(), e))?;
    let features = state.protocol().reader_features().unwrap_or_default();
    if !features.iter().any(|f| f.to_string() == "deletionVectors") {
        return Ok(vec![]);
    }
    let log_store = table.log_store();
    let mut views = state.snapshot().file_views(log_store.as_ref(), None);
    let mut files = vec![];
    let mut any_deleted = false;
    while let Some(view) = views
        .try_next()
        .await
        .map_err(|e| Error::while_doing(doing(), e))?
    {
        any_deleted |= view.deletion_vector_descriptor().is_some();
        files.push((view.size(), selection_path(&view.path())));
    }
    if !any_deleted {
        return Ok(vec![]);
    }
    // The largest first, each to the group that has least.
    files.sort_by(|a, b| b.cmp(a));
    let mut groups: Vec<(i64, Vec<String>)> = vec![(0, vec![]); partitions.min(files.len())];
    for (size, path) in files {
        if let Some((sum, paths)) = groups.iter_mut().min_by_key(|(sum, _)| *sum) {
            *sum += size;
            paths.push(path);
        }
    }
    Ok(groups.into_iter().map(|(_, paths)| paths).collect())
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
            source.create(&columns).await.unwrap();
            let schema = Arc::clone(&columns);
            let provider = DeltaProvider::try_new(source, schema, WriteOptions::default());
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
