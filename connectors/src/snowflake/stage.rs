//! Many rows: Parquet files in a temporary stage, loaded with one COPY.
//!
//! A stage with server-side encryption takes files as they are. Where no stage can be made, or its
//! storage is one that this does not speak to, rows go as bound values instead, which is slower but
//! asks for nothing.
//!
//! Sources: Snowflake's reference of CREATE STAGE, PUT and COPY INTO.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::Compression;
use datafusion::parquet::errors::ParquetError;
use datafusion::parquet::file::properties::WriterProperties;
use tokio::time::timeout;

use super::encode::TextBatch;
use super::session::Session;
use super::statement::Statement;
use super::upload::Place;
use crate::error::{Error, Result};
use crate::sql::staging::Staging;

/// Bytes of text after which a row group ends; the writer holds one.
const ROW_GROUP_BYTES: usize = 16 << 20;
/// Bytes of text after which a file ends; it is held, compressed, until it is sent.
const FILE_BYTES: usize = 64 << 20;

/// How long the storage has to take an empty file.
const PROBE_TIMEOUT: Duration = Duration::from_secs(30);

/// A temporary stage and the file that is being written for it.
pub(super) struct Stage {
    session: Arc<Session>,
    doing: String,
    name: String,
    schema: SchemaRef,
    writer: Option<ArrowWriter<Vec<u8>>>,
    group_bytes: usize,
    file_bytes: usize,
    files: usize,
}

impl Stage {
    /// A stage in the session's schema for rows of `staging`, as texts. None if rows cannot go that
    /// way: a file without rows is sent to see, in whose place the first one with rows comes. A
    /// network that lets reach Snowflake but not its storage would cost the rows otherwise.
    pub(super) async fn create(
        session: &Arc<Session>,
        staging: &Staging,
        doing: &str,
    ) -> Option<Self> {
        let name = format!("{}_FILES", staging.name());
        let sql = format!("CREATE TEMPORARY STAGE {name} ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE')");
        Statement::new(doing, &sql).run(session).await.ok()?;
        let fields = staging.columns().fields().iter();
        let fields = fields.map(|f| Field::new(f.name(), DataType::Utf8View, true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let none = writer(&schema).and_then(ArrowWriter::into_inner).ok()?;
        let probe = async {
            let place = place(session, &name, 0, doing).await.ok()??;
            place.put(session, doing, Bytes::from(none)).await.ok()
        };
        timeout(PROBE_TIMEOUT, probe).await.ok()??;
        Some(Self {
            session: Arc::clone(session),
            doing: doing.to_owned(),
            name,
            schema,
            writer: None,
            group_bytes: 0,
            file_bytes: 0,
            files: 0,
        })
    }

    /// Takes the rows of `batch` from `from` on.
    pub(super) async fn add(&mut self, batch: &TextBatch, from: usize) -> Result<()> {
        let rows = batch.columns(&self.schema, from)?;
        let bytes = batch.bytes(from);
        let failed = |e: ParquetError| Error::while_doing("writing rows as Parquet", e);
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => none.insert(writer(&self.schema).map_err(failed)?),
        };
        writer.write(&rows).map_err(failed)?;
        self.group_bytes += bytes;
        self.file_bytes += bytes;
        if self.group_bytes >= ROW_GROUP_BYTES {
            writer.flush().map_err(failed)?;
            self.group_bytes = 0;
        }
        match self.file_bytes >= FILE_BYTES {
            true => self.send().await,
            false => Ok(()),
        }
    }

    /// Loads all files into the staging table.
    pub(super) async fn load(mut self, staging: &Staging) -> Result<()> {
        self.send().await?;
        let fields = self.schema.fields().iter();
        // The text \N is a text: by default it would be null.
        let values: Vec<String> = fields
            .map(|f| format!("$1:{}::VARCHAR", f.name()))
            .collect();
        let sql = format!(
            "COPY INTO {} ({}) FROM (SELECT {} FROM @{}) FILE_FORMAT = (TYPE = PARQUET \
             NULL_IF = ())",
            staging.name(),
            staging.names(),
            values.join(", "),
            self.name
        );
        let statement = Statement::new(&self.doing, &sql);
        statement.run(&self.session).await.map(drop)
    }

    /// Ends the file and sends it.
    async fn send(&mut self) -> Result<()> {
        let Some(writer) = self.writer.take() else {
            return Ok(());
        };
        let bytes = writer
            .into_inner()
            .map_err(|e| Error::while_doing("writing rows as Parquet", e))?;
        (self.group_bytes, self.file_bytes) = (0, 0);
        // Asked for each file: what is lent expires, and rows may take hours to make.
        let place = place(&self.session, &self.name, self.files, &self.doing).await?;
        let place = place.ok_or_else(|| {
            let doing = &self.doing;
            Error::invalid(format!("{doing}: the stage changed its storage meanwhile"))
        })?;
        let doing = format!("{}: sending file {}", self.doing, self.files + 1);
        place.put(&self.session, &doing, Bytes::from(bytes)).await?;
        self.files += 1;
        Ok(())
    }
}

/// Where file number `number` of the stage `name` goes; none if that is no storage we can write to.
async fn place(
    session: &Arc<Session>,
    name: &str,
    number: usize,
    doing: &str,
) -> Result<Option<Place>> {
    let file = format!("part-{number:05}.parquet");
    let sql = format!("PUT 'file:///{file}' @{name} AUTO_COMPRESS = FALSE OVERWRITE = TRUE");
    let data = Statement::new(doing, &sql).run(session).await?;
    // With such a key, files must be encrypted here.
    let encrypted = data.encryption_material.is_some_and(|m| !m.is_null());
    Ok(match data.stage_info {
        Some(info) if !encrypted => {
            let settings = &session.settings;
            Place::new(info, &file, settings.ca_file.as_deref(), &settings.proxy)
        }
        _ => None,
    })
}

fn writer(schema: &SchemaRef) -> Result<ArrowWriter<Vec<u8>>, ParquetError> {
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY);
    ArrowWriter::try_new(vec![], Arc::clone(schema), Some(properties.build()))
}
