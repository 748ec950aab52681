//! How a Hugging Face model directory becomes something that computes.
//!
//! `source` finds files, `config` reads config.json, `weights` reads safetensors, `decoder` is
//! the network, `linear` its only kind of matrix, `adapter` attaches a PEFT adapter,
//! `tokenizer` and `chat` turn text into token ids and back.

mod config;
mod decoder;
mod linear;
mod rope_table;
mod source;
mod weights;

pub use config::{DecoderConfig, Rope, RopeScaling};
pub use decoder::{Decoder, Layer};
pub use linear::{Linear, LoraPair};
pub use rope_table::RopeTable;
pub use source::ModelSource;
pub use weights::Weights;
