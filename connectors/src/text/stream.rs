//! The reading of one file off the async threads: as a stream, or for one answer.

use datafusion::error::{DataFusionError, Result};
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::mpsc;

use crate::error::Error;
use crate::guard;

/// What a reader passes its items to.
pub(crate) struct Outlet<T>(mpsc::Sender<Result<T>>);

impl<T> Outlet<T> {
    /// False if nobody reads any more.
    pub(crate) fn send(&self, item: T) -> bool {
        self.0.blocking_send(Ok(item)).is_ok()
    }

    /// True if nobody reads any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

/// The items that `read` passes on, of which `ahead` may wait. An error, or a panic, ends them, and
/// names the file: `kind` is what it is read as.
pub(crate) fn stream<T: Send + 'static>(
    kind: &'static str,
    name: String,
    ahead: usize,
    read: impl FnOnce(&Outlet<T>) -> Result<()> + Send + 'static,
) -> BoxStream<'static, Result<T>> {
    let (tx, rx) = mpsc::channel(ahead);
    tokio::task::spawn_blocking(move || {
        let outlet = Outlet(tx);
        // A stream that only ended would look as if the file did.
        let done = guard::caught(&name, || read(&outlet));
        if let Err(error) = done.unwrap_or_else(|panic| Err(panic.into())) {
            // A closed channel means that nobody is reading any more.
            outlet
                .0
                .blocking_send(Err(in_file(kind, error, &name)))
                .ok();
        }
    });
    let items = futures::stream::unfold(rx, |mut rx| async move {
        rx.recv().await.map(|item| (item, rx))
    });
    items.boxed()
}

/// What `work` on the file `name` gives; a panic in it is an error.
pub(crate) async fn off_thread<T: Send + 'static>(
    kind: &str,
    name: &str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let about = name.to_owned();
    let done = tokio::task::spawn_blocking(move || guard::caught(&about, work)).await;
    let done = done.map_err(|e| DataFusionError::ExecutionJoin(Box::new(e)))?;
    let done = done.unwrap_or_else(|panic| Err(panic.into()));
    done.map_err(|e| in_file(kind, e, name))
}

/// Names the file in an error.
pub(crate) fn in_file(kind: &str, error: DataFusionError, name: &str) -> DataFusionError {
    match error {
        DataFusionError::External(inner) => match inner.downcast::<Error>() {
            Ok(own) => Error::new(own.kind(), format!("{kind} file {name}: {own}"))
                .with_source(own)
                .into(),
            Err(other) => Error::while_doing(format!("reading {kind} file {name}"), other).into(),
        },
        other => Error::while_doing(format!("reading {kind} file {name}"), other).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_or_an_error_ends_the_items_and_names_the_file() {
        for panics in [false, true] {
            let read = move |outlet: &Outlet<i32>| {
                outlet.send(1);
                match panics {
                    true => panic!("off by one"),
                    false => Err(Error::invalid("off by one").into()),
                }
            };
            let items: Vec<_> = stream("CSV", "a.csv".into(), 1, read).collect().await;
            assert_eq!(items.len(), 2);
            let error = items[1].as_ref().unwrap_err().to_string();
            assert!(error.contains("CSV file a.csv: "), "{error}");
            assert!(error.contains("off by one"), "{error}");
        }
    }
}
