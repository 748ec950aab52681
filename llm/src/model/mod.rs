//! How a Hugging Face model directory becomes something that computes.
//!
//! `source` finds files, `config` reads config.json as one of the `families` means it, `weights`
//! reads safetensors, `gguf` stands for all of these where a model is one file, `load` puts a network
//! together. `decoder` is the network, `layer` what one layer
//! computes, `matrix`, `quant` and `linear` its matrices, `kv` holds keys and values, `adapter` attaches a
//! PEFT adapter, `tokenizer` and `chat` turn text into token ids, `text_stream` turns them back.

mod adapter;
mod chat;
#[cfg(test)]
mod chat_tests;
mod completion;
mod config;
mod config_json;
mod content;
mod control_text;
mod counting;
mod decoder;
mod families;
mod fields;
mod frame;
mod gguf;
mod hub;
mod jinja;
mod kv;
mod labels;
mod layer;
mod linear;
mod load;
mod matrix;
mod prompt;
mod quant;
mod rope;
mod source;
mod text_stream;
pub(crate) mod thinking;
mod tokenizer;
mod tokenizer_file;
mod weights;

pub use adapter::attach_adapter;
pub(crate) use adapter::check_adapter;
pub use chat::{ChatOptions, ChatTemplate};
pub use config::{DecoderConfig, Names};
pub use content::Content;
pub use counting::TextCounter;
pub use decoder::{Decoder, StepSegment};
pub use frame::{Piece, PromptParts, ReplyFrame, Slot, Strip, Stripped};
pub use kv::KvBlock;
pub use layer::{Biases, FUSED_MODULES, LORA_MODULES, Layer, LayerSpec, Norm, Projections, QkNorm};
pub(crate) use layer::{Kept, Recorder, before, layer_forward, scaled};
pub use linear::{Linear, LoraPair};
pub(crate) use load::open_weights;
pub use matrix::{Embedding, Matrix};
pub use prompt::{DocumentPrompt, Prompter};
pub use quant::Quant;
pub use rope::{Angles, Rope, RopeScaling};
pub use source::{ModelFiles, ModelSource};
pub(crate) use text_stream::StreamState;
pub use text_stream::TextStream;
pub use tokenizer::TextTokenizer;
pub use weights::Weights;
