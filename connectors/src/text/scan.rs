//! The plan that reads files with a source of ours.

use std::sync::Arc;

use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::physical_plan::{FileScanConfig, FileScanConfigBuilder, FileSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result;
use datafusion::physical_plan::ExecutionPlan;

/// Reads the files of `config` with `source`, which is given what was projected by now.
pub(crate) fn scan(
    config: FileScanConfig,
    mut source: Arc<dyn FileSource>,
    compression: FileCompressionType,
) -> Result<Arc<dyn ExecutionPlan>> {
    if let Some(projection) = config.file_source.projection()
        && let Some(projected) = source.try_pushdown_projection(projection)?
    {
        source = projected;
    }
    let config = FileScanConfigBuilder::from(config)
        .with_file_compression_type(compression)
        .with_source(source)
        .build();
    Ok(DataSourceExec::from_data_source(config))
}
