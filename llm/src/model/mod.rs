//! How a Hugging Face model directory becomes something that computes.
//!
//! `source` finds files, `config` reads config.json, `weights` reads safetensors, `decoder` is
//! the network, `linear` its only kind of matrix, `kv` holds keys and values, `adapter` attaches
//! a PEFT adapter, `tokenizer` and `chat` turn text into token ids and back.

mod adapter;
mod chat;
mod config;
mod content;
mod counting;
mod decoder;
mod hub;
mod kv;
mod linear;
mod prompt;
mod rope_table;
mod source;
mod tokenizer;
mod weights;

pub(crate) use adapter::check_adapter;
pub use adapter::{LORA_MODULES, attach_adapter};
pub use chat::{ChatTemplate, Piece, PromptParts, Slot};
pub use config::{DecoderConfig, Rope, RopeScaling};
pub use content::Content;
pub use counting::TextCounter;
pub use decoder::{Decoder, Layer, StepSegment};
pub use kv::KvBlock;
pub use linear::{Linear, LoraPair};
pub use prompt::{DocumentPrompt, Prompter};
pub use rope_table::RopeTable;
pub use source::{ModelFiles, ModelSource};
pub(crate) use tokenizer::StreamState;
pub use tokenizer::{TextStream, TextTokenizer};
pub use weights::Weights;
