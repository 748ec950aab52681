//! What a user should know that is no error, on standard error: files that are left out, declared
//! columns that no file has, an INSERT that was done before. Libraries say other things through the same channel; those stay silent.

use log::{Level, Log, Metadata, Record};

use std::sync::Arc;

use casebook::config::Hidden;

use super::{progress, terminal};

/// What Casebook's own notices are said to.
const TARGET: &str = "casebook";

struct Notices(Arc<Hidden>);

impl Log for Notices {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == TARGET && metadata.level() <= Level::Info
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            // File names and columns are the data's.
            let text = self.0.out_of(&record.args().to_string());
            let text = terminal::err(&text).into_owned();
            let kind = match record.level() {
                Level::Info => "note",
                _ => "warning",
            };
            progress::beside(|| eprintln!("{kind}: {text}"));
        }
    }

    fn flush(&self) {}
}

/// Prints notices from now on, without what is `hidden`.
pub(super) fn show(hidden: &Arc<Hidden>) {
    // It fails only if there is a logger already, which shows them then.
    if log::set_boxed_logger(Box::new(Notices(Arc::clone(hidden)))).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
}
