//! What a user should hear although nothing failed, such as an INSERT that was done before. The
//! host decides where it is shown; by itself a connector prints nothing.

use datafusion::prelude::SessionConfig;

/// Where the notices of a session go: an extension of its configuration. Without it, nowhere.
#[derive(Debug, Clone, Copy)]
pub struct Notices(pub fn(&str));

/// Tells the host of the session that `config` belongs to.
pub(crate) fn say(config: &SessionConfig, notice: &str) {
    if let Some(notices) = config.get_extension::<Notices>() {
        (notices.0)(notice);
    }
}
