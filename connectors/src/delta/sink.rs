//! INSERT INTO a Delta table: rows stream into Parquet files, one commit makes them visible.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{FieldRef, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::datasource::sink::DataSink;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType};
use deltalake::DeltaTable;
use futures::StreamExt;

use super::scan;
use super::source::DeltaSource;
use super::target::Target;
use super::wanted::{self, Wanted};
use crate::cast::{CheckedCast, relaxed};
use crate::error::{Error, Result};
use crate::guard::caught_while;
use crate::interrupt;
use crate::write::WriteOptions;

/// The target of one INSERT statement.
#[derive(Debug)]
pub(super) struct DeltaSink {
    source: DeltaSource,
    /// For rows not yet checked: a null in a NOT NULL column is told by the table's conditions,
    /// which name the row.
    schema: SchemaRef,
    options: WriteOptions,
    overwrite: bool,
    wanted: Option<Wanted>,
}

impl DeltaSink {
    pub(super) fn new(
        source: DeltaSource,
        schema: SchemaRef,
        options: WriteOptions,
        overwrite: bool,
        wanted: Option<Wanted>,
    ) -> Self {
        Self {
            source,
            schema: Arc::new(relaxed(&schema)),
            options,
            overwrite,
            wanted,
        }
    }

    /// Returns the number of rows added. The rows are not asked for if they were written before.
    async fn write(&self, rows: SendableRecordBatchStream) -> datafusion::error::Result<u64> {
        let table = wanted::open(&self.source, self.wanted.as_ref()).await?;
        check_columns(&table, &self.schema, self.source.location())?;
        let what = format!("the Delta table at '{}'", self.source.location());
        let target = Target::new(&self.source, table, &self.options, self.overwrite);
        let mut target = caught_while(&what, target).await?;
        if target.is_done() {
            self.say_done();
            return Ok(0);
        }
        let (mut rows, interruption) = interrupt::hold_back(rows, self.appends_by_key_alone());
        match self.stream(&mut rows, &mut target).await {
            Ok(added) => {
                if target.is_done() {
                    self.say_done();
                }
                interruption.end(added, self.source.location())
            }
            Err(error) => {
                target.discard().await;
                Err(error)
            }
        }
    }

    /// Says that an earlier run added these rows.
    fn say_done(&self) {
        if let Some(recorded) = &self.options.recorded {
            let notice = recorded.done_before(self.source.location());
            log::info!(target: "casebook", "{notice}");
        }
    }

    fn appends_by_key_alone(&self) -> bool {
        self.options.key.is_some() && self.options.recorded.is_none() && !self.overwrite
    }

    /// The table's columns; NOT NULL where the statement or `table.create` says so.
    fn columns(&self) -> SchemaRef {
        let Some(wanted) = &self.wanted else {
            return Arc::clone(&self.schema);
        };
        let column = |field: &FieldRef| {
            let declared = wanted.columns.field_with_name(field.name());
            let nullable = declared.map_or(true, |declared| declared.is_nullable());
            field.as_ref().clone().with_nullable(nullable)
        };
        let columns = self.schema.fields().iter().map(column);
        Arc::new(Schema::new(columns.collect::<Vec<_>>()))
    }

    async fn stream(
        &self,
        rows: &mut SendableRecordBatchStream,
        target: &mut Target,
    ) -> datafusion::error::Result<u64> {
        let into = format!("the Delta table at '{}'", self.source.location());
        let mut cast = CheckedCast::new(self.columns(), &*into);
        while let Some(batch) = rows.next().await.transpose()? {
            target.write(cast.cast(&batch)?).await?;
        }
        Ok(caught_while(&into, target.commit()).await?)
    }
}

/// An error if the table at `location` has not the columns `expected`, in which its rows come.
pub(super) fn check_columns(table: &DeltaTable, expected: &Schema, location: &str) -> Result<()> {
    let found = scan::provider(table, location)?.schema();
    match relaxed(&found).fields() == relaxed(expected).fields() {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "the columns of the Delta table at '{location}' have changed since CREATE EXTERNAL \
             TABLE; create it again to see the new ones"
        ))),
    }
}

impl DisplayAs for DeltaSink {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (location, options) = (self.source.location(), &self.options);
        write!(f, "DeltaSink: location={location}{options}")
    }
}

#[async_trait]
impl DataSink for DeltaSink {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    async fn write_all(
        &self,
        data: SendableRecordBatchStream,
        _: &Arc<TaskContext>,
    ) -> datafusion::error::Result<u64> {
        self.write(data).await
    }
}
