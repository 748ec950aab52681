//! Connectors that this build was made without: their tables say which feature to build with.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider, TableProviderFactory};
use datafusion::error::Result;
use datafusion::logical_expr::CreateExternalTable;

use crate::error::{Error, ErrorKind};

/// `STORED AS` names and the cargo feature that brings each.
pub(crate) const LEFT_OUT: &[LeftOut] = &[
    #[cfg(not(feature = "databricks"))]
    LeftOut {
        name: "DATABRICKS",
        feature: "databricks",
    },
    #[cfg(not(feature = "snowflake"))]
    LeftOut {
        name: "SNOWFLAKE",
        feature: "snowflake",
    },
];

/// A connector that is not there.
#[derive(Debug)]
pub(crate) struct LeftOut {
    /// `STORED AS` name, upper case.
    pub(crate) name: &'static str,
    feature: &'static str,
}

#[async_trait]
impl TableProviderFactory for &'static LeftOut {
    async fn create(
        &self,
        _: &dyn Session,
        cmd: &CreateExternalTable,
    ) -> Result<Arc<dyn TableProvider>> {
        Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "table {} is STORED AS {}, which this program was built without; build it with: \
                 cargo build --features {}",
                cmd.name, self.name, self.feature
            ),
        )
        .into())
    }
}
