//! `information_schema` of the program's session: what DataFusion's has, without opening tables
//! that are not asked for.
//!
//! DataFusion's `tables` lists names only. Its `columns` and `views` (and SHOW COLUMNS and SHOW
//! CREATE TABLE, which are queries on them) open every table of the session and end at the first
//! that fails. Here `WHERE table_name = 'cases'` opens `cases` alone; without it all must be opened.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::information_schema::{INFORMATION_SCHEMA, InformationSchemaProvider};
use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList,
    MemorySchemaProvider, SchemaProvider, Session, TableProvider,
};
use datafusion::error::Result;
use datafusion::execution::context::SessionContext;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{
    BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType,
};
use datafusion::physical_plan::ExecutionPlan;

use crate::context::Host;
use crate::error::{Error, ErrorKind};

/// Tables of the schema whose rows need the tables that they describe.
const OPENING: &[&str] = &["columns", "views"];

/// The schema, for the session that it is registered in.
#[derive(Debug)]
pub(crate) struct InformationSchema {
    host: Host,
}

impl InformationSchema {
    /// Puts it in the place of DataFusion's in the default catalog of `ctx`, whose own must be
    /// switched off.
    pub(crate) fn register(ctx: &SessionContext) -> Result<()> {
        let name = ctx.state().config_options().catalog.default_catalog.clone();
        let Some(catalog) = ctx.catalog(&name) else {
            return Ok(());
        };
        let schema = Self {
            host: ctx.state_weak_ref(),
        };
        catalog.register_schema(INFORMATION_SCHEMA, Arc::new(schema))?;
        Ok(())
    }

    fn state(&self) -> Result<SessionState, Error> {
        let lost = || Error::new(ErrorKind::Internal, "the session has ended");
        Ok(self.host.upgrade().ok_or_else(lost)?.read().clone())
    }
}

/// DataFusion's schema over `catalogs`.
fn library(
    state: &SessionState,
    catalogs: Arc<dyn CatalogProviderList>,
) -> InformationSchemaProvider {
    InformationSchemaProvider::new(catalogs).with_table_functions(state.table_functions().clone())
}

#[async_trait]
impl SchemaProvider for InformationSchema {
    fn table_names(&self) -> Vec<String> {
        match self.state() {
            Ok(state) => library(&state, Arc::clone(state.catalog_list())).table_names(),
            Err(_) => vec![],
        }
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let state = self.state()?;
        let library = library(&state, Arc::clone(state.catalog_list()));
        let Some(table) = library.table(name).await? else {
            return Ok(None);
        };
        let name = name.to_ascii_lowercase();
        if !OPENING.contains(&name.as_str()) {
            return Ok(Some(table));
        }
        Ok(Some(Arc::new(OpeningTable {
            host: self.host.clone(),
            schema: table.schema(),
            name,
        })))
    }

    fn table_exist(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        self.table_names().contains(&name)
    }
}

/// `columns` or `views`.
#[derive(Debug)]
struct OpeningTable {
    host: Host,
    schema: SchemaRef,
    name: String,
}

#[async_trait]
impl TableProvider for OpeningTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    /// Filters say which tables are opened; they are evaluated again.
    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let host = InformationSchema {
            host: self.host.clone(),
        };
        let state = host.state()?;
        let asked: Vec<&str> = filters.iter().filter_map(table_name).collect();
        let opened = opened(state.catalog_list().as_ref(), &asked).await;
        let opened = opened.map_err(|error| {
            let error = Error::from_datafusion(error);
            match asked.is_empty() {
                false => error,
                true => Error::new(
                    error.kind(),
                    format!(
                        "information_schema.{} needs every table: {error}; ask for one with WHERE \
                         table_name = '...'",
                        self.name
                    ),
                )
                .with_source(error),
            }
        })?;
        let table = library(&state, Arc::new(opened)).table(&self.name).await?;
        let table = table.ok_or_else(|| {
            Error::new(
                ErrorKind::Internal,
                format!("information_schema has no {}", self.name),
            )
        })?;
        table.scan(session, projection, &[], limit).await
    }
}

/// The tables that are `asked` for, all if none is, opened.
async fn opened(
    catalogs: &dyn CatalogProviderList,
    asked: &[&str],
) -> Result<MemoryCatalogProviderList> {
    // Filters are all true of a row: two different names are true of none.
    let names: BTreeSet<&str> = asked.iter().copied().collect();
    let wanted = |name: &str| names.is_empty() || (names.len() == 1 && names.contains(name));
    let out = MemoryCatalogProviderList::new();
    for catalog_name in catalogs.catalog_names() {
        let Some(catalog) = catalogs.catalog(&catalog_name) else {
            continue;
        };
        let described = Arc::new(MemoryCatalogProvider::new());
        for schema_name in catalog.schema_names() {
            let Some(schema) = catalog.schema(&schema_name) else {
                continue;
            };
            if schema_name == INFORMATION_SCHEMA {
                continue;
            }
            let tables = Arc::new(MemorySchemaProvider::new());
            for name in schema.table_names().into_iter().filter(|n| wanted(n)) {
                if let Some(table) = schema.table(&name).await? {
                    tables.register_table(name, table)?;
                }
            }
            described.register_schema(&schema_name, tables)?;
        }
        out.register_catalog(catalog_name, described);
    }
    Ok(out)
}

/// The name in `table_name = 'NAME'`.
fn table_name(filter: &Expr) -> Option<&str> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = filter else {
        return None;
    };
    let (column, value) = match (&**left, &**right) {
        (Expr::Column(column), Expr::Literal(value, _)) => (column, value),
        (Expr::Literal(value, _), Expr::Column(column)) => (column, value),
        _ => return None,
    };
    let is_name = *op == Operator::Eq && column.name() == "table_name";
    value.try_as_str().flatten().filter(|_| is_name)
}
