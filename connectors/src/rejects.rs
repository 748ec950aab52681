//! `'write.rejects' 'separate'`: rejected rows in a table of their own, for every connector that
//! writes.
//!
//! The table beside the target is of the same connector and gets the same options, and both are
//! written by their own sinks at the same time, from one run of the plan that makes the rows. Only
//! the end differs: the rejects are committed first, and the target is told of its end when they
//! are in, and so with an interruption (see `interrupt`). A program that is killed between the two
//! has a target without the rows of this INSERT; run again, it finds the rejects there by key or
//! recorded version, and adds what is missing.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{AsArray, BooleanArray, RecordBatch};
use datafusion::arrow::compute::{cast, filter_record_batch, not};
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::catalog::{Session, TableProvider, TableProviderFactory};
use datafusion::common::{Constraints, Statistics, TableReference};
use datafusion::datasource::sink::{DataSink, DataSinkExec};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{CreateExternalTable, Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan};
use futures::future::{self, Either};
use futures::{StreamExt, stream};
use tokio::sync::mpsc;

use crate::cast::CheckedCast;
use crate::connector::{AcceptedRows, OptionSpec};
use crate::declared::{check_input, check_same};
use crate::error::{Error, ErrorKind};
use crate::interrupt;

/// The option of every connector that writes.
pub(crate) const OPTION: OptionSpec = OptionSpec {
    key: "write.rejects",
    secret: false,
    default: "rejected rows go into the table, too",
    doc: "'separate': rejected rows (of qa_pairs: whose status is not 'ok') go to a table beside this \
          one, its name with _rejects at the end; needs write.key, or write.app_id and write.version",
};

/// Batches that may wait for each of the two sinks.
const BATCHES_AHEAD: usize = 1;

/// Opens what another factory opens, and the table of rejects beside it where the option says so.
#[derive(Debug)]
pub(crate) struct RejectsFactory {
    pub(crate) tables: Arc<dyn TableProviderFactory>,
    /// What tells accepted rows; the host says it.
    pub(crate) accepted: Option<AcceptedRows>,
}

#[async_trait]
impl TableProviderFactory for RejectsFactory {
    async fn create(
        &self,
        state: &dyn Session,
        cmd: &CreateExternalTable,
    ) -> Result<Arc<dyn TableProvider>> {
        let mut own = cmd.clone();
        match own.options.remove(OPTION.key).as_deref() {
            None => return self.tables.create(state, cmd).await,
            Some("separate") => {}
            Some(other) => {
                let what = format!("value of {}", OPTION.key);
                return Err(Error::unknown(&what, other, &["separate"]).into());
            }
        }
        if !["write.key", "write.app_id"]
            .iter()
            .any(|k| own.options.contains_key(*k))
        {
            return Err(Error::invalid(format!(
                "option {} needs write.key, or write.app_id and write.version: the two tables are \
                 committed one after the other, and a run that is killed in between must be able \
                 to tell, when it is run again, what is there",
                OPTION.key
            ))
            .into());
        }
        let Some(accepted) = self.accepted else {
            let message = format!(
                "option {} does nothing here: the host of this session does not say which rows are \
                 rejected",
                OPTION.key
            );
            return Err(Error::new(ErrorKind::Unsupported, message).into());
        };
        let main = self.tables.create(state, &own).await?;
        let schema = main.schema();
        if schema.column_with_name(accepted.column).is_none() {
            let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
            return Err(Error::invalid(format!(
                "option {} needs the column {}, which table {} does not have; its columns are {}",
                OPTION.key,
                accepted.column,
                cmd.name,
                names.join(", ")
            ))
            .into());
        }
        let mut beside = own;
        beside.name = TableReference::bare(format!("{}_rejects", cmd.name.table()));
        for location in &mut beside.locations {
            *location = location_of_rejects(location);
        }
        let location = beside.locations.join(", ");
        let rejects = self.tables.create(state, &beside).await.map_err(|e| {
            Error::while_doing(format!("opening '{location}', the table of rejects"), e)
        })?;
        check_same(&schema, &rejects.schema(), &location)?;
        Ok(Arc::new(WithRejects {
            main,
            rejects,
            accepted,
        }))
    }
}

/// `_rejects` at the end of the last part of a name or a path: inside its quotes, before a slash.
fn location_of_rejects(location: &str) -> String {
    let end = location.trim_end_matches(['/', '"', '`', ']']).len();
    let (name, rest) = location.split_at(end);
    format!("{name}_rejects{rest}")
}

