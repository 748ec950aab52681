//! An answer of one of the models, as it came.

/// The text, and whether that is all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) text: String,
    /// It ended at the token limit.
    pub(super) cut: bool,
}
