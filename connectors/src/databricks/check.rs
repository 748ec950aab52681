//! `casebook check` for DATABRICKS: the options, the host, the sign-in, the table, its credentials,
//! a row of it, and a scratch name in the way that rows would be written.

use std::sync::Arc;

use datafusion::common::DFSchema;
use datafusion::logical_expr::CreateExternalTable;
use datafusion::prelude::SessionContext;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use uuid::Uuid;

use super::catalog::Operation;
use super::name::TableName;
use super::open::Workspace;
use super::settings::Settings;
use super::statement::Statement;
use super::table::{DatabricksTable, Way};
use super::vended::VendedStore;
use crate::check::{CheckRequest, Steps};
use crate::connector::{Connector, ConnectorOptions};
use crate::delta::{self, DeltaFactory};
use crate::error::{Error, ErrorKind, Result};
use crate::sql::target::Asked;

/// Checks one table; None as soon as a step failed.
pub(crate) async fn check(
    connector: &'static Connector,
    request: &CheckRequest,
    steps: &mut Steps,
) -> Option<()> {
    let parsed = TableName::parse(&request.location).and_then(|name| {
        let settings = Settings::parse(connector, &request.location, &request.options)?;
        Ok((name, Workspace::new(settings)?))
    });
    let (name, workspace) = steps.note("options", parsed, |_| "valid".into())?;
    let client = &workspace.client;
    steps.note("reach", client.reach().await, |()| client.host().to_owned())?;
    let signed_in = match client.token().await {
        Ok(_) => workspace.catalog.sign_in().await,
        Err(error) => Err(error),
    };
    steps.note("sign in", signed_in, |()| "accepted".into())?;
    let found = workspace.catalog.table(&name).await;
    let found = match found {
        Err(error)
            if error.kind() == ErrorKind::NotFound && workspace.settings.create.is_some() =>
        {
            steps.note("find table", Ok(()), |()| {
                "not there yet; table.create makes it".into()
            });
            return write(&workspace, &name, None, request, steps).await;
        }
        found => found,
    };
    steps.note("find table", found, |info| info.table_type.to_lowercase())?;
    let opened = open(&workspace, &name).await;
    let table = steps.note("open", opened, |table| match &table.read {
        Way::Files { .. } => "as files".into(),
        Way::Warehouse { because, .. } => format!("through the warehouse, because it {because}"),
    })?;
    let table = Arc::new(table);
    let read = read_one(&table).await;
    steps.note("read", read, |rows| format!("{rows} row"))?;
    write(&workspace, &name, Some(&table), request, steps).await
}

async fn open(workspace: &Workspace, name: &TableName) -> Result<DatabricksTable> {
    let delta = DeltaFactory::new(&delta::CONNECTOR, &ConnectorOptions::default());
    let ctx = SessionContext::new();
    let cmd = CreateExternalTable::builder(
        "checked",
        name.to_string(),
        "DATABRICKS",
        Arc::new(DFSchema::empty()),
    )
    .build();
    workspace
        .open(&ctx.state(), &cmd, &delta, name.clone(), Asked::default())
        .await
}

async fn read_one(table: &Arc<DatabricksTable>) -> Result<usize> {
    let doing = |e| Error::while_doing(format!("reading a row of {}", table.name), e);
    let frame = SessionContext::new()
        .read_table(Arc::clone(table) as _)
        .map_err(doing)?;
    let rows = frame
        .limit(0, Some(1))
        .map_err(doing)?
        .collect()
        .await
        .map_err(doing)?;
    Ok(rows.iter().map(|batch| batch.num_rows()).sum())
}

async fn write(
    workspace: &Workspace,
    name: &TableName,
    table: Option<&Arc<DatabricksTable>>,
    request: &CheckRequest,
    steps: &mut Steps,
) -> Option<()> {
    if !request.write {
        return Some(());
    }
    let scratch = format!("casebook_check_{}", Uuid::new_v4().simple());
    let written = match table.map(|table| &table.write) {
        Some(Way::Files { store, .. }) => scratch_file(store, name, &scratch).await,
        Some(Way::Warehouse { .. }) | None => {
            scratch_table(workspace, &name.sibling(scratch)).await
        }
    };
    steps.note("write", written, String::clone)?;
    Some(())
}

async fn scratch_file(store: &VendedStore, name: &TableName, scratch: &str) -> Result<String> {
    store.credentials(Operation::ReadWrite).await?;
    // Files with a leading underscore are no part of a Delta table.
    let path = Path::from(format!("_{scratch}"));
    let doing = |e| Error::while_doing(format!("writing to the files of {name}"), e);
    let content = PutPayload::from_static(b"casebook check");
    store.put(&path, content).await.map_err(doing)?;
    store.delete(&path).await.map_err(doing)?;
    Ok(format!("{path} beside the files, removed again"))
}

async fn scratch_table(workspace: &Workspace, name: &TableName) -> Result<String> {
    let Some(warehouse) = &workspace.warehouse else {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "tables in {}.{} are written through a warehouse; set databricks.warehouse_id",
                name.catalog, name.schema
            ),
        ));
    };
    let sql = name.sql();
    let create = Statement::command(format!("CREATE TABLE {sql} (id INT)"));
    warehouse.run("creating a scratch table", &create).await?;
    let remove = Statement::command(format!("DROP TABLE IF EXISTS {sql}"));
    warehouse.run("removing a scratch table", &remove).await?;
    Ok(format!("table {name}, removed again"))
}
