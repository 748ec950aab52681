//! How a Hugging Face model directory becomes something that computes.
//!
//! `source` finds files, `config` reads config.json, `weights` reads safetensors, `decoder` is
//! the network, `linear` its only kind of matrix, `kv` holds keys and values, `adapter` attaches
//! a PEFT adapter, `tokenizer` and `chat` turn text into token ids, `text_stream` turns them back.

mod adapter;
mod chat;
mod completion;
mod config;
mod content;
mod control_text;
mod decoder;
mod frame;
mod hub;
mod jinja;
mod kv;
mod labels;
mod limits;
mod linear;
mod prompt;
mod rope_table;
mod source;
mod text_stream;
pub(crate) mod thinking;
mod tokenizer;
mod tokenizer_file;
mod weights;

pub(crate) use adapter::check_adapter;
pub use adapter::{LORA_MODULES, attach_adapter};
pub use chat::{ChatOptions, ChatTemplate};
pub use config::{DecoderConfig, Rope, RopeScaling};
pub use content::Content;
pub use decoder::{Decoder, Layer, StepSegment};
pub use frame::{Piece, PromptParts, ReplyFrame, Slot, Strip, Stripped};
pub use kv::KvBlock;
pub use linear::{Linear, LoraPair};
pub use prompt::{DocumentPrompt, Prompter};
pub use rope_table::RopeTable;
pub use source::{ModelFiles, ModelSource};
pub(crate) use text_stream::StreamState;
pub use text_stream::TextStream;
pub use tokenizer::TextTokenizer;
pub use weights::Weights;
