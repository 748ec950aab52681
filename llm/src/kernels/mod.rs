//! Which arithmetic is fused: norm, rotary positions, gated activation, ragged attention.
//!
//! Each function hides its implementation: one fused pass on the CPU, composed tensor
//! operations elsewhere. Shapes are in each function's documentation; `t` counts packed rows.
//! Nothing here is differentiable: training calls the backward functions explicitly.

mod attention;
mod attention_cpu;
mod element;
mod rms_norm;
mod rope;
mod swiglu;

pub use attention::{Segment, Span, attention, attention_with_lse};
pub use rms_norm::rms_norm;
pub use rope::rope;
pub use swiglu::swiglu;
