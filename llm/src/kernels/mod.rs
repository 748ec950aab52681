//! Which arithmetic is fused: norm, rotary positions, gated activation, ragged attention, sums,
//! cross-entropy.
//!
//! Each function hides its implementation: one fused pass on the CPU, composed tensor
//! operations elsewhere. Shapes are in each function's documentation; `t` counts packed rows.
//! Nothing here is differentiable: training calls the backward functions explicitly.

mod add;
mod attention;
mod attention_backward;
mod attention_cpu;
mod attention_tile;
mod cross_entropy;
mod element;
mod gated;
mod gated_backward;
mod rms_norm;
mod rms_norm_backward;
mod rope;
mod segment;
mod vector;

pub(crate) use add::add_into;
pub use attention::{attention, attention_with_lse};
pub use attention_backward::attention_backward;
pub(crate) use cross_entropy::softmax_cross_entropy;
pub use gated::{Activation, gated};
pub use gated_backward::gated_backward;
pub use rms_norm::rms_norm;
pub use rms_norm_backward::rms_norm_backward;
pub use rope::rope;
pub use segment::{Scoring, Segment, Span};