/// A table whose INSERT takes rejected rows elsewhere.
#[derive(Debug)]
pub(crate) struct WithRejects {
    main: Arc<dyn TableProvider>,
    rejects: Arc<dyn TableProvider>,
    accepted: AcceptedRows,
}

#[async_trait]
impl TableProvider for WithRejects {
    fn schema(&self) -> SchemaRef {
        self.main.schema()
    }

    fn constraints(&self) -> Option<&Constraints> {
        self.main.constraints()
    }

    fn table_type(&self) -> TableType {
        self.main.table_type()
    }

    fn get_table_definition(&self) -> Option<&str> {
        self.main.get_table_definition()
    }

    fn get_column_default(&self, column: &str) -> Option<&Expr> {
        self.main.get_column_default(column)
    }

    fn statistics(&self) -> Option<Statistics> {
        self.main.statistics()
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        self.main.supports_filters_pushdown(filters)
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.main.scan(state, projection, filters, limit).await
    }

    async fn insert_into(
        &self,
        state: &dyn Session,
        input: Arc<dyn ExecutionPlan>,
        insert_op: InsertOp,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        check_input(&input, &self.schema())?;
        let rows = Arc::clone(&input);
        let main = self.main.insert_into(state, rows, insert_op).await?;
        let rows = Arc::clone(&input);
        let rejects = self.rejects.insert_into(state, rows, insert_op).await?;
        let sink = SplitSink {
            schema: Arc::clone(sink(&main)?.schema()),
            into: self.schema(),
            status: self.schema().index_of(self.accepted.column)?,
            accepted: self.accepted.value,
            main,
            rejects,
        };
        Ok(Arc::new(DataSinkExec::new(input, Arc::new(sink), None)))
    }
}

/// The sink of a plan of ours; its input is not used.
fn sink(plan: &Arc<dyn ExecutionPlan>) -> Result<&dyn DataSink> {
    match plan.downcast_ref::<DataSinkExec>() {
        Some(plan) => Ok(plan.sink()),
        None => Err(Error::new(
            ErrorKind::Internal,
            format!("{} is no plan with a sink", plan.name()),
        )
        .into()),
    }
}

/// The two targets of one INSERT statement.
#[derive(Debug)]
struct SplitSink {
    main: Arc<dyn ExecutionPlan>,
    rejects: Arc<dyn ExecutionPlan>,
    schema: SchemaRef,
    /// The columns of both.
    into: SchemaRef,
    /// Position of the column that tells accepted rows.
    status: usize,
    /// What it says of them.
    accepted: &'static str,
}

impl SplitSink {
    /// Hands the rows out; what is returned has all accepted rows but not their end. None if the
    /// target wants no more: it failed, or has had the rows before. An interruption is the end of
    /// both tables' rows, whose sinks know what to do with it.
    async fn feed(
        &self,
        mut rows: SendableRecordBatchStream,
        main: Rows,
        rejects: Rows,
    ) -> Result<Option<(Rows, End)>> {
        loop {
            let next = tokio::select! {
                biased;
                () = main.0.closed() => return Ok(None),
                next = rows.next() => next,
            };
            let batch = match next {
                Some(Ok(batch)) => batch,
                None => {
                    rejects.end(End::All).await;
                    return Ok(Some((main, End::All)));
                }
                Some(Err(error)) => match interrupt::message(&error) {
                    Some(message) => {
                        rejects.end(End::Interrupted(message.clone())).await;
                        return Ok(Some((main, End::Interrupted(message))));
                    }
                    None => return Err(error),
                },
            };
            let (accepted, rejected) = self.split(&batch)?;
            if !main.send(accepted).await {
                return Ok(None);
            }
            // Rejects that an earlier run recorded are not taken again.
            rejects.send(rejected).await;
        }
    }

    /// The rows to keep and those that were rejected, a row without status among these.
    fn split(&self, batch: &RecordBatch) -> Result<(RecordBatch, RecordBatch)> {
        let status = cast(batch.column(self.status), &DataType::Utf8View)?;
        let status = status.as_string_view().iter();
        let accepted: BooleanArray = status.map(|s| Some(s == Some(self.accepted))).collect();
        let rejected = not(&accepted)?;
        Ok((
            filter_record_batch(batch, &accepted)?,
            filter_record_batch(batch, &rejected)?,
        ))
    }
}

