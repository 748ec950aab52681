//! `STORED AS LORA`: a table of training examples whose INSERT leaves an adapter behind.
//!
//! ```sql
//! CREATE EXTERNAL TABLE tuned STORED AS LORA LOCATION 'adapters/cases'
//! OPTIONS ('lora.model' 'default', 'lora.rank' '16');
//! INSERT INTO tuned (question, answer) SELECT question, answer FROM qa WHERE status = 'ok';
//! ```
//!
//! LOCATION is the adapter directory: `adapter_config.json` and `adapter_model.safetensors`
//! appear when training is done, `run/` holds examples, settings, log and checkpoints.

mod options;
mod sink;
mod spool;
mod table;

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider, TableProviderFactory};
use datafusion::error::Result;
use datafusion::logical_expr::CreateExternalTable;

use super::Sink;
use crate::context::Casebook;

pub use options::{LoraOptions, reference};
pub use table::LoraTable;

/// Its `STORED AS` name.
pub(crate) const FORMAT: &str = "LORA";

/// Registration.
pub(crate) const SINK: Sink = Sink {
    name: FORMAT,
    factory: |casebook| Arc::new(LoraFactory(Arc::clone(casebook))),
    check: options::check,
};

#[derive(Debug)]
struct LoraFactory(Arc<Casebook>);

#[async_trait]
impl TableProviderFactory for LoraFactory {
    async fn create(
        &self,
        _: &dyn Session,
        cmd: &CreateExternalTable,
    ) -> Result<Arc<dyn TableProvider>> {
        let options = LoraOptions::parse(cmd, &self.0)?;
        Ok(Arc::new(LoraTable::new(options, Arc::clone(&self.0))))
    }
}
