//! Rows that attend together, and the keys and values they attend to.

use candle_core::Tensor;

/// Keys and values that rows attend to.
#[derive(Debug, Clone)]
pub struct Span {
    /// `[n, kv_heads, d]`, contiguous.
    pub keys: Tensor,
    /// `[n, kv_heads, d]`, contiguous.
    pub values: Tensor,
}

/// Consecutive rows of one sequence.
#[derive(Debug, Clone)]
pub struct Segment {
    /// How many rows.
    pub rows: usize,
    /// Attended fully; any order gives the same sum up to rounding.
    pub past: Vec<Span>,
    /// Its last `rows` keys belong to the rows: row `i` attends to all but the last
    /// `rows - 1 - i` of them.
    pub own: Span,
}
