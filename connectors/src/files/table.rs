//! A table of files: its statements each see the files that are there then, and its INSERT adds one.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Constraints;
use datafusion::datasource::sink::DataSinkExec;
use datafusion::error::Result;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use object_store::ObjectMeta;

use super::batches;
use super::ending::Ending;
use super::locate::{Kind, Located};
use super::scan::Reading;
use super::sink::FilesSink;
use super::target::Target;
use crate::cast::relaxed;
use crate::declared::check_input;
use crate::error::{Error, ErrorKind};
use crate::write::{self, WriteOptions};

/// The files of one or several places.
#[derive(Debug, Clone)]
pub(crate) struct FilesTable {
    /// `STORED AS` name.
    pub(super) format_name: &'static str,
    pub(super) reading: Reading,
    pub(super) places: Vec<Located>,
    /// How its files end; those that join later must be compressed alike.
    pub(super) ending: Ending,
    /// An option says how the files are compressed, so their names need not.
    pub(super) says_compression: bool,
    pub(super) write: WriteOptions,
    /// The statement, unless it holds credentials.
    pub(super) definition: Option<String>,
    pub(super) defaults: std::collections::HashMap<String, Expr>,
    pub(super) schema: SchemaRef,
    pub(super) notices: Notices,
}

/// What was said about files that are left out: it is said again only when it changes.
#[derive(Debug, Clone, Default)]
pub(super) struct Notices(Arc<Mutex<Vec<String>>>);

impl Notices {
    pub(super) fn say(&self, notice: String) {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !said.contains(&notice) {
            log::warn!(target: "casebook", "{notice}");
            said.push(notice);
        }
    }
}

impl FilesTable {
    /// The key of an INSERT must be a column.
    pub(super) fn check_key(&self) -> Result<(), Error> {
        self.write.check_key(&self.schema)
    }

    /// The files that are there now.
    async fn files(&self, state: &dyn Session) -> Result<Vec<(&Located, ObjectMeta)>, Error> {
        let below = !state
            .config_options()
            .execution
            .listing_table_ignore_subdirectory;
        let mut files = vec![];
        let mut seen = std::collections::HashSet::new();
        for place in &self.places {
            let listed = place.list(state, self.format_name, below).await?;
            listed.check(place, self.format_name)?;
            if let Some(notice) = listed.notice(place, self.format_name) {
                self.notices.say(notice);
            }
            for meta in listed.files {
                // Places may overlap. An empty file has no rows, whatever its format.
                let several = self.places.len() > 1;
                if meta.size == 0 || several && !seen.insert(meta.location.clone()) {
                    continue;
                }
                self.check_ending(place, &meta)?;
                files.push((place, meta));
            }
        }
        Ok(files)
    }

    /// The reader was made for one kind of file.
    fn check_ending(&self, place: &Located, meta: &ObjectMeta) -> Result<(), Error> {
        let name = meta.location.filename().unwrap_or_default();
        let ending = Ending::of(name, self.format_name);
        if self.says_compression
            || matches!(place.kind, Kind::File)
            || ending.packed == self.ending.packed
        {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "{} is compressed in another way than the files of the table ({}); give it a place of \
             its own",
            place.name(&meta.location),
            self.ending.text()
        )))
    }

    /// The directory that an INSERT adds a file to.
    fn target(&self, state: &dyn Session) -> Result<Target, Error> {
        let [place] = &self.places[..] else {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "a table with several locations cannot be written to; make a table of one directory",
            ));
        };
        if !matches!(place.kind, Kind::Directory) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "'{}' names the files of a table; an INSERT adds a file to a directory: end \
                     the location with /",
                    place.shown
                ),
            ));
        }
        Ok(Target {
            store: place.store(state)?,
            url: place.store.clone(),
            directory: place.base.clone(),
            local: place.local_directory(),
            shown: place.shown.clone(),
            extension: self.ending.text(),
            partitioned: !self.reading.partitions.is_empty(),
            file_bytes: Target::file_bytes(&place.store),
        })
    }
}

#[async_trait]
impl TableProvider for FilesTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn constraints(&self) -> Option<&Constraints> {
        Some(&self.reading.constraints)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn get_table_definition(&self) -> Option<&str> {
        self.definition.as_deref()
    }

    fn get_column_default(&self, column: &str) -> Option<&Expr> {
        self.defaults.get(column)
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        let answer = |filter: &&Expr| match self.reading.prunes(filter) {
            true => TableProviderFilterPushDown::Exact,
            false => TableProviderFilterPushDown::Inexact,
        };
        Ok(filters.iter().map(answer).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let files = self.files(state).await?;
        let scan = self.reading.scan(state, files, projection, filters, limit);
        Ok(batches::bounded(
            scan.await?,
            projection,
            state.config().batch_size(),
        ))
    }

    async fn insert_into(
        &self,
        state: &dyn Session,
        input: Arc<dyn ExecutionPlan>,
        insert_op: InsertOp,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let target = self.target(state)?;
        if insert_op == InsertOp::Replace {
            return Err(write::no_replace("a table of files").into());
        }
        if insert_op != InsertOp::Append {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "the files at '{}' cannot be replaced in one step; INSERT INTO a table at \
                     another location, or use STORED AS DELTA",
                    target.shown
                ),
            )
            .into());
        }
        check_input(&input, &self.schema())?;
        // What it cannot write is refused before any row is made.
        let (to, extension) = (target.destination(&target.hidden())?, &target.extension);
        self.reading.writer(state, &to, extension).await?;
        let sink = FilesSink {
            table: Arc::new(self.clone()),
            schema: Arc::new(relaxed(&self.schema)),
            into: self.schema(),
            reading: self.reading.clone(),
            place: self.places.first().cloned(),
            write: self.write.clone(),
            target,
        };
        Ok(Arc::new(DataSinkExec::new(input, Arc::new(sink), None)))
    }
}
