//! What a user should know that is no error, on standard error: files that are left out, declared
//! columns that no file has, an INSERT that was done before. Libraries say other things through the
//! same channel; those stay silent, and with --quiet all do.

use std::sync::Arc;

use casebook::config::Hidden;
use log::{Level, Log, Metadata, Record};

use super::output;

/// What Casebook's own notices are said to.
const TARGET: &str = "casebook";

struct Notices(Arc<Hidden>);

impl Log for Notices {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == TARGET && metadata.level() <= Level::Info
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let text = self.0.out_of(&record.args().to_string());
            let kind = match record.level() {
                Level::Info => "note",
                _ => "warning",
            };
            output::note(&format!("{kind}: {text}"));
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
