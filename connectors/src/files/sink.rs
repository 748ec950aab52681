//! INSERT INTO a table of files: one new file, one for each folder of a partitioned table, or several on
//! a store that copies no large ones, made visible at the end. CSV is encoded by us, the rest by the
//! library.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::datasource::sink::DataSink;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, execute_stream};
use datafusion::prelude::SessionContext;
use futures::{StreamExt, TryStreamExt};

use super::commit::{Commit, Published};
use super::cut::Cut;
use super::keys;
use super::locate::Located;
use super::scan::Reading;
use super::target::Target;
use crate::cast::CheckedCast;
use crate::error::Error;
use crate::held::HeldStore;
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
}

impl FilesSink {
    /// Returns the number of rows added. The rows are not asked for if they were written before.
    async fn write(&self, rows: SendableRecordBatchStream, ctx: &Arc<TaskContext>) -> Result<u64> {
        let Some(mut commit) = self.target.begin(&self.write).await? else {
            return Ok(self.done_before());
        };
        let rows = self.in_columns(rows);
        let by_key_alone = self.write.key.is_some() && self.write.recorded.is_none();
        let (rows, interruption) = interrupt::hold_back(rows, by_key_alone);
        let rows = match &self.write.key {
            Some(key) => self.only_new(rows, key, &session(ctx)).await?,
            None => rows,
        };
        let count = self.stage(rows, &mut commit, ctx).await?;
        let added = self.publish(commit, count, ctx).await?;
        interruption.end(added, &self.target.shown)
    }

    /// Writes `rows` into what `commit` hides; how many there are.
    async fn stage(
        &self,
        rows: SendableRecordBatchStream,
        commit: &mut Commit,
        ctx: &Arc<TaskContext>,
    ) -> Result<u64> {
        match self.write_files(rows, commit, ctx).await {
            Ok(count) => Ok(count),
            Err(error) => {
                commit.abandon().await;
                let doing = format!("writing rows for the table at '{}'", self.target.shown);
                Err(Error::while_doing(doing, error).into())
            }
        }
    }

    /// One file after the other, or those of all folders at once.
    async fn write_files(
        &self,
        rows: SendableRecordBatchStream,
        commit: &mut Commit,
        ctx: &Arc<TaskContext>,
    ) -> Result<u64> {
        let (target, state) = (&self.target, session(ctx).state());
        let written = Arc::default();
        let counting = HeldStore::counting(ctx, &target.url, &written)?;
        let ctx = counting.within(ctx, &target.url);
        let rows = Cut::new(rows, target.file_bytes, written);
        let mut count = 0;
        loop {
            let to = target.destination(commit.hidden())?;
            let writer = self.reading.writer(&state, &to, &target.extension).await?;
            count += writer.sink().write_all(rows.file().await, &ctx).await?;
            commit.note().await?;
            if !rows.has_more().await? {
                return Ok(count);
            }
        }
    }

    /// Makes the `count` rows of `commit` visible; how many of them are new. Rows are dear: where
    /// another writer was faster, those that it has not added go into files of their own, and what is
    /// complete is removed only when it is no longer needed.
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
                    let next = self.again(&commit, ctx).await.map_err(|e| {
                        let at = &self.target.shown;
                        let doing = format!("comparing rows once more with the table at '{at}'");
                        commit.waiting(Error::while_doing(doing, e))
                    })?;
                    commit.abandon().await;
                    match next {
                        Some(next) => (commit, count) = next,
                        None => return Ok(self.done_before()),
                    }
                }
            }
        }
        Err(commit.waiting(self.target.overtaken()).into())
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
        let next = self.target.begin(&self.write).await?;
        let (Some(mut next), Some(key)) = (next, &self.write.key) else {
            return Ok(None);
        };
        let files = staged.files().await?.into_iter();
        let files = files.filter_map(|file| Some((self.place.as_ref()?, file)));
        let rows = self.reading.scan(&state, files.collect(), None, &[], None);
        let rows = rows.await?;
        let rows = execute_stream(rows, Arc::clone(ctx))?;
        let rows = self.only_new(rows, key, &session).await?;
        let count = self.stage(rows, &mut next, ctx).await?;
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
