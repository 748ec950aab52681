//! Rows on their way into the temporary table of one INSERT: the first ones as bound values, the
//! others through a stage if there are more than one statement takes.

use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema};
use futures::StreamExt;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::encode::{Binding, TextBatch, check_type};
use super::name::quoted;
use super::read::Reader;
use super::session::Session;
use super::stage::Stage;
use super::statement::Statement;
use crate::error::{Error, ErrorKind, Result};
use crate::sql::exchange::{Rows, Staged};
use crate::sql::staging::Staging;

/// How often a session says that it is in use while rows are made. Snowflake ends one after four
/// hours without a request, and a session policy can say five minutes; rows that a model writes take
/// longer, and one request takes thousands of them.
const KEEP_ALIVE: Duration = Duration::from_secs(4 * 60);

/// Makes the temporary table in `session` and puts all of `rows` into it.
pub(super) async fn load(
    session: &Arc<Session>,
    staging: &Staging,
    mut rows: Rows,
) -> datafusion::error::Result<Staged> {
    for column in staging.target_columns().iter() {
        check_type(column.field.name(), column.field.data_type())?;
    }
    let mut load = Load::begin(session, staging).await?;
    let mut due = interval_at(Instant::now() + KEEP_ALIVE, KEEP_ALIVE);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while let Some(next) = next(&mut rows, &mut due).await {
        match next {
            Next::KeepAlive => load.keep_alive().await?,
            Next::Batch(batch) => {
                let names = staging.target_columns().schema();
                load.add(&TextBatch::new(&batch?, names)?).await?;
            }
        }
    }
    Ok(load.finish().await?)
}

/// What is to be done next.
enum Next {
    Batch(datafusion::error::Result<RecordBatch>),
    KeepAlive,
}

/// The next batch, unless a sign of life is due before: by the clock, and not after so long a wait
/// for one batch, because small ones may come every second for hours.
async fn next(rows: &mut Rows, due: &mut Interval) -> Option<Next> {
    tokio::select! {
        biased;
        _ = due.tick() => Some(Next::KeepAlive),
        batch = rows.next() => batch.map(Next::Batch),
    }
}

struct Load<'a> {
    session: &'a Arc<Session>,
    staging: &'a Staging,
    doing: String,
    /// Enters the schema of the target.
    enter: String,
    insert: String,
    binding: Binding,
    stage: Option<Stage>,
    /// A stage may still be made.
    may_stage: bool,
    sent: u64,
}

impl<'a> Load<'a> {
    async fn begin(session: &'a Arc<Session>, staging: &'a Staging) -> Result<Self> {
        let table = quoted(&staging.target);
        let doing = format!("staging rows for {table}");
        let schema = quoted(&staging.target[..staging.target.len().saturating_sub(1)]);
        let enter = format!("USE SCHEMA {schema}");
        let create = staging.create();
        for sql in [&enter, &create] {
            let made = Statement::new(&doing, sql).run(session).await;
            made.map_err(|e| {
                let advice = "writing needs USAGE and CREATE TABLE on the schema";
                Error::new(e.kind(), format!("{e}; {advice}")).with_source(e)
            })?;
        }
        let columns = staging.columns().fields().len();
        let marks = vec!["?"; columns].join(", ");
        let (name, names) = (staging.name(), staging.names());
        Ok(Self {
            session,
            staging,
            enter,
            insert: format!("INSERT INTO {name} ({names}) VALUES ({marks})"),
            doing,
            binding: Binding::new(columns),
            stage: None,
            may_stage: session.settings.may_stage,
            sent: 0,
        })
    }

    /// Says that the session is in use, by a statement that changes nothing and needs no warehouse.
    ///
    /// # Errors
    /// The session has ended. A server that cannot be reached is asked again the next time: it ends
    /// a session only after a while.
    async fn keep_alive(&mut self) -> Result<()> {
        let entered = Statement::new(&self.doing, &self.enter);
        match entered.run(self.session).await {
            Err(error) if self.session.has_ended() => Err(unwritten(error)),
            Err(error) if error.kind() == ErrorKind::Unavailable => Ok(()),
            other => other.map(drop).map_err(unwritten),
        }
    }

    async fn add(&mut self, batch: &TextBatch) -> Result<()> {
        let mut from = 0;
        while from < batch.rows() {
            if let Some(stage) = &mut self.stage {
                stage.add(batch, from).await.map_err(unwritten)?;
                self.sent += (batch.rows() - from) as u64;
                return Ok(());
            }
            from += self.binding.fill(batch, from);
            if from < batch.rows() {
                self.flush().await?;
                if std::mem::take(&mut self.may_stage) {
                    self.stage = Stage::create(self.session, self.staging, &self.doing).await;
                }
            }
        }
        Ok(())
    }

    /// Brings the last rows into the temporary table.
    ///
    /// # Errors
    /// Another number of rows than was sent: a request was lost, or ran twice.
    async fn finish(mut self) -> Result<Staged> {
        self.flush().await?;
        if let Some(stage) = self.stage.take() {
            stage.load(self.staging).await.map_err(unwritten)?;
        }
        let found = match self.sent {
            0 => 0,
            _ => count(self.session, self.staging, &self.doing).await?,
        };
        match found == self.sent {
            true => Ok(Staged {
                rows: self.sent,
                instead: None,
            }),
            false => Err(Error::new(
                ErrorKind::Unavailable,
                format!(
                    "{}: {} rows were sent and {found} arrived; nothing was written: run the \
                     INSERT again",
                    self.doing, self.sent
                ),
            )),
        }
    }

