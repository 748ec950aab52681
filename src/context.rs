//! What the SQL functions and sinks of one session share: models, profiles, table settings.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::config::Hidden;
use crate::models::Models;
use crate::progress::Progress;

/// Settings of one source table, as `[tables.NAME]` gives them. Arguments of `docs_to_qa` win.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableSettings {
    /// Column that identifies a document.
    pub id: Option<String>,
    /// Column that holds the text.
    pub text: Option<String>,
    /// Columns rendered as header lines above the text.
    pub title: Option<Vec<String>>,
    /// Columns passed through to the output.
    pub keep: Option<Vec<String>>,
}

/// The state that [`crate::install`] gives to a session.
#[derive(Debug, Default)]
pub struct Casebook {
    /// Models by name, loaded on first use.
    pub models: Models,
    /// Profile overlays by profile name: (origin for error messages, TOML text), in order.
    pub profiles: BTreeMap<String, Vec<(String, String)>>,
    /// Settings by table name, lower case.
    pub tables: BTreeMap<String, TableSettings>,
    /// Values of the configuration and of statements that no message may hold.
    pub hidden: Arc<Hidden>,
    /// Counters a program may show.
    pub progress: Arc<Progress>,
    cancelled: AtomicBool,
}

impl Casebook {
    /// Asks running work to stop soon. `docs_to_qa` then ends its rows after the last finished
    /// document, so that an INSERT commits what is done; training writes a checkpoint.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Forgets a cancellation, before the next statement of the same session.
    pub fn clear_cancel(&self) {
        self.cancelled.store(false, Ordering::Relaxed);
    }

    /// True once [`Casebook::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Settings of `table`, matched by the last part of its name, ignoring case.
    pub fn table_settings(&self, table: &str) -> TableSettings {
        self.tables
            .get(&table.to_lowercase())
            .cloned()
            .unwrap_or_default()
    }
}
