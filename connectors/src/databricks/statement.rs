//! The SQL Statement Execution API: a statement runs on a warehouse until it has succeeded, failed
//! or is no longer wanted.
//!
//! A statement whose caller goes away is cancelled, also when that happens before the server has
//! said its id.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::errors::{failed, unsure};
use super::messages::{Answer, Link, Manifest, ResultData};
use super::session::Client;
use crate::error::{Error, ErrorKind, Result};

/// How long the server may hold the first answer back; the API takes 0 or 5 to 50 seconds.
const WAIT: &str = "10s";
/// Waits between two looks at a running statement: doubled from the first to the last.
const FIRST_POLL: Duration = Duration::from_millis(100);
const LAST_POLL: Duration = Duration::from_secs(5);

/// A SQL warehouse.
#[derive(Debug, Clone)]
pub(super) struct Warehouse {
    pub(super) client: Arc<Client>,
    pub(super) id: String,
    pub(super) query_timeout: Option<Duration>,
}

/// A statement with texts as named parameters, `:p1` and so on.
#[derive(Debug, Clone)]
pub(super) struct Statement {
    pub(super) sql: String,
    pub(super) texts: Vec<(String, String)>,
    pub(super) result: ResultForm,
    /// True if running it twice makes a difference: it is not sent again when no answer comes.
    pub(super) once: bool,
}

/// How the rows come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ResultForm {
    /// Arrow IPC streams behind signed links.
    Links,
    /// A few values in the answer itself.
    Inline,
}

impl Statement {
    /// A statement that changes something; doing it twice changes no more.
    pub(super) fn command(sql: String) -> Self {
        Self {
            sql,
            texts: vec![],
            result: ResultForm::Inline,
            once: false,
        }
    }
}

/// A statement that succeeded.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) id: String,
    pub(super) manifest: Manifest,
    pub(super) result: ResultData,
}

impl Finished {
    /// The value of `column` in the first row of an inline result.
    pub(super) fn value(&self, column: &str) -> Option<&str> {
        let columns = self.manifest.schema.as_ref()?.columns.as_ref()?;
        let at = columns.iter().position(|c| c.name == column)?;
        self.result.data_array.as_ref()?.first()?.get(at)?.as_str()
    }
}

impl Warehouse {
    /// Runs `statement` to its end. Dropping the future cancels it on the server.
    ///
    /// # Errors
    /// What the server says, and a result that it cut off.
    pub(super) async fn run(&self, what: &str, statement: &Statement) -> Result<Finished> {
        let started = Instant::now();
        let what = format!("{what} on the SQL warehouse {}", self.id);
        let (mut answer, mut running) = self.submit(&what, statement).await?;
        let mut wait = FIRST_POLL;
        loop {
            match answer.status.state.as_str() {
                "SUCCEEDED" => {
                    running.ended = true;
                    return finished(&what, answer);
                }
                "PENDING" | "RUNNING" => {}
                _ => {
                    running.ended = true;
                    return Err(failed(&what, &answer.status));
                }
            }
            if let Some(limit) = self.query_timeout
                && started.elapsed() >= limit
            {
                return Err(Error::new(
                    ErrorKind::Exhausted,
                    format!(
                        "{what}: the statement ran longer than databricks.query_timeout_secs, {} \
                         seconds, and is cancelled; raise the limit or ask for fewer rows",
                        limit.as_secs()
                    ),
                ));
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LAST_POLL);
            let path = ["api", "2.0", "sql", "statements", &answer.statement_id];
            answer = self.client.get(&what, &path, &[]).await?;
        }
    }

    /// The link to chunk `index` of a result, good for some minutes.
    pub(super) async fn link(&self, what: &str, statement_id: &str, index: u32) -> Result<Link> {
        let number = index.to_string();
        let path = [
            "api",
            "2.0",
            "sql",
            "statements",
            statement_id,
            "result",
            "chunks",
            &number,
        ];
        let data: ResultData = self.client.get(what, &path, &[]).await?;
        let links = data.external_links.into_iter().flatten();
        links
            .into_iter()
            .find(|link| link.chunk_index == index)
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::Corrupt,
                    format!("{what}: the server gave no link to chunk {index}"),
                )
            })
    }

    /// Sends the statement in a task of its own: should the caller go away before the id is known,
    /// the task ends with the answer, whose guard cancels it.
    async fn submit(&self, what: &str, statement: &Statement) -> Result<(Answer, Running)> {
        let client = Arc::clone(&self.client);
        let body = self.body(statement);
        let (what, once) = (what.to_owned(), statement.once);
        let task = tokio::spawn(async move {
            let path = ["api", "2.0", "sql", "statements"];
            let answer: Answer = match once {
                true => client
                    .post_once(&what, &path, &body)
                    .await
                    .map_err(|e| unsure(&what, e))?,
                false => client.post(&what, &path, &body).await?,
            };
            let running = Running {
                client: Arc::clone(&client),
                id: answer.statement_id.clone(),
                runtime: Handle::current(),
                ended: false,
            };
            Ok::<_, Error>((answer, running))
        });
        match task.await {
            Ok(answer) => answer,
            Err(error) => Err(Error::while_doing("sending a statement", error)),
        }
    }

    fn body(&self, statement: &Statement) -> Value {
        #[derive(Serialize)]
        struct Parameter<'a> {
            name: &'a str,
            value: &'a str,
            r#type: &'static str,
        }
        let parameters: Vec<Parameter<'_>> = statement
            .texts
            .iter()
            .map(|(name, value)| Parameter {
                name,
                value,
                r#type: "STRING",
            })
            .collect();
        let (disposition, format) = match statement.result {
            ResultForm::Links => ("EXTERNAL_LINKS", "ARROW_STREAM"),
            ResultForm::Inline => ("INLINE", "JSON_ARRAY"),
        };
        json!({
            "statement": statement.sql,
            "warehouse_id": self.id,
            "parameters": parameters,
            "disposition": disposition,
            "format": format,
            "wait_timeout": WAIT,
            "on_wait_timeout": "CONTINUE",
        })
    }
}

/// Cancels its statement when dropped before the end.
#[derive(Debug)]
struct Running {
    client: Arc<Client>,
    id: String,
    runtime: Handle,
    ended: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let (client, id) = (Arc::clone(&self.client), std::mem::take(&mut self.id));
        self.runtime.spawn(async move {
            let path = ["api", "2.0", "sql", "statements", &id, "cancel"];
            let cancelled: Result<Value> = client.post("cancelling", &path, &json!({})).await;
            // Nobody is left to be told; a statement that has just ended is no loss.
            drop(cancelled);
        });
    }
}

fn finished(what: &str, answer: Answer) -> Result<Finished> {
    let manifest = answer.manifest.unwrap_or_default();
    if manifest.truncated {
        return Err(Error::new(
            ErrorKind::Exhausted,
            format!(
                "{what}: the server cut the result off at its size limit, so rows would be \
                 missing; ask for fewer rows or columns at a time"
            ),
        ));
    }
    Ok(Finished {
        id: answer.statement_id,
        manifest,
        result: answer.result.unwrap_or_default(),
    })
}
