//! What the SQL functions and sinks of one session share: models, profiles, table settings.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use datafusion::execution::session_state::SessionState;
use parking_lot::RwLock;

use crate::config::Hidden;
use crate::models::Models;
use crate::progress::Progress;
use crate::stopping::{Stopping, Work};

/// The session that a function or a table was registered in.
pub(crate) type Host = Weak<RwLock<SessionState>>;

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
    stopping: Stopping,
}

impl Casebook {
    /// Stops the statements, trainings and comparisons that run now; those that begin later are not
    /// affected. `docs_to_qa` ends with [`crate::ErrorKind::Interrupted`] after the last document
    /// that is done: a target that adds rows by key keeps those, any other is as it was before.
    /// Training writes a checkpoint.
    pub fn cancel(&self) {
        self.stopping.stop();
    }

    /// True while something runs that [`Casebook::cancel`] would stop in good order.
    pub fn is_busy(&self) -> bool {
        self.stopping.is_busy()
    }

    /// True while an INSERT of this process brings rows that have come into its target, also those
    /// that were done when it was stopped. They are lost to who does not wait for it.
    pub fn is_committing(&self) -> bool {
        casebook_connectors::is_committing()
    }

    /// A piece of work that [`Casebook::cancel`] can stop.
    pub(crate) fn begin_work(&self) -> Work {
        self.stopping.begin()
    }

    /// Settings of `table`, matched by the last part of its name, ignoring case.
    pub fn table_settings(&self, table: &str) -> TableSettings {
        self.tables
            .get(&table.to_lowercase())
            .cloned()
            .unwrap_or_default()
    }
}