#[async_trait]
impl DataSink for SplitSink {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Returns the number of rows added, rejected ones included.
    async fn write_all(
        &self,
        data: SendableRecordBatchStream,
        ctx: &Arc<TaskContext>,
    ) -> Result<u64> {
        // Here, where the rows of the statement are still counted.
        let mut cast = CheckedCast::new(Arc::clone(&self.into), "the table and its rejects");
        let data = data.map(move |batch| Ok(cast.cast(&batch?)?));
        let data = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.into), data));
        let (main, main_rows) = hand_over(Arc::clone(&self.into));
        let (rejects, rejected_rows) = hand_over(Arc::clone(&self.into));
        let rejects_first = async {
            let feed = std::pin::pin!(self.feed(data, main, rejects));
            let write = sink(&self.rejects)?.write_all(rejected_rows, ctx);
            let (fed, rejected) = match future::select(feed, write).await {
                Either::Left((fed, write)) => (fed, write.await),
                // Failed: no more rows need be made.
                Either::Right((Err(error), _)) => return Err(error),
                // Recorded by an earlier run.
                Either::Right((Ok(rejected), feed)) => (feed.await, Ok(rejected)),
            };
            match fed? {
                Some((main, end)) => {
                    let rejected = match rejected {
                        // What is there of the rejects is there, as their sink saw fit.
                        Err(error) if end.is_interruption_like(&error) => 0,
                        rejected => rejected?,
                    };
                    main.end(end).await;
                    Ok(rejected)
                }
                None => Ok(0),
            }
        };
        let write = sink(&self.main)?.write_all(main_rows, ctx);
        let (rejected, accepted) = future::join(rejects_first, write).await;
        // An error of the rejects is why the target was given up, not the other way round.
        Ok(rejected? + accepted?)
    }
}

impl DisplayAs for SplitSink {
    fn fmt_as(&self, t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Ok(main) = sink(&self.main) {
            main.fmt_as(t, f)?;
        }
        write!(f, ", {}=separate", OPTION.key)
    }
}

/// The rows on their way to a sink. Dropped without [`Rows::end`], they are an error there, so
/// that nothing is committed.
struct Rows(mpsc::Sender<Next>);

/// What comes next on the way to a sink.
enum Next {
    Rows(RecordBatch),
    End(End),
}

/// How the rows end.
enum End {
    All,
    /// The user stopped the statement, with this message.
    Interrupted(String),
}

impl End {
    /// True if `error` is what a sink makes of rows that end like this.
    fn is_interruption_like(&self, error: &DataFusionError) -> bool {
        matches!(self, Self::Interrupted(_)) && interrupt::message(error).is_some()
    }
}

impl Rows {
    /// False if the sink takes no more.
    async fn send(&self, batch: RecordBatch) -> bool {
        batch.num_rows() == 0 || self.0.send(Next::Rows(batch)).await.is_ok()
    }

    async fn end(self, end: End) {
        self.0.send(Next::End(end)).await.ok();
    }
}

fn hand_over(schema: SchemaRef) -> (Rows, SendableRecordBatchStream) {
    let (sender, receiver) = mpsc::channel(BATCHES_AHEAD);
    let rows = stream::unfold(Some(receiver), |receiver| async {
        let mut receiver = receiver?;
        match receiver.recv().await {
            Some(Next::Rows(batch)) => Some((Ok(batch), Some(receiver))),
            Some(Next::End(End::All)) => None,
            Some(Next::End(End::Interrupted(message))) => {
                let error = Error::new(ErrorKind::Interrupted, message);
                Some((Err(error.into()), None))
            }
            None => Some((Err(given_up()), None)),
        }
    });
    let rows = RecordBatchStreamAdapter::new(schema, rows);
    (Rows(sender), Box::pin(rows))
}

fn given_up() -> DataFusionError {
    let message = "the rows of this INSERT ended early; nothing was written";
    Error::new(ErrorKind::Unavailable, message).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_lie_beside_the_table() {
        for (location, expected) in [
            ("out/qa", "out/qa_rejects"),
            ("s3://bucket/qa/", "s3://bucket/qa_rejects/"),
            ("LEGAL.PUBLIC.QA", "LEGAL.PUBLIC.QA_rejects"),
            ("a.b.\"Qa\"", "a.b.\"Qa_rejects\""),
            ("a.`b`", "a.`b_rejects`"),
            ("[dbo].[qa]", "[dbo].[qa_rejects]"),
        ] {
            assert_eq!(location_of_rejects(location), expected);
        }
    }
}
