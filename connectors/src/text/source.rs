//! The scan of a table of texts as the library asks for it: which columns are read, and how many rows at
//! a time. How files are opened, and whether they are read in parts, is the format's ([`TextReader`]).

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::physical_plan::{FileGroup, FileOpener, FileScanConfig, FileSource};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::Result;
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_expr::{LexOrdering, PhysicalExpr};
use datafusion::physical_plan::DisplayFormatType;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion_datasource::projection::{ProjectionOpener, SplitProjection};
use object_store::ObjectStore;

/// Rows at a time where nobody says.
const BATCH_ROWS: usize = 8192;

/// How the files of one format are read.
pub(crate) trait TextReader: fmt::Debug + Clone + Send + Sync + 'static {
    /// What the library calls the format.
    const FILE_TYPE: &'static str;

    /// Opens the files of `config`, in `store`, for `scan`.
    fn opener(
        &self,
        scan: &TextSource<Self>,
        config: &FileScanConfig,
        store: Arc<dyn ObjectStore>,
    ) -> Result<Arc<dyn FileOpener>>;

    /// The files of `config` in parts; none if they are read whole.
    fn split(
        &self,
        _config: &FileScanConfig,
        _partitions: usize,
        _min_bytes: usize,
    ) -> Option<Vec<FileGroup>> {
        None
    }

    /// What EXPLAIN shows of it.
    fn shown(&self) -> String;
}

/// The scan of one table.
#[derive(Debug, Clone)]
pub(crate) struct TextSource<R> {
    reader: R,
    table_schema: TableSchema,
    projection: SplitProjection,
    batch_rows: usize,
    metrics: ExecutionPlanMetricsSet,
}

impl<R> TextSource<R> {
    pub(crate) fn new(table_schema: TableSchema, reader: R) -> Self {
        Self {
            reader,
            projection: SplitProjection::unprojected(&table_schema),
            table_schema,
            batch_rows: BATCH_ROWS,
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }

    /// The columns of the files.
    pub(crate) fn file_schema(&self) -> &SchemaRef {
        self.table_schema.file_schema()
    }

    /// Which of them are read, in order.
    pub(crate) fn read_columns(&self) -> &[usize] {
        &self.projection.file_indices
    }

    /// The schema of those that are read.
    pub(crate) fn read_schema(&self) -> Result<SchemaRef> {
        Ok(Arc::new(self.file_schema().project(self.read_columns())?))
    }

    /// The columns that folders give.
    pub(crate) fn folders(&self) -> impl Iterator<Item = String> {
        let folders = self.table_schema.table_partition_cols().iter();
        folders.map(|field| field.name().clone())
    }

    pub(crate) fn batch_rows(&self) -> usize {
        self.batch_rows
    }
}

impl<R: TextReader> FileSource for TextSource<R> {
    fn create_file_opener(
        &self,
        object_store: Arc<dyn ObjectStore>,
        config: &FileScanConfig,
        _: usize,
    ) -> Result<Arc<dyn FileOpener>> {
        let opener = self.reader.opener(self, config, object_store)?;
        ProjectionOpener::try_new(self.projection.clone(), opener, self.file_schema())
    }

    fn table_schema(&self) -> &TableSchema {
        &self.table_schema
    }

    fn with_batch_size(&self, batch_size: usize) -> Arc<dyn FileSource> {
        Arc::new(Self {
            batch_rows: batch_size,
            ..self.clone()
        })
    }

    fn try_pushdown_projection(
        &self,
        projection: &ProjectionExprs,
    ) -> Result<Option<Arc<dyn FileSource>>> {
        let merged = self.projection.source.try_merge(projection)?;
        let projection = SplitProjection::new(self.file_schema(), &merged);
        Ok(Some(Arc::new(Self {
            projection,
            ..self.clone()
        })))
    }

    fn projection(&self) -> Option<&ProjectionExprs> {
        Some(&self.projection.source)
    }

    fn metrics(&self) -> &ExecutionPlanMetricsSet {
        &self.metrics
    }

    fn file_type(&self) -> &str {
        R::FILE_TYPE
    }

    fn repartitioned(
        &self,
        target_partitions: usize,
        repartition_file_min_size: usize,
        output_ordering: Option<LexOrdering>,
        config: &FileScanConfig,
    ) -> Result<Option<FileScanConfig>> {
        if output_ordering.is_some() {
            return Ok(None);
        }
        let (partitions, min_bytes) = (target_partitions, repartition_file_min_size);
        let groups = self.reader.split(config, partitions, min_bytes);
        Ok(groups.map(|groups| {
            let mut config = config.clone();
            config.file_groups = groups;
            config
        }))
    }

    fn fmt_extra(&self, t: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        match t {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                f.write_str(&self.reader.shown())
            }
            DisplayFormatType::TreeRender => Ok(()),
        }
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        for projected in self.projection.source.iter() {
            if f(&projected.expr)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }
}
