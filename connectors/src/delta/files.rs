//! Rows into Parquet files that no commit names yet.
//!
//! At most [`FILE_BYTES`] of rows are under way; row groups are bounded in bytes, because rows
//! hold long texts. Files are removed again, also when the statement is cancelled, unless
//! [`Files::keep`] says that a commit names them.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::parquet::arrow::ParquetRecordBatchStreamBuilder;
use datafusion::parquet::basic::Compression;
use datafusion::parquet::file::properties::WriterProperties;
use deltalake::DeltaTable;
use deltalake::datafile::writer::{DeltaWriter, WriterConfig};
use deltalake::kernel::Add;
use deltalake::operations::write::WriterStatsConfig;
use futures::TryStreamExt;
use object_store::buffered::BufReader;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::checks::Checks;
use super::layout::Layout;
use crate::cast::CheckedCast;
use crate::error::{Error, Result};
use crate::folders::NULL;
use crate::keys::Keys;
use crate::sizes::{bytes, pieces};

/// Bytes of rows, not yet encoded, after which the open files are finished and the next begun.
const FILE_BYTES: usize = 128 << 20;
/// Bytes of rows given to the encoder at once. Its text offsets are 32 bits wide.
const PIECE_BYTES: usize = 256 << 20;
/// Encoded bytes of a row group: what is held in memory per open file, and what a reader of one
/// text column holds at least.
const ROW_GROUP_BYTES: usize = 16 << 20;
/// Rows read at once of a file that is written once more: few, because their texts are long.
const ROWS_READ: usize = 256;
/// Characters of the random directory under which a table with column mapping keeps a file, as
/// Spark writes it.
const PREFIX_LENGTH: usize = 2;

/// The files of one INSERT into one table.
pub(super) struct Files {
    location: String,
    store: Arc<dyn ObjectStore>,
    checks: Checks,
    /// Of the rows that come.
    columns: SchemaRef,
    config: WriterConfig,
    /// Into columns as they are in the files, with partition columns.
    physical: CheckedCast,
    /// Columns whose values stand in the log, as they are called in the files.
    partition_columns: Vec<String>,
    writer: Option<DeltaWriter>,
    open_bytes: usize,
    rows: u64,
    adds: Vec<Add>,
    /// A commit under way may name the files.
    offered: bool,
}

impl Files {
    /// For rows with `columns` into the version of `table` that was opened.
    pub(super) fn new(table: &DeltaTable, columns: SchemaRef, location: &str) -> Result<Self> {
        let doing = || format!("preparing files for the Delta table at '{location}'");
        let state = table
            .snapshot()
            .map_err(|e| Error::while_doing(doing(), e))?;
        let Layout {
            columns: physical,
            partition_columns,
            mapped,
        } = Layout::new(state, location)?;
        let statistics = WriterStatsConfig::from_config(state.snapshot().table_configuration());
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
            .build();
        let config = WriterConfig::new(
            Arc::clone(&physical),
            partition_columns.clone(),
            Some(properties),
            None,
            None,
            statistics.num_indexed_cols,
            statistics.stats_columns,
        )
        .with_random_prefix_length(mapped.then_some(PREFIX_LENGTH));
        Ok(Self {
            location: location.to_owned(),
            store: table.object_store(),
            checks: Checks::new(state, &columns, location)?,
            columns,
            config,
            physical: CheckedCast::new(physical, format!("the Delta table at '{location}'")),
            partition_columns,
            writer: None,
            open_bytes: 0,
            rows: 0,
            adds: vec![],
            offered: false,
        })
    }

