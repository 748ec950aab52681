//! A connection on a thread of its own: every call of a driver blocks. Their number is bounded, so
//! that queries which are given up while a driver does not answer cannot pile up threads.

use std::sync::{Arc, LazyLock, mpsc};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::session::Session;
use super::settings::Settings;
use crate::error::{Error, ErrorKind, Result};

/// Connections of this process at a time: far more than any plan has scans and sinks.
const MOST_CONNECTIONS: usize = 64;

static FREE: LazyLock<Arc<Semaphore>> =
    LazyLock::new(|| Arc::new(Semaphore::new(MOST_CONNECTIONS)));

/// The right to one connection, held as long as it lives.
///
/// # Errors
/// All are in use for as long as a login may take.
pub(super) async fn permit(settings: &Settings) -> Result<OwnedSemaphorePermit> {
    let wait = Duration::from_secs(u64::from(settings.login_timeout_secs.max(1)));
    let free = Arc::clone(&FREE).acquire_owned();
    match tokio::time::timeout(wait, free).await {
        Ok(Ok(permit)) => Ok(permit),
        _ => Err(Error::new(
            ErrorKind::Unavailable,
            format!(
                "all {MOST_CONNECTIONS} ODBC connections of this program are in use; end other \
                 statements, or join fewer ODBC tables in one"
            ),
        )),
    }
}

/// What is done in a session.
type Job = Box<dyn FnOnce(&Session<'_>) + Send>;

/// A session whose thread takes one job after the other; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Connection {
    jobs: mpsc::Sender<Job>,
}

impl Connection {
    /// Connects.
    pub(super) async fn open(settings: Settings) -> Result<Self> {
        let permit = permit(&settings).await?;
        let (jobs, received) = mpsc::channel::<Job>();
        let (opened, open) = oneshot::channel();
        let run = move || {
            let _permit = permit;
            let session = match Session::open(&settings) {
                Ok(session) => session,
                Err(error) => {
                    opened.send(Err(error)).ok();
                    return;
                }
            };
            if opened.send(Ok(())).is_ok() {
                received.into_iter().for_each(|job| job(&session));
            }
        };
        let thread = std::thread::Builder::new().name("casebook-odbc".into());
        thread
            .spawn(run)
            .map_err(|e| Error::while_doing("starting an ODBC connection", e))?;
        open.await.map_err(|_| died())??;
        Ok(Self { jobs })
    }

    /// Does `work` in the session. Once begun, it is done to its end.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Session<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (done, answer) = oneshot::channel();
        let job = Box::new(move |session: &Session<'_>| {
            done.send(work(session)).ok();
        });
        self.jobs.send(job).map_err(|_| died())?;
        answer.await.map_err(|_| died())?
    }
}

/// The thread is gone, which only a defect can do.
fn died() -> Error {
    Error::new(ErrorKind::Internal, "an ODBC driver broke its thread")
}
