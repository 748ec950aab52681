//! How a LoRA adapter is trained (Hu et al. 2021, arXiv 2106.09685).
//!
//! Read in this order: [`settings`] and [`example`] (what is asked for), [`packing`] (examples to
//! micro-batches), `forward` and `backward` (explicit, no tape: frozen weights get no gradients),
//! `loss`, `optimizer`, [`trainer`] (the loop), [`mod@run`], `checkpoint` and [`peft`] (the files);
//! [`mod@repeat`] compares with other trainers.

mod adapter;
mod backward;
mod checkpoint;
mod data;
pub mod example;
mod forward;
pub mod log;
mod loss;
mod micro_batch;
mod optimizer;
pub mod packing;
pub mod peft;
mod random;
pub mod repeat;
pub mod run;
pub mod settings;
mod shards;
pub mod trainer;

pub use example::{Example, PromptForm};
pub use log::StepRecord;
pub use run::{RunDirectory, RunMode, TrainReport, check, read_report};
pub use settings::{LoraSettings, SETTINGS, Schedule};
pub use trainer::{TrainObserver, train};

#[cfg(test)]
mod gradient_tests;
