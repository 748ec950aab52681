//! Exit codes of the program: how did it end?

/// Everything was done.
pub(super) const OK: u8 = 0;
/// Work failed.
pub(super) const FAILED: u8 = 1;
/// Wrong input or usage.
pub(super) const USAGE: u8 = 2;
/// Wrong configuration.
pub(super) const CONFIGURATION: u8 = 78;
/// Stopped by the user.
pub(super) const INTERRUPTED: u8 = 130;
