//! The library's writer of the files of one INSERT.

use std::sync::Arc;

use datafusion::catalog::Session;
use datafusion::datasource::listing::ListingTableUrl;
use datafusion::datasource::physical_plan::{FileGroup, FileSinkConfig};
use datafusion::datasource::sink::DataSinkExec;
use datafusion::error::Result;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion_datasource::file_sink_config::FileOutputMode;

use super::scan::Reading;
use crate::error::{Error, ErrorKind};

impl Reading {
    /// The library's writer of the file or directory `hidden`, whose files will end in `extension`.
    pub(super) async fn writer(
        &self,
        state: &dyn Session,
        hidden: &ListingTableUrl,
        extension: &str,
    ) -> Result<Arc<DataSinkExec>> {
        let schema = Arc::clone(self.table_schema().table_schema());
        let config = FileSinkConfig {
            original_url: String::new(),
            object_store_url: hidden.object_store(),
            file_group: FileGroup::new(vec![]),
            table_paths: vec![hidden.clone()],
            output_schema: Arc::clone(&schema),
            table_partition_cols: self.partitions.clone(),
            insert_op: InsertOp::Append,
            keep_partition_by_columns: false,
            file_extension: extension.trim_start_matches('.').to_owned(),
            file_output_mode: match self.partitions.is_empty() {
                true => FileOutputMode::SingleFile,
                false => FileOutputMode::Automatic,
            },
        };
        let nothing = Arc::new(EmptyExec::new(schema));
        let plan = self
            .format
            .create_writer_physical_plan(nothing, state, config, None)
            .await?;
        match plan.downcast_ref::<DataSinkExec>() {
            Some(writer) => Ok(Arc::new(writer.clone())),
            None => Err(Error::new(
                ErrorKind::Internal,
                format!("the writer of {} files is no sink", self.format.get_ext()),
            )
            .into()),
        }
    }
}
