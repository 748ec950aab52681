//! Connectors that this build was made without: they are listed and documented like the others, and
//! say which feature to build with when they are used.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider, TableProviderFactory};
use datafusion::logical_expr::CreateExternalTable;
use futures::future::BoxFuture;

use crate::check::{CheckRequest, Steps};
use crate::connector::{Connector, ConnectorOptions};
use crate::error::{Error, ErrorKind};

/// Why a connector is not in every build, and what its feature needs first.
const NEEDS: &[(&str, &str)] = &[(
    "ODBC",
    ", because that links unixODBC; install unixODBC (Debian: apt-get install unixodbc-dev)",
)];

/// Takes the place of the factory that the feature brings.
pub(crate) fn factory(
    connector: &'static Connector,
    _: &ConnectorOptions,
) -> Arc<dyn TableProviderFactory> {
    Arc::new(LeftOut(connector))
}

/// Takes the place of the check that the feature brings.
pub(crate) fn check<'a>(
    connector: &'static Connector,
    _: &'a CheckRequest,
    steps: &'a mut Steps,
) -> BoxFuture<'a, Option<()>> {
    let missing = Err(LeftOut(connector).error());
    Box::pin(async { steps.note("driver", missing, |()| String::new()) })
}

/// A connector that is not there; its feature has its name in lower case.
#[derive(Debug)]
struct LeftOut(&'static Connector);

impl LeftOut {
    fn error(&self) -> Error {
        let name = self.0.name;
        let needs = NEEDS.iter().find(|(connector, _)| *connector == name);
        let (needs, then) = needs.map_or(("", ";"), |(_, needs)| (*needs, " and"));
        Error::new(
            ErrorKind::Unsupported,
            format!(
                "this program was built without {name}{needs}{then} build it with --features {}",
                name.to_lowercase()
            ),
        )
    }
}

#[async_trait]
impl TableProviderFactory for LeftOut {
    async fn create(
        &self,
        _: &dyn Session,
        _: &CreateExternalTable,
    ) -> datafusion::error::Result<Arc<dyn TableProvider>> {
        Err(self.error().into())
    }
}
