//! The CSV file format of the session: our reader and our writer.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{FieldRef, Schema, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::config::CsvOptions;
use datafusion::common::{GetExt, Statistics};
use datafusion::datasource::file_format::csv::{CsvFormat, CsvFormatFactory};
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::file_format::{FileFormat, FileFormatFactory};
use datafusion::datasource::physical_plan::{FileScanConfig, FileSinkConfig, FileSource};
use datafusion::datasource::sink::DataSinkExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::dml::InsertOp;
use datafusion::physical_expr::LexRequirement;
use datafusion::physical_plan::ExecutionPlan;
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectMeta, ObjectStore};

use super::columns::Wanted;
use super::encoding::Encoding;
use super::header::schema;
use super::layout::{CsvLayout, Known};
use super::options::{OwnOptions, for_library};
use super::sink::CsvTextSink;
use super::source::{KIND, read_header, source};
use super::typed;
use crate::csv_limits::CsvLimits;
use crate::error::{Error, ErrorKind};
use crate::stores;
use crate::text::{in_file, scan};
use crate::whole::whole;

/// Makes the CSV format of a table; takes the place of DataFusion's factory for `csv`.
#[derive(Debug)]
pub struct CsvTextFormatFactory {
    limits: CsvLimits,
}

impl CsvTextFormatFactory {
    /// A factory whose formats have `limits` where options say nothing.
    pub fn new(limits: CsvLimits) -> Self {
        Self { limits }
    }

    /// The format of a table of which this is `known`.
    pub(crate) fn create_for_table(
        &self,
        state: &dyn Session,
        format_options: &HashMap<String, String>,
        known: Known,
    ) -> Result<Arc<dyn FileFormat>> {
        let mut own = OwnOptions {
            limits: self.limits.clone(),
            ..OwnOptions::default()
        };
        let mut theirs = HashMap::new();
        for (key, value) in format_options {
            match key.starts_with("csv.") {
                true => own.set(key, value)?,
                false => drop(theirs.insert(key.clone(), for_library(key, value)?)),
            }
        }
        let delimiter = CsvOptions::default().delimiter;
        let library = CsvFormatFactory::new().create(state, &theirs)?;
        let options = library
            .downcast_ref::<CsvFormat>()
            .map(CsvFormat::options)
            .ok_or_else(|| Error::invalid("the library's CSV format has another type"))?;
        let said = theirs.contains_key("format.delimiter") || options.delimiter != delimiter;
        let mut layout = CsvLayout::new(options, &own, said)?;
        layout.declared = known.declared;
        layout.may_lack = known.may_lack;
        Ok(Arc::new(CsvTextFormat { layout }))
    }
}

impl FileFormatFactory for CsvTextFormatFactory {
    fn create(
        &self,
        state: &dyn Session,
        format_options: &HashMap<String, String>,
    ) -> Result<Arc<dyn FileFormat>> {
        self.create_for_table(state, format_options, Known::default())
    }

    fn default(&self) -> Arc<dyn FileFormat> {
        let own = OwnOptions {
            limits: self.limits.clone(),
            ..OwnOptions::default()
        };
        let layout = CsvLayout::standard(own);
        Arc::new(CsvTextFormat { layout })
    }
}

impl GetExt for CsvTextFormatFactory {
    fn get_ext(&self) -> String {
        "csv".into()
    }
}

/// CSV of one table.
#[derive(Debug)]
struct CsvTextFormat {
    layout: CsvLayout,
}

impl CsvTextFormat {
    fn layout(&self, state: &dyn Session) -> CsvLayout {
        let default = state.config_options().catalog.has_header;
        self.layout.with_default_header(default)
    }
}

#[async_trait]
impl FileFormat for CsvTextFormat {
    fn get_ext(&self) -> String {
        "csv".into()
    }

    fn get_ext_with_compression(&self, compression: &FileCompressionType) -> Result<String> {
        Ok(format!("{}{}", self.get_ext(), compression.get_ext()))
    }

    fn compression_type(&self) -> Option<FileCompressionType> {
        Some(self.layout.compression)
    }

