//! One statement: sent, waited for however long it takes, stopped if nobody waits any more.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use uuid::Uuid;

use super::errors;
use super::messages::{Query, QueryData, Reply};
use super::session::Session;
use crate::error::{Error, ErrorKind, Result};

/// Wait before a running statement is asked for again. The server holds the question open for up
/// to 45 seconds itself, so this only matters where it does not.
const FIRST_POLL: Duration = Duration::from_millis(20);
const MAX_POLL: Duration = Duration::from_secs(2);

/// A statement and why it is run.
pub(super) struct Statement<'a> {
    /// For errors: `reading "DB"."S"."T"`.
    pub(super) doing: &'a str,
    pub(super) sql: &'a str,
    /// Values of the question marks, as `{"1": {"type": "TEXT", "value": [...]}}`.
    pub(super) bindings: Option<&'a Value>,
    /// Only find out the types of the result.
    pub(super) describe_only: bool,
}

impl<'a> Statement<'a> {
    pub(super) fn new(doing: &'a str, sql: &'a str) -> Self {
        Self {
            doing,
            sql,
            bindings: None,
            describe_only: false,
        }
    }

    /// Waits for the answer.
    ///
    /// # Errors
    /// What the server said, with the next move.
    pub(super) async fn run(self, session: &Arc<Session>) -> Result<QueryData> {
        let reply = self.reply(session).await?;
        match reply.success {
            true => Ok(reply.data.unwrap_or_default()),
            false => Err(errors::statement(self.doing, &session.settings, &reply)),
        }
    }

    /// Waits for the answer, which may be a refusal.
    pub(super) async fn reply(&self, session: &Arc<Session>) -> Result<Reply<QueryData>> {
        let mut running = Running {
            session: Arc::clone(session),
            request_id: Uuid::new_v4().to_string(),
            done: false,
        };
        let query = Query {
            sql_text: self.sql,
            async_exec: false,
            sequence_id: 0,
            is_internal: false,
            describe_only: self.describe_only,
            bindings: self.bindings,
        };
        let named = |e: Error| Error::new(e.kind(), format!("{}: {e}", self.doing)).with_source(e);
        let mut reply = session
            .query(query, &running.request_id)
            .await
            .map_err(named)?;
        let mut wait = FIRST_POLL;
        while errors::RUNNING.contains(&reply.code()) {
            let Some(path) = reply.data.and_then(|d| d.get_result_url) else {
                return Err(Error::new(
                    ErrorKind::Corrupt,
                    format!(
                        "{}: Snowflake does not say where the result will be",
                        self.doing
                    ),
                ));
            };
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(MAX_POLL);
            reply = session.result(&path).await.map_err(named)?;
        }
        running.done = true;
        Ok(reply)
    }
}

/// A statement that the server works on; dropped before it is done, it is stopped there.
struct Running {
    session: Arc<Session>,
    request_id: String,
    done: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let abort = self.session.abort(&self.request_id);
        if let (Some(abort), Ok(runtime)) = (abort, tokio::runtime::Handle::try_current()) {
            // The session lives until it has been asked to stop the statement.
            let session = Arc::clone(&self.session);
            runtime.spawn(async move {
                abort.send().await.ok();
                drop(session);
            });
        }
    }
}
