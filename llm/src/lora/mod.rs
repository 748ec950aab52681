//! How a LoRA adapter is trained (Hu et al. 2021, arXiv 2106.09685).
//!
//! Read in this order: [`settings`] and [`example`] (what is asked for), [`packing`] (examples to
//! micro-batches), `forward` and `backward` (explicit, no tape: frozen weights get no gradients),
//! `loss`, `optimizer`, [`trainer`] (the loop), `checkpoint` and [`peft`] (the files).

mod adapter;
mod backward;
mod checkpoint;
pub mod example;
mod forward;
pub mod log;
mod loss;
mod optimizer;
pub mod packing;
pub mod peft;
mod random;
pub mod settings;
pub mod trainer;

pub use example::{Example, PromptForm};
pub use log::StepRecord;
pub use settings::{LoraSettings, Schedule};
pub use trainer::{RunMode, TrainObserver, TrainReport, train};

#[cfg(test)]
mod gradient_tests;
