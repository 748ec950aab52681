//! Reading what may be damaged or hostile: a panic of a library becomes an error, and every error
//! names the file or table that was read.
//!
//! The readers of Parquet and Delta check less than they rely on: a few flipped bits of a footer
//! end in a panic that would take a host's thread with it. What this does not do: catch an abort
//! (a failed allocation); `store` keeps reads within the file, so that none is asked for.

mod format;
mod merge;
mod parquet;
mod pruning;
mod source;
mod store;
mod types;

use std::any::Any;
use std::cell::Cell;
use std::future::poll_fn;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use datafusion::error::DataFusionError;
use futures::Stream;
use futures::stream::BoxStream;

use crate::error::{Error, ErrorKind, Result};

pub(crate) use format::ParquetFactory;
pub(crate) use parquet::in_other_case;
pub(crate) use pruning::{may_prune, may_prune_planned, without_floats};
pub(crate) use source::{GuardedSource, shown};
pub(crate) use store::{Bounds, GuardedStore, changed, outside};
pub(crate) use types::ExactTypes;

thread_local! {
    /// How many [`caught`] are under way on this thread.
    static CATCHING: Cell<usize> = const { Cell::new(0) };
}

/// Keeps panics that become errors here from also being printed. For programs: the panic hook
/// belongs to the process, so a library must not set it by itself.
pub fn hide_caught_panics() {
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if CATCHING.with(Cell::get) == 0 {
            print(info);
        }
    }));
}

/// What `work` returns; a panic in it is an error about `what`, such as `'data/a.parquet'`.
pub(crate) fn caught<T>(what: &str, work: impl FnOnce() -> T) -> Result<T> {
    CATCHING.with(|n| n.set(n.get() + 1));
    // What a panic leaves half changed is dropped by every caller.
    let result = catch_unwind(AssertUnwindSafe(work));
    CATCHING.with(|n| n.set(n.get() - 1));
    result.map_err(|panic| panicked(what, panic))
}

/// What `work` ends with; as [`caught`], around each poll.
pub(crate) async fn caught_while<T, E: From<Error>>(
    what: &str,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let mut work = Box::pin(work);
    poll_fn(move |cx| match caught(what, || work.as_mut().poll(cx)) {
        Ok(poll) => poll,
        Err(error) => Poll::Ready(Err(error.into())),
    })
    .await
}

/// The items of `inner`: a panic ends it with an error about `what`, and so does an error, which
/// is given that name.
pub(crate) fn stream<T: Send + 'static>(
    what: Arc<str>,
    inner: BoxStream<'static, Result<T, DataFusionError>>,
) -> BoxStream<'static, Result<T, DataFusionError>> {
    Box::pin(Caught {
        what,
        inner: Some(inner),
    })
}

struct Caught<T> {
    what: Arc<str>,
    inner: Option<BoxStream<'static, Result<T, DataFusionError>>>,
}

impl<T> Stream for Caught<T> {
    type Item = Result<T, DataFusionError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let what = Arc::clone(&self.what);
        let Some(inner) = self.inner.as_mut() else {
            return Poll::Ready(None);
        };
        let failed = match caught(&what, || inner.as_mut().poll_next(cx)) {
            Ok(Poll::Ready(Some(Err(error)))) => named(&what, error),
            Ok(poll) => return poll,
            Err(error) => error.into(),
        };
        // A library that broke its own state may panic again when it is dropped.
        let inner = self.inner.take();
        caught(&what, || drop(inner)).ok();
        Poll::Ready(Some(Err(failed)))
    }
}

/// `error`, met while `what` was read. Where the memory is used up, `what` is not to blame.
pub(crate) fn named(what: &str, error: DataFusionError) -> DataFusionError {
    match error.find_root() {
        DataFusionError::ResourcesExhausted(_) => error,
        _ => Error::while_reading(what, error).into(),
    }
}

fn panicked(what: &str, panic: Box<dyn Any + Send>) -> Error {
    let said = panic.downcast_ref::<String>().map(String::as_str);
    let said = said.or_else(|| panic.downcast_ref::<&str>().copied());
    Error::new(
        ErrorKind::Corrupt,
        format!(
            "reading {what}: the data is damaged, and its reader gave up ({}); write it again or \
             leave it out",
            said.unwrap_or("without a reason")
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt;

    #[tokio::test]
    async fn a_panic_ends_a_stream_with_an_error_that_names_what_was_read() {
        let items = futures::stream::iter([1, 2, 3]);
        let items = items.map(|i| if i == 2 { panic!("off by {i}") } else { Ok(i) });
        let items: Vec<_> = stream("'a.parquet'".into(), items.boxed()).collect().await;
        assert_eq!(items.len(), 2, "{items:?}");
        let error = items[1].as_ref().unwrap_err().to_string();
        assert!(
            error.contains("'a.parquet'") && error.contains("off by 2"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn an_error_of_a_library_is_given_the_name() {
        let broken = DataFusionError::ParquetError(Box::new(
            datafusion::parquet::errors::ParquetError::EOF("12 bytes are missing".into()),
        ));
        let items = futures::stream::iter([Err::<(), _>(broken)]).boxed();
        let items: Vec<_> = stream("'a.parquet'".into(), items).collect().await;
        let error = items[0].as_ref().unwrap_err();
        let own = Error::while_doing(
            "reading",
            DataFusionError::External(error.to_string().into()),
        );
        assert!(
            own.to_string().contains("'a.parquet': EOF: 12 bytes"),
            "{own}"
        );
    }

    #[tokio::test]
    async fn what_is_awaited_may_panic_at_any_poll() {
        let work = async {
            tokio::task::yield_now().await;
            let numbers: Vec<u8> = std::hint::black_box(vec![]);
            Ok::<u8, Error>(numbers[0])
        };
        let error = caught_while("the table 't'", work).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("the table 't'"), "{error}");
    }
}
