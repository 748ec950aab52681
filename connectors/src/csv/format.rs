//! The CSV file format of the session: our reader, the library's writer.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::Session;
use datafusion::common::config::CsvOptions;
use datafusion::common::{GetExt, Statistics};
use datafusion::datasource::file_format::csv::{CsvFormat, CsvFormatFactory};
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::file_format::{FileFormat, FileFormatFactory};
use datafusion::datasource::physical_plan::{
    FileScanConfig, FileScanConfigBuilder, FileSinkConfig, FileSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::Result;
use datafusion::physical_expr::LexRequirement;
use datafusion::physical_plan::ExecutionPlan;
use object_store::{ObjectMeta, ObjectStore};

use super::decoder::Dialect;
use super::source::{CsvLayout, CsvTextSource, read_header};
use crate::csv_limits::CsvLimits;
use crate::error::Error;

/// Makes [`CsvTextFormat`]s; takes the place of DataFusion's factory for `csv`.
#[derive(Debug)]
pub struct CsvTextFormatFactory {
    limits: CsvLimits,
}

impl CsvTextFormatFactory {
    /// A factory whose formats have `limits` where options say nothing.
    pub fn new(limits: CsvLimits) -> Self {
        Self { limits }
    }
}

impl FileFormatFactory for CsvTextFormatFactory {
    fn create(
        &self,
        state: &dyn Session,
        format_options: &HashMap<String, String>,
    ) -> Result<Arc<dyn FileFormat>> {
        let mut limits = self.limits.clone();
        let mut theirs = HashMap::new();
        for (key, value) in format_options {
            match key.starts_with("csv.") {
                true => limits.set(key, value)?,
                false => drop(theirs.insert(key.clone(), value.clone())),
            }
        }
        let library = CsvFormatFactory::new().create(state, &theirs)?;
        let options = library
            .downcast_ref::<CsvFormat>()
            .map(|format| format.options().clone())
            .ok_or_else(|| Error::invalid("the library's CSV format has another type"))?;
        Ok(Arc::new(CsvTextFormat { options, limits }))
    }

    fn default(&self) -> Arc<dyn FileFormat> {
        Arc::new(CsvTextFormat {
            options: CsvOptions::default(),
            limits: self.limits.clone(),
        })
    }
}

impl GetExt for CsvTextFormatFactory {
    fn get_ext(&self) -> String {
        "csv".into()
    }
}

/// CSV read by us and written by the library.
#[derive(Debug)]
struct CsvTextFormat {
    options: CsvOptions,
    limits: CsvLimits,
}

impl CsvTextFormat {
    fn library(&self) -> CsvFormat {
        CsvFormat::default().with_options(self.options.clone())
    }

    fn layout(&self, default_header: bool) -> CsvLayout {
        CsvLayout {
            dialect: Dialect {
                delimiter: self.options.delimiter,
                quote: self.options.quote,
                escape: self.options.escape,
                terminator: self.options.terminator,
                comment: self.options.comment,
            },
            has_header: self.options.has_header.unwrap_or(default_header),
            limits: self.limits.clone(),
            compression: self.options.compression.into(),
        }
    }
}

#[async_trait]
impl FileFormat for CsvTextFormat {
    fn get_ext(&self) -> String {
        "csv".into()
    }

    fn get_ext_with_compression(&self, compression: &FileCompressionType) -> Result<String> {
        self.library().get_ext_with_compression(compression)
    }

    fn compression_type(&self) -> Option<FileCompressionType> {
        Some(self.options.compression.into())
    }

    async fn infer_schema(
        &self,
        state: &dyn Session,
        store: &Arc<dyn ObjectStore>,
        objects: &[ObjectMeta],
    ) -> Result<SchemaRef> {
        let layout = self.layout(state.config_options().catalog.has_header);
        let mut first: Option<(SchemaRef, &ObjectMeta)> = None;
        for object in objects {
            let schema = read_header(store, &object.location, &layout).await?;
            match &first {
                None => first = Some((schema, object)),
                Some((other, from)) if *other != schema => {
                    return Err(Error::invalid(format!(
                        "the headers of {} and {} differ; give files with the same columns",
                        from.location, object.location
                    ))
                    .into());
                }
                Some(_) => {}
            }
        }
        first.map(|(schema, _)| schema).ok_or_else(|| {
            Error::new(
                crate::ErrorKind::NotFound,
                "no CSV file was found at the location",
            )
            .into()
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
        let layout = self.layout(state.config_options().catalog.has_header);
        let schema = conf.file_source.table_schema().clone();
        let compression = layout.compression;
        let mut source: Arc<dyn FileSource> = Arc::new(CsvTextSource::new(schema, layout));
        if let Some(projection) = conf.file_source.projection()
            && let Some(projected) = source.try_pushdown_projection(projection)?
        {
            source = projected;
        }
        let config = FileScanConfigBuilder::from(conf)
            .with_file_compression_type(compression)
            .with_source(source)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }

    async fn create_writer_physical_plan(
        &self,
        input: Arc<dyn ExecutionPlan>,
        state: &dyn Session,
        conf: FileSinkConfig,
        order_requirements: Option<LexRequirement>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.library()
            .create_writer_physical_plan(input, state, conf, order_requirements)
            .await
    }

    fn file_source(&self, table_schema: TableSchema) -> Arc<dyn FileSource> {
        Arc::new(CsvTextSource::new(table_schema, self.layout(true)))
    }
}
