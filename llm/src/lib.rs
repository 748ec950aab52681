//! Language model engine and LoRA trainer of Casebook. No SQL, no Arrow; tensors stay inside.
//!
//! - [`model`]: a Hugging Face directory becomes a decoder, a tokenizer and a chat template.
//! - [`kernels`]: the arithmetic that is worth fusing, on the CPU and on CUDA devices.
//! - [`engine`]: documents are prefilled exactly once and shared by all their branches.
//! - [`lora`]: training of LoRA adapters and PEFT files.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod engine;
mod error;
pub mod kernels;
pub mod lora;
pub mod model;
pub mod output;

pub use engine::{
    Completion, Counters, DeviceChoice, Engine, EngineOptions, Finish, ModelInfo, Prefix, Request,
    Sampling, Session, parse_dtype,
};
pub use model::{ChatOptions, ModelSource, TextCounter, TextTokenizer};

pub use candle_core::{DType, Device};
pub use error::{Error, ErrorKind, Result};
