//! Standard output and standard error: every word of the program leaves it here.
//!
//! A write can fail, where `println!` would panic. When nobody reads standard output any more
//! (`| head`) the command ends quietly, as filters do; a disk that is full is an error. Standard
//! error disturbs nothing: what nobody hears is not said.

use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use casebook::{Error, ErrorKind, Result};
use indicatif::ProgressBar;

use super::terminal;

/// Code of the error of a write to a terminal that hung up, EIO of POSIX.
#[cfg(unix)]
const HUNG_UP: i32 = 5;

/// True if standard output was closed when the program began. Before `main` the runtime opens /dev/null
/// in its place, where all that is written would be lost without a word.
static CLOSED: AtomicBool = AtomicBool::new(false);

/// The code of a file that is not open, EBADF of POSIX.
#[cfg(unix)]
const NOT_OPEN: i32 = 9;

#[cfg(unix)]
#[ctor::ctor(unsafe)]
fn look_whether_output_is_open() {
    use std::os::fd::AsFd;
    let copied = io::stdout().as_fd().try_clone_to_owned();
    let closed = copied.is_err_and(|e| e.raw_os_error() == Some(NOT_OPEN));
    CLOSED.store(closed, Ordering::Relaxed);
}

/// An error if standard output was closed when the program began.
pub(super) fn check_open() -> io::Result<()> {
    match CLOSED.load(Ordering::Relaxed) {
        true => Err(io::Error::other("it is closed")),
        false => Ok(()),
    }
}

/// The bar that is on the terminal now.
static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// From now on `bar` is taken away while something is printed.
pub(super) fn make_way_for(bar: Option<ProgressBar>) {
    *BAR.lock().unwrap_or_else(PoisonError::into_inner) = bar;
}

fn beside<T>(print: impl FnOnce() -> T) -> T {
    let bar = BAR.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match bar {
        Some(bar) => bar.suspend(print),
        None => print(),
    }
}

/// Prints `text`, which a terminal does not obey, and a line feed.
pub(super) fn line(text: &str) -> Result<()> {
    bytes(format!("{}\n", terminal::out(text)).as_bytes())
}

/// Prints `bytes` as they are.
pub(super) fn bytes(bytes: &[u8]) -> Result<()> {
    let printed = check_open().and_then(|()| {
        beside(|| {
            let mut out = io::stdout().lock();
            // What stays in a buffer would be lost at the end without a word.
            out.write_all(bytes).and_then(|()| out.flush())
        })
    });
    printed.map_err(failed)
}

/// Says a line on standard error, which a terminal does not obey.
pub(crate) fn note(text: &str) {
    let line = format!("{}\n", terminal::err(text));
    beside(|| io::stderr().lock().write_all(line.as_bytes()).ok());
}

/// Nobody reads standard output any more.
#[derive(Debug)]
struct Unread;

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nobody reads standard output any more")
    }
}

impl std::error::Error for Unread {}

/// What a failed write to standard output means.
pub(super) fn failed(error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Error::new(ErrorKind::Unavailable, Unread.to_string()).with_source(Unread);
    }
    if has_hung_up(&error) {
        let message = "the terminal is gone";
        return Error::new(ErrorKind::Interrupted, message).with_source(error);
    }
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            ErrorKind::Exhausted
        }
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, format!("writing to standard output: {error}")).with_source(error)
}

/// True if it failed because nobody reads standard output any more.
pub(super) fn is_unread(error: &Error) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = next {
        if cause.is::<Unread>() {
            return true;
        }
        next = cause.source();
    }
    false
}

/// True of a terminal that hung up. A damaged disk gives the same code, and a terminal that is gone
/// cannot be asked whether it was one; but it still is a device.
#[cfg(unix)]
fn has_hung_up(error: &io::Error) -> bool {
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileTypeExt;
    let is_device = || {
        let output = io::stdout().as_fd().try_clone_to_owned()?;
        let found = std::fs::File::from(output).metadata()?;
        Ok::<bool, io::Error>(found.file_type().is_char_device())
    };
    error.raw_os_error() == Some(HUNG_UP) && is_device().unwrap_or(false)
}

#[cfg(not(unix))]
fn has_hung_up(_: &io::Error) -> bool {
    false
}
