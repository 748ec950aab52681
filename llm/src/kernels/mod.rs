//! Which arithmetic is fused: norm, rotary positions, gated activation, ragged attention.
//!
//! Each function hides its implementation: one fused pass on the CPU, composed tensor
//! operations elsewhere. Shapes are in each function's documentation; `t` counts packed rows.
