//! Rows that attend together, the keys and values they attend to, and how a key is scored.

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
    /// What comes before `own`, first to last: together the spans hold the sequence's keys from
    /// position 0 on. Without a window any order gives the same sum up to rounding.
    pub past: Vec<Span>,
    /// Its last `rows` keys belong to the rows: row `i` attends to all but the last
    /// `rows - 1 - i` of them.
    pub own: Span,
}

/// How a query and a key make a score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scoring {
    /// The product is multiplied by it.
    pub scale: f64,
    /// Then scores are bent below this: `cap tanh(score / cap)` (Gemma 2, arXiv 2408.00118).
    pub softcap: Option<f64>,
    /// A row sees this many keys at most, its own and those just before (Mistral 7B, arXiv
    /// 2310.06825); at least 1.
    pub window: Option<usize>,
}

impl Scoring {
    /// Scaled products over all keys.
    pub fn plain(scale: f64) -> Self {
        Self {
            scale,
            softcap: None,
            window: None,
        }
    }

    /// The first key that a row at `position` sees.
    pub(crate) fn first_seen(&self, position: usize) -> usize {
        self.window
            .map_or(0, |window| (position + 1).saturating_sub(window))
    }
}