    /// Checks the rows of `batch` and encodes them.
    pub(super) async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        self.checks.check(&batch)?;
        for piece in pieces(batch, PIECE_BYTES) {
            self.rows += piece.num_rows() as u64;
            self.open_bytes += bytes(&piece);
            let piece = self.physical.cast(&piece)?;
            self.check_partitions(&piece)?;
            let (store, config) = (&self.store, &self.config);
            let writer = self
                .writer
                .get_or_insert_with(|| DeltaWriter::new(Arc::clone(store), config.clone()));
            let written = writer.write(&piece).await;
            written.map_err(|e| self.failed("writing rows", e))?;
            if self.open_bytes >= FILE_BYTES {
                self.finish().await?;
            }
        }
        Ok(())
    }

    /// An error for a text that stands for null in the log: the empty one, by the protocol, and the
    /// one of Hive's folders, by the library.
    fn check_partitions(&self, piece: &RecordBatch) -> Result<()> {
        for name in &self.partition_columns {
            let Some(column) = piece.column_by_name(name) else {
                continue;
            };
            if !matches!(
                column.data_type(),
                DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
            ) {
                continue;
            }
            let texts =
                cast(column, &DataType::Utf8View).map_err(|e| self.failed("reading rows", e))?;
            let mut texts = texts.as_string_view().iter().flatten();
            if let Some(text) = texts.find(|text| text.is_empty() || *text == NULL) {
                return Err(Error::invalid(format!(
                    "a row has '{text}' in column {name}, by which the Delta table at '{}' is partitioned \
                     and where that stands for null; write null, another text, or leave the row out",
                    self.location
                )));
            }
        }
        Ok(())
    }

    /// Finishes the files that are open.
    pub(super) async fn finish(&mut self) -> Result<()> {
        self.open_bytes = 0;
        if let Some(writer) = self.writer.take() {
            let adds = writer.close().await;
            self.adds
                .extend(adds.map_err(|e| self.failed("writing a file", e))?);
        }
        Ok(())
    }

    /// Writes the finished files once more, without rows whose key is in the table by now.
    pub(super) async fn without(&mut self, keys: &mut Keys) -> Result<()> {
        let old = std::mem::take(&mut self.adds);
        self.rows = 0;
        let written = self.written_again(&old, keys).await;
        match written {
            Ok(()) => remove(Arc::clone(&self.store), None, old).await,
            // They are discarded with the others.
            Err(_) => self.adds.extend(old),
        }
        written
    }

    async fn written_again(&mut self, files: &[Add], keys: &mut Keys) -> Result<()> {
        let into = format!("the Delta table at '{}'", self.location);
        let mut logical = CheckedCast::new(Arc::clone(&self.columns), into);
        for add in files {
            let doing = "reading a written file";
            let path = Path::parse(&add.path).map_err(|e| self.failed(doing, e))?;
            let file = self.store.head(&path).await;
            let mut file = file.map_err(|e| self.failed(doing, e))?;
            // Some stores answer with the path in the bucket.
            file.location = path;
            let file = BufReader::new(Arc::clone(&self.store), &file);
            let rows = ParquetRecordBatchStreamBuilder::new(file).await;
            let rows = rows.and_then(|rows| rows.with_batch_size(ROWS_READ).build());
            let mut rows = rows.map_err(|e| self.failed(doing, e))?;
            while let Some(batch) = rows.try_next().await.map_err(|e| self.failed(doing, e))? {
                let whole = with_folders(&batch, add, &self.physical.schema());
                let whole = whole.map_err(|e| self.failed(doing, e))?;
                let new = keys.not_there(&logical.cast(&whole)?).await?;
                if new.num_rows() > 0 {
                    self.write(new).await?;
                }
            }
        }
        self.finish().await
    }

    /// The finished files, as a commit names them.
    pub(super) fn adds(&self) -> &[Add] {
        &self.adds
    }

    /// Rows written so far.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// A commit that names the files is about to be tried: should the statement be cancelled, no
    /// one knows whether it stands, and the files stay.
    pub(super) fn offer(&mut self) {
        self.offered = true;
    }

    /// That commit does not stand.
    pub(super) fn withdraw(&mut self) {
        self.offered = false;
    }

    /// Leaves the files be: a commit names them, or may.
    pub(super) fn keep(&mut self) {
        self.adds.clear();
    }

    /// Removes the files.
    pub(super) async fn discard(&mut self) {
        remove(
            Arc::clone(&self.store),
            self.writer.take(),
            std::mem::take(&mut self.adds),
        )
        .await;
        self.rows = 0;
    }

    fn failed(
        &self,
        doing: &str,
        error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        Error::while_doing(
            format!("{doing} for the Delta table at '{}'", self.location),
            error,
        )
    }
}

impl Drop for Files {
    /// A cancelled statement leaves nothing behind, as far as the runtime still lives.
    fn drop(&mut self) {
        let (writer, adds) = (self.writer.take(), std::mem::take(&mut self.adds));
        if self.offered || (writer.is_none() && adds.is_empty()) {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(remove(Arc::clone(&self.store), writer, adds));
        }
    }
}

/// The rows of a file in all `columns`: those that its folder names are not in it.
fn with_folders(
    batch: &RecordBatch,
    add: &Add,
    columns: &SchemaRef,
) -> datafusion::error::Result<RecordBatch> {
    let column = |field: &FieldRef| match batch.column_by_name(field.name()) {
        Some(column) => Ok(Arc::clone(column)),
        None => match add.partition_values.get(field.name()) {
            Some(Some(text)) => ScalarValue::try_from_string(text.clone(), field.data_type()),
            _ => ScalarValue::try_new_null(field.data_type()),
        }?
        .to_array_of_size(batch.num_rows()),
    };
    let all = columns.fields().iter().map(|field| {
        let column = column(field)?;
        let field = Field::new(field.name(), column.data_type().clone(), true);
        Ok((Arc::new(field), column))
    });
    let all: Vec<(FieldRef, ArrayRef)> = all.collect::<datafusion::error::Result<_>>()?;
    let (fields, arrays): (Vec<_>, Vec<_>) = all.into_iter().unzip();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?)
}

/// Removes files that no commit will name. They would only take space, so errors are left be.
async fn remove(store: Arc<dyn ObjectStore>, writer: Option<DeltaWriter>, adds: Vec<Add>) {
    if let Some(writer) = writer {
        writer.abort().await.ok();
    }
    for path in adds.iter().flat_map(|add| Path::parse(&add.path)) {
        store.delete(&path).await.ok();
    }
}
