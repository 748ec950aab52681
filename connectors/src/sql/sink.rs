//! INSERT INTO a table of a SQL system: rows go into a staging table, then one step brings them
//! into the target. Whatever ends it before that leaves the target as it was.
//!
//! Rows may take hours to make: no transaction is open meanwhile, because one that a killed program
//! leaves behind would keep a lock until the system gives up on it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::array::{Array, Int64Array, RecordBatch};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::datasource::sink::DataSink;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType};
use futures::{StreamExt, stream};
use tokio::time::sleep;

use super::exchange::{Described, Rows, Staged};
use super::leftovers::{Leftover, seconds_now, sweep};
use super::staging::Staging;
use super::system::SqlSystem;
use super::target::{Opened, Target};
use crate::cast::{CheckedCast, relaxed};
use crate::error::{self, Error, ErrorKind};
use crate::interrupt;
use crate::keys::{Hashes, Keys};
use crate::write;

/// How often rows with a key are brought into a target where others add the same keys at once.
const PUBLISH_TRIES: u32 = 6;

/// How long such a target is left alone after the first try, where it does not say itself when the
/// others are done; doubled for each further one.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// The target of one INSERT statement.
#[derive(Debug)]
pub(crate) struct StagedSink {
    target: Arc<Target>,
    schema: SchemaRef,
    overwrite: bool,
}

impl StagedSink {
    pub(crate) fn new(target: Arc<Target>, overwrite: bool) -> Self {
        Self {
            schema: Arc::clone(target.opened().columns.schema()),
            target,
            overwrite,
        }
    }

    /// Returns the number of rows added.
    async fn write(&self, rows: SendableRecordBatchStream) -> Result<u64> {
        let session = self.target.system.session().await?;
        // Before the first row is asked for: a right that is missing must not cost a model's work.
        let opened = self.target.prepare(&*session).await?;
        let staging = Arc::new(Staging::new(
            &opened.described,
            &opened.columns,
            seconds_now(),
        ));
        let expire = self.target.asked.write.expire;
        sweep(&*session, &opened.described, expire).await;
        let leftover = Leftover::watch(&session, &staging, expire);
        let (rows, interruption) = interrupt::hold_back(rows, self.completed_by_rerun());
        let rows = self.prepared(rows, &opened, &staging)?;
        let written = match session.stage(&staging, rows).await {
            Ok(staged) if staged.rows == 0 && !self.overwrite => Ok(0),
            Ok(staged) => self.publish(&*session, &opened, &staging, &staged).await,
            Err(error) => Err(error),
        };
        leftover.remove().await;
        interruption.end(written?, &opened.described.shown())
    }

    /// True if the same statement adds what is missing when it is run again.
    fn completed_by_rerun(&self) -> bool {
        self.target.asked.write.key.is_some() && !self.overwrite
    }

    /// The position of the column in write.key.
    fn key(&self, opened: &Opened) -> error::Result<Option<usize>> {
        let key = self.target.asked.write.key.as_deref();
        key.map(|key| write::key_position(key, opened.columns.schema()))
            .transpose()
    }

    /// The rows as they are staged: in the target's types, with their keys, numbered.
    fn prepared(
        &self,
        rows: SendableRecordBatchStream,
        opened: &Opened,
        staging: &Staging,
    ) -> Result<Rows> {
        let key = self.key(opened)?;
        let name = self.target.asked.write.key.clone().unwrap_or_default();
        let into = format!("the table {}", opened.described.shown());
        // The target's own keys are looked at by the step that publishes.
        let keys = key.map(|_| Keys::new(&name, &*into, Hashes::default()));
        let prepared = Prepared {
            keys,
            cast: CheckedCast::new(Arc::new(relaxed(opened.columns.schema())), into),
            key: key.map(|key| (key, name)),
            staged: Arc::clone(staging.columns()),
            sent: 0,
        };
        let rows = stream::try_unfold((rows, prepared), async |(mut rows, mut prepared)| {
            while let Some(batch) = rows.next().await.transpose()? {
                let batch = prepared.batch(&batch).await?;
                if batch.num_rows() > 0 {
                    return Ok(Some((batch, (rows, prepared))));
                }
            }
            Ok::<_, DataFusionError>(None)
        });
        Ok(rows.boxed())
    }

    /// Brings the staged rows into the target, all or none.
    async fn publish(
        &self,
        session: &dyn SqlSystem,
        opened: &Opened,
        staging: &Staging,
        staged: &Staged,
    ) -> Result<u64> {
        let key = self.key(opened)?;
        let statements = staging.publish(staged, key, self.overwrite);
        let doing = format!("adding rows to {}", opened.described.shown());
        let mut published = session.publish(&doing, &statements).await;
        let tries = if key.is_some() {
            1..PUBLISH_TRIES
        } else {
            0..0
        };
        for before in tries {
            let Err(error) = &published else { break };
            match (error.kind(), opened.described.dialect.enforces_keys) {
                // Other writers may have added the same keys meanwhile, which another look sees; or
                // the system ended this statement because two of them waited for each other. A row
                // that the table refuses for another reason is refused each time.
                (ErrorKind::InvalidInput | ErrorKind::Unavailable, true) => {}
                // Another writer was faster (Delta allows one at a time), or the warehouse is away.
                (ErrorKind::Unavailable, false) => sleep(FIRST_WAIT * (1 << (before - 1))).await,
                _ => break,
            }
            published = session.publish(&doing, &statements).await;
        }
        let added = published.map_err(|error| {
            let advice = match (error.kind(), key) {
                (ErrorKind::Unavailable, None) => {
                    "it is not known whether the rows are there: look before you run it again, and \
                     set write.key so that running it again is safe"
                }
                (ErrorKind::Unavailable, Some(_)) => {
                    "run it again: rows that are already there are kept"
                }
                _ => return error,
            };
            Error::new(error.kind(), format!("{error}; {advice}")).with_source(error)
        })?;
        Ok(added.unwrap_or(staged.rows))
    }
}

/// What makes rows ready to be staged.
struct Prepared {
    cast: CheckedCast,
    keys: Option<Keys>,
    /// The position and the name of the column in write.key.
    key: Option<(usize, String)>,
    staged: SchemaRef,
    /// Rows that went on.
    sent: i64,
}

impl Prepared {
    async fn batch(&mut self, batch: &RecordBatch) -> Result<RecordBatch> {
        let mut batch = self.cast.cast(batch)?;
        if let Some((key, name)) = &self.key
            && batch.column(*key).logical_null_count() > 0
        {
            return Err(write::no_key(name).into());
        }
        if let Some(keys) = &mut self.keys {
            batch = keys.keep_new(&batch).await?;
        }
        let mut columns = batch.columns().to_vec();
        let next = self.sent + batch.num_rows() as i64;
        if self.staged.fields().len() > columns.len() {
            let numbers = Int64Array::from_iter_values(self.sent..next);
            columns.push(Arc::new(numbers));
        }
        self.sent = next;
        Ok(RecordBatch::try_new(Arc::clone(&self.staged), columns)?)
    }
}

impl DisplayAs for StagedSink {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let opened = self.target.opened();
        let Described { way, detail, .. } = &opened.described;
        write!(f, "{way}Sink: table={}", opened.described.shown())?;
        if !detail.is_empty() {
            write!(f, ", {detail}")?;
        }
        write!(f, "{}", self.target.asked.write)
    }
}

#[async_trait]
impl DataSink for StagedSink {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    async fn write_all(
        &self,
        data: SendableRecordBatchStream,
        _: &Arc<TaskContext>,
    ) -> Result<u64> {
        self.write(data).await
    }
}
