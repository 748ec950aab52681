//! INSERT INTO a table of files: one new file, or one for each folder of a partitioned table, encoded
//! by the library, made visible at the end.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::datasource::sink::{DataSink, DataSinkExec};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, execute_stream};
use datafusion::prelude::SessionContext;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;

use super::commit::{Commit, Published};
use super::keys;
use super::locate::Located;
use super::scan::Reading;
use super::target::Target;
use crate::cast::CheckedCast;
use crate::error::Error;
use crate::interrupt;
use crate::keys::Keys;
use crate::write::WriteOptions;

/// How often rows with a key are made visible where others add files at once. Each time another
/// writer was faster, so that one of them comes forward.
const PUBLISH_ATTEMPTS: usize = 100;

/// The target of one INSERT statement.
#[derive(Debug)]
pub(super) struct FilesSink {
    /// What is there already, for keys.
    pub(super) table: Arc<dyn TableProvider>,
    /// How files are written, and read once more.
    pub(super) reading: Reading,
    /// Where they are.
    pub(super) place: Option<Located>,
    /// For rows not yet looked at: they are given in any type, and null anywhere.
    pub(super) schema: SchemaRef,
    /// The table's.
    pub(super) into: SchemaRef,
    pub(super) target: Target,
    pub(super) write: WriteOptions,
    /// The library's writer of one file.
    pub(super) writer: Arc<DataSinkExec>,
    /// The file it writes.
    pub(super) hidden: Path,
}

impl FilesSink {
    /// Returns the number of rows added. The rows are not asked for if they were written before.
    async fn write(&self, rows: SendableRecordBatchStream, ctx: &Arc<TaskContext>) -> Result<u64> {
        let begun = self.target.begin(self.hidden.clone(), &self.write).await?;
        let Some(commit) = begun else {
            return Ok(self.done_before());
        };
        let rows = self.in_columns(rows);
        let by_key_alone = self.write.key.is_some() && self.write.recorded.is_none();
        let (rows, interruption) = interrupt::hold_back(rows, by_key_alone);
        let rows = match &self.write.key {
            Some(key) => self.only_new(rows, key, &session(ctx)).await?,
            None => rows,
        };
        let count = self.stage(&self.writer, rows, &commit, ctx).await?;
        let added = self.publish(commit, count, ctx).await?;
        interruption.end(added, &self.target.shown)
    }

    /// Writes `rows` into what `commit` hides; how many there are.
    async fn stage(
        &self,
        writer: &DataSinkExec,
        rows: SendableRecordBatchStream,
        commit: &Commit,
        ctx: &Arc<TaskContext>,
    ) -> Result<u64> {
        match writer.sink().write_all(rows, ctx).await {
            Ok(count) => Ok(count),
            Err(error) => {
                commit.abandon().await;
                let doing = format!("writing rows for the table at '{}'", self.target.shown);
                Err(Error::while_doing(doing, error).into())
            }
        }
    }

    /// Makes the `count` rows of `commit` visible; how many of them are new. Rows are dear: where
    /// another writer was faster, those that it has not added go into a file of their own.
    async fn publish(
        &self,
        mut commit: Commit,
        mut count: u64,
        ctx: &Arc<TaskContext>,
    ) -> Result<u64> {
        for _ in 0..PUBLISH_ATTEMPTS {
            if count == 0 {
                return Ok(commit.publish_nothing().await.map(|()| 0)?);
            }
            match commit.publish().await? {
                Published::Added => return Ok(count),
                Published::AlreadyThere => return Ok(self.done_before()),
                Published::Overtaken => {
                    let next = self.again(&commit, ctx).await;
                    commit.abandon().await;
                    match next? {
                        Some(next) => (commit, count) = next,
                        None => return Ok(self.done_before()),
                    }
                }
            }
        }
        commit.abandon().await;
        Err(self.target.overtaken().into())
    }

    /// A commit of those rows of `staged` that are still new, and how many; none if this write is
    /// recorded by now.
    async fn again(
        &self,
        staged: &Commit,
        ctx: &Arc<TaskContext>,
    ) -> Result<Option<(Commit, u64)>> {
        let session = session(ctx);
        let state = session.state();
        let hidden = self.target.hidden()?;
        let next = self.target.begin(hidden.prefix().clone(), &self.write);
        let (Some(next), Some(key)) = (next.await?, &self.write.key) else {
            return Ok(None);
        };
        let files = staged.files().await?.into_iter();
        let files = files.filter_map(|file| Some((self.place.as_ref()?, file)));
        let rows = self.reading.scan(&state, files.collect(), None, &[], None);
        let rows = rows.await?;
        let rows = execute_stream(rows, Arc::clone(ctx))?;
        let rows = self.only_new(rows, key, &session).await?;
        let extension = &self.target.extension;
        let writer = self.reading.writer(&state, &hidden, extension).await?;
        let count = self.stage(&writer, rows, &next, ctx).await?;
        Ok(Some((next, count)))
    }

    /// The rows whose key is not in the table.
    async fn only_new(
        &self,
        rows: SendableRecordBatchStream,
        key: &str,
        session: &SessionContext,
    ) -> Result<SendableRecordBatchStream> {
        let (table, into) = (Arc::clone(&self.table), self.shown());
        let keys = keys::read(session, table, key, &into).await?;
        Ok(only_new(rows, keys))
    }

    /// The rows in the table's columns.
    fn in_columns(&self, rows: SendableRecordBatchStream) -> SendableRecordBatchStream {
        let mut cast = CheckedCast::new(Arc::clone(&self.into), self.shown());
        let rows = rows.map(move |batch| Ok(cast.cast(&batch?)?));
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.into), rows))
    }

    /// The table in errors.
    fn shown(&self) -> String {
        format!("the table at '{}'", self.target.shown)
    }

    /// Says that the rows are there; how many were added.
    fn done_before(&self) -> u64 {
        if let Some(recorded) = &self.write.recorded {
            let notice = recorded.done_before(&self.target.shown);
            log::info!(target: "casebook", "{notice}");
        }
        0
    }
}

/// A session for statements of our own.
fn session(ctx: &TaskContext) -> SessionContext {
    SessionContext::new_with_config_rt(ctx.session_config().clone(), ctx.runtime_env())
}

/// The rows whose key is new.
fn only_new(rows: SendableRecordBatchStream, keys: Keys) -> SendableRecordBatchStream {
    let schema = rows.schema();
    let new = futures::stream::try_unfold((rows, keys), |(mut rows, mut keys)| async move {
        while let Some(batch) = rows.try_next().await? {
            let new = keys.keep_new(&batch).await?;
            if new.num_rows() > 0 {
                return Ok(Some((new, (rows, keys))));
            }
        }
        Ok(None)
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, new))
}

impl DisplayAs for FilesSink {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FilesSink: location={}{}", self.target.shown, self.write)
    }
}

#[async_trait]
impl DataSink for FilesSink {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    async fn write_all(
        &self,
        data: SendableRecordBatchStream,
        ctx: &Arc<TaskContext>,
    ) -> Result<u64> {
        self.write(data, ctx).await
    }
}