    async fn infer_schema(
        &self,
        state: &dyn Session,
        store: &Arc<dyn ObjectStore>,
        objects: &[ObjectMeta],
    ) -> Result<SchemaRef> {
        let layout = self.layout(state);
        let at_once = state
            .config_options()
            .execution
            .meta_fetch_concurrency
            .get();
        let headers = futures::stream::iter(objects).map(|object| {
            let layout = &layout;
            async move {
                let header = read_header(store, &object.location, layout).await?;
                Ok::<_, DataFusionError>((object, header))
            }
        });
        let mut headers = headers.boxed().buffered(at_once);
        let mut found: Option<SchemaRef> = None;
        while let Some((object, header)) = headers.try_next().await? {
            let own = schema(&header, layout.has_header());
            let table = match found {
                None => own,
                Some(table) if !layout.has_header() => {
                    same_count(&table, &own, &object.location)?;
                    table
                }
                Some(table) => {
                    let table = match layout.may_lack_columns() {
                        true => all_columns(&table, &own),
                        false => table,
                    };
                    let wanted = Wanted {
                        table: Arc::clone(&table),
                        projection: Arc::new([]),
                        folders: Arc::new([]),
                        declared: false,
                        truncated: layout.may_lack_columns(),
                    };
                    let checked = wanted.by_name(&header);
                    checked.map_err(|e| in_file(KIND, e.into(), object.location.as_ref()))?;
                    table
                }
            };
            found = Some(table);
        }
        found.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "no CSV file was found at the location").into()
        })
    }

    async fn infer_stats(
        &self,
        _: &dyn Session,
        _: &Arc<dyn ObjectStore>,
        table_schema: SchemaRef,
        _: &ObjectMeta,
    ) -> Result<Statistics> {
        Ok(Statistics::new_unknown(&table_schema))
    }

    async fn create_physical_plan(
        &self,
        state: &dyn Session,
        conf: FileScanConfig,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let layout = self.layout(state);
        let schema = conf.file_source.table_schema().clone();
        let compression = layout.compression;
        scan(conf, Arc::new(source(schema, layout)), compression)
    }

    async fn create_writer_physical_plan(
        &self,
        input: Arc<dyn ExecutionPlan>,
        state: &dyn Session,
        conf: FileSinkConfig,
        order_requirements: Option<LexRequirement>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        stores::check_written(&conf.table_paths).await?;
        if conf.insert_op != InsertOp::Append {
            let message = "CSV files cannot be replaced in one step; INSERT INTO a table at another \
                           location";
            return Err(Error::new(ErrorKind::Unsupported, message).into());
        }
        let layout = self.layout(state);
        if layout.encoding != Encoding::Utf8 {
            let message = format!(
                "CSV is written in UTF-8 alone, and csv.encoding is {}; write to another table, \
                 without that option",
                layout.encoding.name()
            );
            return Err(Error::new(ErrorKind::Unsupported, message).into());
        }
        for field in conf.output_schema().fields() {
            typed::check_writable(field.name(), field.data_type())?;
        }
        // The file that COPY names, or the ending of those in the directory of an INSERT.
        let named = match conf.original_url.rsplit('/').next() {
            Some(name) if name.contains('.') => name,
            _ => &conf.file_extension,
        };
        let layout = layout.of_name(&format!("x.{}", named.trim_start_matches('.')));
        let sink = Arc::new(CsvTextSink::new(conf.clone(), layout));
        let plan: Arc<dyn ExecutionPlan> =
            Arc::new(DataSinkExec::new(input, sink, order_requirements));
        whole(&plan, &conf)
    }

    fn file_source(&self, table_schema: TableSchema) -> Arc<dyn FileSource> {
        Arc::new(source(table_schema, self.layout.clone()))
    }
}

/// The columns of `table` and then those of `file` that it does not have.
fn all_columns(table: &Schema, file: &Schema) -> SchemaRef {
    let alike = |a: &FieldRef, b: &FieldRef| a.name().to_lowercase() == b.name().to_lowercase();
    let mut fields: Vec<FieldRef> = table.fields().to_vec();
    for field in file.fields() {
        if !fields.iter().any(|known| alike(known, field)) {
            fields.push(Arc::clone(field));
        }
    }
    Arc::new(Schema::new(fields))
}

/// Files without a header can be told by their number of columns alone.
fn same_count(table: &Schema, file: &Schema, name: &object_store::path::Path) -> Result<()> {
    let (expected, found) = (table.fields().len(), file.fields().len());
    match found == expected {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "CSV file {name}: its first record has {found} cells, that of the first file \
             {expected}; give files with the same columns"
        ))
        .into()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use datafusion::prelude::SessionContext;
    use object_store::memory::InMemory;
    use object_store::path::Path;
    use object_store::{ObjectStoreExt, PutPayload};

    use super::*;
    use crate::test_store::{Op, TestStore};

    #[tokio::test]
    async fn headers_are_read_side_by_side_and_looked_at_in_order() {
        let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let mut objects = vec![];
        for (name, text) in [
            ("a", "id,text\n"),
            ("b", "id,x\n"),
            ("c", "id,y\n"),
            ("d", "id\n"),
        ] {
            let path = Path::from(format!("{name}.csv"));
            inner
                .put(&path, PutPayload::from_static(text.as_bytes()))
                .await
                .unwrap();
            objects.push(inner.head(&path).await.unwrap());
        }
        // No file is given before all are asked for.
        let all = Arc::new(tokio::sync::Barrier::new(objects.len()));
        let store: Arc<dyn ObjectStore> = Arc::new(TestStore::new(inner).before(move |op| {
            let all = matches!(op, Op::Get(_)).then(|| Arc::clone(&all));
            Box::pin(async move {
                if let Some(all) = all {
                    all.wait().await;
                }
                Ok(())
            })
        }));
        let state = SessionContext::new().state();
        let format = CsvTextFormatFactory::new(CsvLimits::default()).default();
        let schema = format.infer_schema(&state, &store, &objects);
        let schema = tokio::time::timeout(Duration::from_secs(60), schema).await;
        let error = schema.unwrap().unwrap_err().to_string();
        assert!(
            error.contains("b.csv") && error.contains("x is not in the table"),
            "{error}"
        );
    }
}
