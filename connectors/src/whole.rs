//! The files of one statement, all complete or none there: the library gives a file its name when its
//! rows end, which they also do when their query fails.
//!
//! The writer works on a store that holds back the end of every upload. When the statement has
//! succeeded the uploads end; else they are given up, and what was there before is there still.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::datasource::listing::ListingTableUrl;
use datafusion::datasource::physical_plan::FileSinkConfig;
use datafusion::datasource::sink::{DataSink, DataSinkExec};
use datafusion::error::Result;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan};

use crate::error::{Error, ErrorKind};
use crate::folders;
use crate::held::HeldStore;
use crate::stores;
use crate::unfinished;

/// `plan`, which is a writer of the library or of ours for `config`, so that its files are whole and
/// nulls have folders.
pub(crate) fn whole(
    plan: &Arc<dyn ExecutionPlan>,
    config: &FileSinkConfig,
) -> Result<Arc<dyn ExecutionPlan>> {
    let Some(writer) = plan.downcast_ref::<DataSinkExec>() else {
        let message = "a writer of files is no sink";
        return Err(Error::new(ErrorKind::Internal, message).into());
    };
    let columns = config.table_partition_cols.iter();
    let sink = WholeSink {
        writer: writer.clone(),
        url: config.object_store_url.clone(),
        targets: config.table_paths.clone(),
        folders: columns.map(|(name, _)| name.clone()).collect(),
        keep: config.keep_partition_by_columns,
        // COPY names where it writes. What an INSERT writes waits in a hidden folder anyway, and it may
        // be many files.
        holds: !config.original_url.is_empty() || config.table_partition_cols.is_empty(),
    };
    let order = writer.sort_order().clone();
    let input = Arc::clone(writer.input());
    Ok(Arc::new(DataSinkExec::new(input, Arc::new(sink), order)))
}

#[derive(Debug)]
struct WholeSink {
    writer: DataSinkExec,
    url: ObjectStoreUrl,
    targets: Vec<ListingTableUrl>,
    /// Columns that become folders.
    folders: Vec<String>,
    /// Files have these columns as well.
    keep: bool,
    /// The files end together.
    holds: bool,
}

impl DisplayAs for WholeSink {
    fn fmt_as(&self, t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.writer.sink().fmt_as(t, f)
    }
}

#[async_trait]
impl DataSink for WholeSink {
    fn metrics(&self) -> Option<MetricsSet> {
        self.writer.sink().metrics()
    }

    fn schema(&self) -> &SchemaRef {
        self.writer.sink().schema()
    }

    async fn write_all(
        &self,
        rows: SendableRecordBatchStream,
        context: &Arc<TaskContext>,
    ) -> Result<u64> {
        unfinished::say(&self.targets, self.folders.len()).await;
        let rows = match self.folders.is_empty() {
            true => rows,
            false => folders::written(rows, self.folders.clone(), self.keep),
        };
        if !self.holds {
            return self.writer.sink().write_all(rows, context).await;
        }
        let held = HeldStore::holding(context, &self.url)?;
        let own = held.within(context, &self.url);
        match self.writer.sink().write_all(rows, &own).await {
            Ok(count) => {
                held.end().await?;
                Ok(count)
            }
            Err(error) => {
                held.give_up().await;
                Err(error)
            }
        }
    }
}