    async fn flush(&mut self) -> Result<()> {
        let rows = self.binding.rows() as u64;
        if rows == 0 {
            return Ok(());
        }
        let values = self.binding.take();
        let statement = Statement {
            bindings: Some(&values),
            ..Statement::new(&self.doing, &self.insert)
        };
        statement.run(self.session).await.map_err(unwritten)?;
        self.sent += rows;
        Ok(())
    }
}

/// The number of rows in the temporary table.
async fn count(session: &Arc<Session>, staging: &Staging, doing: &str) -> Result<u64> {
    let sql = format!("SELECT COUNT(*) AS \"N\" FROM {}", staging.name());
    let counted = Statement::new(doing, &sql).run(session).await;
    let data = counted.map_err(unwritten)?;
    let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
    let mut rows = Reader::open(session, data, &schema, 1, doing)?;
    let batch = rows.next().await?;
    let found = batch.and_then(|b| b.column(0).as_primitive::<Int64Type>().iter().next()?);
    Ok(u64::try_from(found.unwrap_or_default()).unwrap_or_default())
}

/// A failure before the target was touched.
fn unwritten(error: Error) -> Error {
    let advice = match error.kind() {
        ErrorKind::Unavailable => "nothing was written: run the INSERT again",
        _ => "nothing was written",
    };
    Error::new(error.kind(), format!("{error}; {advice}")).with_source(error)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU32, Ordering};

    use axum::http::StatusCode;
    use axum::routing::post;
    use axum::{Json, Router};
    use datafusion::arrow::array::{ArrayRef, Int64Array};
    use futures::stream;
    use serde_json::{Value, json};

    use super::*;
    use crate::http::Retry;
    use crate::snowflake::session::{self, WhenLost};
    use crate::snowflake::tests::settings;
    use crate::sql::columns::{Column, Columns};
    use crate::sql::dialect::SNOWFLAKE;
    use crate::sql::exchange::Described;

    /// Rows that never make wait as long as the interval.
    #[tokio::test]
    async fn a_sign_of_life_is_due_by_the_clock_also_while_rows_come() {
        let batch = || {
            let rows: ArrayRef = Arc::new(Int64Array::from(vec![1]));
            RecordBatch::try_from_iter([("n", rows)]).unwrap()
        };
        let rows = stream::iter(0..100).then(move |_| {
            let batch = batch();
            async move {
                tokio::time::sleep(Duration::from_millis(2)).await;
                Ok(batch)
            }
        });
        let mut rows: Rows = rows.boxed();
        let every = Duration::from_millis(50);
        let mut due = interval_at(Instant::now() + every, every);
        let (mut batches, mut signs) = (0, 0);
        while let Some(next) = next(&mut rows, &mut due).await {
            match next {
                Next::Batch(_) => batches += 1,
                Next::KeepAlive => signs += 1,
            }
        }
        // The rows take 200 ms at least.
        assert_eq!(batches, 100);
        assert!(signs >= 2, "{signs}");
    }

    #[tokio::test]
    async fn a_server_that_is_away_for_a_while_ends_no_write_and_a_session_that_is_gone_does() {
        let answer = Arc::new(Mutex::new((StatusCode::OK, json!({"success": true}))));
        let (logins, asked) = (Arc::new(AtomicU32::new(0)), Arc::clone(&answer));
        let counted = Arc::clone(&logins);
        let login = async move || {
            counted.fetch_add(1, Ordering::SeqCst);
            Json(json!({"success": true, "data": {"token": "t", "masterToken": "m"}}))
        };
        let query = async move || {
            let (status, body): (StatusCode, Value) = asked.lock().unwrap().clone();
            (status, Json(body))
        };
        let app = Router::new()
            .route("/session/v1/login-request", post(login))
            .route("/queries/v1/query-request", post(query));
        let url = session::tests::serve(app).await;
        let once = Retry {
            attempts: 1,
            ..Retry::default()
        };
        let session = Session::trying(settings(&url), WhenLost::Fail, once).unwrap();
        let id = Arc::new(Field::new("id", DataType::Int64, true));
        let columns = Columns::new(vec![Column {
            own: Arc::clone(&id),
            field: id,
            comparable: true,
        }]);
        let described = Described {
            way: "",
            detail: String::new(),
            dialect: &SNOWFLAKE,
            name: vec!["db".into(), "s".into(), "t".into()],
            from: None,
            columns: Ok(columns.clone()),
            stored_name: str::to_owned,
            resends: false,
        };
        let staging = Staging::new(&described, &columns, 7);
        let mut load = Load::begin(&session, &staging).await.unwrap();
        load.keep_alive().await.unwrap();
        *answer.lock().unwrap() = (StatusCode::SERVICE_UNAVAILABLE, json!({}));
        load.keep_alive().await.unwrap();
        let gone = json!({"success": false, "code": "390111", "message": "no such session"});
        *answer.lock().unwrap() = (StatusCode::OK, gone);
        let error = load.keep_alive().await.unwrap_err().to_string();
        assert!(error.contains("ended the session of this write"), "{error}");
        assert_eq!(logins.load(Ordering::SeqCst), 1);
    }
}
