//! How many rows a batch of Parquet has: fewer where rows are long.
//!
//! The library counts rows only, and 256 documents of 5 MB are a batch of 1.3 GB.

use std::sync::Arc;

use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileScanConfig, FileScanConfigBuilder};
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_plan::ExecutionPlan;

/// Bytes of a batch whose rows are as long as those of its file are on average.
const BATCH_BYTES: usize = 16 << 20;

/// `scan` of the columns in `projection`, none for all, with batches of at most `rows` rows and
/// about [`BATCH_BYTES`] bytes. Files that say nothing about their sizes, as CSV and JSON, are left
/// as they are.
pub(super) fn bounded(
    scan: Arc<dyn ExecutionPlan>,
    projection: Option<&Vec<usize>>,
    rows: usize,
) -> Arc<dyn ExecutionPlan> {
    let source = scan.downcast_ref::<DataSourceExec>();
    let Some(config) = source.and_then(|s| s.data_source().downcast_ref::<FileScanConfig>()) else {
        return scan;
    };
    let files = config.file_groups.iter().flat_map(|group| group.files());
    match files.filter_map(|file| row_bytes(file, projection)).max() {
        Some(bytes) if BATCH_BYTES / bytes < rows => {
            let builder = FileScanConfigBuilder::from(config.clone());
            let rows = (BATCH_BYTES / bytes).max(1);
            DataSourceExec::from_data_source(builder.with_batch_size(Some(rows)).build())
        }
        _ => scan,
    }
}

/// Mean bytes of a row in the columns in `projection`, as the file holds them before compression.
fn row_bytes(file: &PartitionedFile, projection: Option<&Vec<usize>>) -> Option<usize> {
    let statistics = file.statistics.as_ref()?;
    let rows = statistics.num_rows.get_value().filter(|rows| **rows > 0)?;
    let columns = statistics.column_statistics.iter().enumerate();
    let read = columns.filter(|(i, _)| projection.is_none_or(|p| p.contains(i)));
    let bytes = read.filter_map(|(_, column)| column.byte_size.get_value());
    Some(bytes.sum::<usize>() / rows).filter(|bytes| *bytes > 0)
}
