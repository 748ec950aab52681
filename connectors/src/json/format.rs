//! The JSON file format of the session: our reader, the library's writer.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::Session;
use datafusion::common::config::JsonOptions;
use datafusion::common::{GetExt, Statistics};
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::file_format::json::{JsonFormat, JsonFormatFactory};
use datafusion::datasource::file_format::{FileFormat, FileFormatFactory};
use datafusion::datasource::physical_plan::{FileScanConfig, FileSinkConfig, FileSource};
use datafusion::datasource::sink::DataSinkExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::Result;
use datafusion::physical_expr::LexRequirement;
use datafusion::physical_plan::ExecutionPlan;
use object_store::{ObjectMeta, ObjectStore};

use super::options::JsonLimits;
use super::records::Layout;
use super::shape::Shape;
use super::source::{JsonLayout, read_shape};
use super::write::JsonTextSink;
use crate::error::{Error, ErrorKind};
use crate::stores;
use crate::text::{TextSource, scan};
use crate::whole::whole;

/// Objects that columns are read from, over all files of a table, where options say nothing.
const SAMPLE: usize = 1000;

/// Makes [`JsonTextFormat`]s; takes the place of DataFusion's factory for `json`.
#[derive(Debug)]
pub(crate) struct JsonTextFormatFactory;

impl FileFormatFactory for JsonTextFormatFactory {
    fn create(
        &self,
        state: &dyn Session,
        format_options: &HashMap<String, String>,
    ) -> Result<Arc<dyn FileFormat>> {
        let mut limits = JsonLimits::default();
        let mut theirs = HashMap::new();
        for (key, value) in format_options {
            match key.starts_with("json.") {
                true => limits.set(key, value)?,
                false => drop(theirs.insert(key.clone(), value.clone())),
            }
        }
        let library = JsonFormatFactory::new().create(state, &theirs)?;
        let options = library
            .downcast_ref::<JsonFormat>()
            .map(|format| format.options().clone())
            .ok_or_else(|| Error::invalid("the library's JSON format has another type"))?;
        if options.schema_infer_max_rec == Some(0) {
            return Err(Error::invalid(
                "option format.schema_infer_max_rec is 0; expected a number of records, at least 1",
            )
            .into());
        }
        Ok(Arc::new(JsonTextFormat { options, limits }))
    }

    fn default(&self) -> Arc<dyn FileFormat> {
        Arc::new(JsonTextFormat {
            options: JsonOptions::default(),
            limits: JsonLimits::default(),
        })
    }
}

impl GetExt for JsonTextFormatFactory {
    fn get_ext(&self) -> String {
        "json".into()
    }
}

/// JSON read by us and written by the library.
#[derive(Debug)]
struct JsonTextFormat {
    options: JsonOptions,
    limits: JsonLimits,
}

impl JsonTextFormat {
    fn library(&self) -> JsonFormat {
        JsonFormat::default().with_options(self.options.clone())
    }

    fn layout(&self) -> JsonLayout {
        JsonLayout {
            layout: match self.options.newline_delimited {
                true => Layout::Lines,
                false => Layout::Array,
            },
            limits: self.limits.clone(),
            compression: self.options.compression.into(),
        }
    }
}

#[async_trait]
impl FileFormat for JsonTextFormat {
    fn get_ext(&self) -> String {
        "json".into()
    }

    fn get_ext_with_compression(&self, compression: &FileCompressionType) -> Result<String> {
        self.library().get_ext_with_compression(compression)
    }

    fn compression_type(&self) -> Option<FileCompressionType> {
        Some(self.options.compression.into())
    }

    async fn infer_schema(
        &self,
        _: &dyn Session,
        store: &Arc<dyn ObjectStore>,
        objects: &[ObjectMeta],
    ) -> Result<SchemaRef> {
        let layout = self.layout();
        let mut left = self.options.schema_infer_max_rec.unwrap_or(SAMPLE);
        let mut shape = Shape::empty();
        for object in objects {
            if left == 0 {
                break;
            }
            let (found, count) = read_shape(store, &object.location, &layout, left).await?;
            left -= count;
            shape = shape.and(found).map_err(|e| {
                let name = crate::stores::shown_file(store.as_ref(), &object.location);
                Error::invalid(format!("JSON file {name}: {}", e))
            })?;
        }
        Ok(Arc::new(shape.schema()))
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
        _: &dyn Session,
        conf: FileScanConfig,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let layout = self.layout();
        let schema = conf.file_source.table_schema().clone();
        let compression = layout.compression;
        scan(conf, Arc::new(TextSource::new(schema, layout)), compression)
    }

    async fn create_writer_physical_plan(
        &self,
        input: Arc<dyn ExecutionPlan>,
        state: &dyn Session,
        conf: FileSinkConfig,
        order_requirements: Option<LexRequirement>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        stores::check_written(&conf.table_paths).await?;
        if !self.options.newline_delimited {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "INSERT writes JSON as one object per line, and format.newline_delimited is false; \
                 insert into a table at another location without that option",
            )
            .into());
        }
        let plan = self
            .library()
            .create_writer_physical_plan(input, state, conf.clone(), order_requirements)
            .await?;
        let Some(writer) = plan.downcast_ref::<DataSinkExec>() else {
            let message = "the library's writer of JSON has another type";
            return Err(Error::new(ErrorKind::Internal, message).into());
        };
        let sink = JsonTextSink(writer.clone());
        let plan: Arc<dyn ExecutionPlan> = Arc::new(DataSinkExec::new(
            Arc::clone(writer.input()),
            Arc::new(sink),
            writer.sort_order().clone(),
        ));
        whole(&plan, &conf)
    }

    fn file_source(&self, table_schema: TableSchema) -> Arc<dyn FileSource> {
        Arc::new(TextSource::new(table_schema, self.layout()))
    }
}
